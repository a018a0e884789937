"""The network in NumPy: layers, losses, optimisers, and the check of their gradients.

A layer has forward(x), backward(dy), and the dictionaries params and grads.
PyTorch appears nowhere here; data, plots and files live in helpers.py.
"""

import numpy as np

Array = np.ndarray

# ---------------------------------------------------------------- layers


class Layer:
    """What all layers share.

    `forward(x)` returns the output and keeps what `backward` needs. `backward(dy)`
    takes the derivative of the loss by that output, stores those by the parameters in
    `grads` under the names that they have in `params`, and returns that by x.
    Taught in chapter 3.
    """

    def __init__(self) -> None:
        self.params = {}
        self.grads = {}


class Linear(Layer):
    """z = x W + b: each output is a weighted sum of all inputs, plus a constant.

    Takes (N, inputs), returns (N, outputs). `generator` draws the weights with
    deviation sqrt(2 / inputs) (He et al., 2015, equation 10); biases start at 0.
    Raises ValueError for a batch that does not fit. Taught in chapter 3.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        generator: np.random.Generator,
        dtype: type = np.float64,
    ):
        super().__init__()
        W = np.sqrt(2 / inputs) * generator.standard_normal((inputs, outputs))
        self.params = {"W": W.astype(dtype), "b": np.zeros(outputs, dtype)}

    def forward(self, x: Array) -> Array:
        check_batch(x, width=len(self.params["W"]))
        self.x = x  # (N, inputs)
        return x @ self.params["W"] + self.params["b"]  # (N, outputs)

    def backward(self, dz: Array) -> Array:
        self.grads["W"] = self.x.T @ dz  # (inputs, outputs)
        self.grads["b"] = dz.sum(axis=0)  # (outputs,)
        return dz @ self.params["W"].T  # (N, inputs)


class Sigmoid(Layer):
    """a = 1 / (1 + exp(-z)), by element, written so that no exponential overflows.

    Taught in chapter 3.
    """

    def forward(self, z: Array) -> Array:
        check_batch(z)
        self.a = (1 + np.tanh(z / 2)) / 2
        return self.a

    def backward(self, da: Array) -> Array:
        return da * self.a * (1 - self.a)


class Tanh(Layer):
    """a = tanh(z), by element. Taught in chapter 3."""

    def forward(self, z: Array) -> Array:
        check_batch(z)
        self.a = np.tanh(z)
        return self.a

    def backward(self, da: Array) -> Array:
        return da * (1 - self.a**2)


class ReLU(Layer):
    """a = max(z, 0), by element; its derivative at 0 is taken as 0.

    Taught in chapter 3.
    """

    def forward(self, z: Array) -> Array:
        check_batch(z)
        self.positive = z > 0
        return z * self.positive

    def backward(self, da: Array) -> Array:
        return da * self.positive


class LeakyReLU(Layer):
    """a = z where z > 0, else slope times z, by element.

    Source: Maas et al. (2013). Taught in chapter 4.
    """

    def __init__(self, slope: float = 0.01):
        super().__init__()
        self.slope = slope

    def forward(self, z: Array) -> Array:
        check_batch(z)
        self.derivative = np.where(z > 0, 1, self.slope).astype(z.dtype)
        return z * self.derivative

    def backward(self, da: Array) -> Array:
        return da * self.derivative


class GELU(Layer):
    """a = z P(a standard normal number < z), by element, in its form with tanh.

    Source: Hendrycks and Gimpel (2016), section 2. Taught in chapter 4.
    """

    def forward(self, z: Array) -> Array:
        check_batch(z)
        root = np.sqrt(2 / np.pi).astype(z.dtype)
        tanh = np.tanh(root * (z + 0.044715 * z**3))
        du = root * (1 + 3 * 0.044715 * z**2)
        self.derivative = (1 + tanh) / 2 + z / 2 * (1 - tanh**2) * du
        return z / 2 * (1 + tanh)

    def backward(self, da: Array) -> Array:
        return da * self.derivative


class Sequential(Layer):
    """Layers one after the other; parameters are named by place: "0.W", "0.b", "2.W".

    Taught in chapter 3.
    """

    def __init__(self, *layers: Layer):
        self.layers = layers

    @property
    def params(self) -> dict[str, Array]:
        pairs = enumerate(self.layers)
        return {f"{i}.{n}": p for i, layer in pairs for n, p in layer.params.items()}

    @property
    def grads(self) -> dict[str, Array]:
        pairs = enumerate(self.layers)
        return {f"{i}.{n}": g for i, layer in pairs for n, g in layer.grads.items()}

    def forward(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, dy: Array) -> Array:
        for layer in reversed(self.layers):
            dy = layer.backward(dy)
        return dy


# ---------------------------------------------------------------- losses


class MSE(Layer):
    """Mean squared error: the mean of (y - target)² over all elements, a number.

    Raises ValueError if the shapes differ. Taught in chapter 3.
    """

    def forward(self, y: Array, target: Array) -> float:
        check_batch(y)
        if y.shape != target.shape:
            raise ValueError(f"target has shape {target.shape}, and y {y.shape}")
        self.difference = y - target
        return np.mean(self.difference**2)

    def backward(self, dL: float = 1.0) -> Array:
        return dL * 2 * self.difference / self.difference.size


class SoftmaxCrossEntropy(Layer):
    """The mean over images of -log(probability of the true class), from logits.

    Takes logits (N, K) and labels int (N,) from 0 to K - 1. The greatest logit of each
    image is subtracted first, so that logits of ±10,000 give no overflow.
    Raises ValueError for labels that do not fit. Taught in chapter 3.
    """

    def forward(self, z: Array, labels: Array) -> float:
        check_batch(z)
        check_labels(labels, len(z), z.shape[1])
        z = z - z.max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))  # (N, K)
        self.rows, self.labels = np.arange(len(z)), labels
        self.p = np.exp(log_p)
        return -log_p[self.rows, labels].mean()

    def backward(self, dL: float = 1.0) -> Array:
        dz = self.p.copy()
        dz[self.rows, self.labels] -= 1
        return dL * dz / len(dz)


# ---------------------------------------------------------------- optimisers


class SGD:
    """Stochastic gradient descent, with momentum and weight decay as in torch.optim.

    Source: Sutskever et al. (2013). Taught in chapter 3.
    """

    def __init__(
        self,
        model: Layer,
        rate: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ):
        self.model, self.rate, self.momentum = model, rate, momentum
        self.nesterov, self.weight_decay = nesterov, weight_decay
        self.velocity = {name: np.zeros_like(p) for name, p in model.params.items()}

    def step(self) -> None:
        """Change the parameters in place by the gradients of the last backward pass."""
        for name, p in self.model.params.items():
            g = self.model.grads[name] + self.weight_decay * p
            v = self.velocity[name]
            v *= self.momentum
            v += g
            p -= self.rate * (g + self.momentum * v if self.nesterov else v)


class Adam:
    """Adam: steps divided by a running root mean square of the gradients.

    Source: Kingma and Ba (2015), algorithm 1. Taught in chapter 3.
    """

    def __init__(
        self,
        model: Layer,
        rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ):
        self.model, self.rate, self.epsilon = model, rate, epsilon
        self.beta1, self.beta2, self.steps = beta1, beta2, 0
        self.m = {name: np.zeros_like(p) for name, p in model.params.items()}
        self.s = {name: np.zeros_like(p) for name, p in model.params.items()}

    def step(self) -> None:
        """Change the parameters in place by the gradients of the last backward pass."""
        self.steps += 1
        for name, p in self.model.params.items():
            g, m, s = self.model.grads[name], self.m[name], self.s[name]
            m += (1 - self.beta1) * (g - m)
            s += (1 - self.beta2) * (g**2 - s)
            m_hat = m / (1 - self.beta1**self.steps)
            s_hat = s / (1 - self.beta2**self.steps)
            p -= self.rate * m_hat / (np.sqrt(s_hat) + self.epsilon)


def run_epoch(
    model: Layer,
    optimiser: SGD | Adam,
    x: Array,
    labels: Array,
    batch_size: int,
    generator: np.random.Generator,
) -> float:
    """Train on every row of x (N, inputs) once, in random order; return the mean loss.

    Taught in chapter 3.
    """
    loss, total = SoftmaxCrossEntropy(), 0.0
    order = generator.permutation(len(x))
    for start in range(0, len(x), batch_size):
        batch = order[start : start + batch_size]
        z = model.forward(x[batch])
        total += len(batch) * float(loss.forward(z, labels[batch]))
        model.backward(loss.backward())
        optimiser.step()
    return total / len(x)


# ---------------------------------------------------------------- checks


def check_gradients(
    layer: Layer, x: Array, *more: Array, step: float = 1e-6, seed: int = 0
) -> dict[str, float]:
    """Compare `backward` with central differences; return a relative error each.

    The names are "x" and those in `params`. `more` is passed on to `forward`, as the
    labels of a loss. The loss of a layer with many outputs is their sum with random
    weights. The error is |analytic - numeric| / (|analytic| + |numeric|), with lengths
    of whole tensors: below 1e-6 for a sound layer, of the order of 1 for a wrong one.
    Needs float64, else ValueError. Taught in chapter 3.
    """
    tensors = {"x": x, **layer.params}
    if any(tensor.dtype != np.float64 for tensor in tensors.values()):
        raise ValueError("the check needs float64: float32 has too few digits")
    y = layer.forward(x, *more)
    weights = np.random.default_rng(seed).standard_normal(np.shape(y))
    analytic = {"x": layer.backward(weights), **layer.grads}
    errors = {}
    for name, tensor in tensors.items():
        numeric = np.zeros_like(tensor)
        for i in np.ndindex(tensor.shape):
            kept = tensor[i]
            tensor[i] = kept + step
            above = np.sum(weights * layer.forward(x, *more))
            tensor[i] = kept - step
            below = np.sum(weights * layer.forward(x, *more))
            tensor[i] = kept
            numeric[i] = (above - below) / (2 * step)
        size = np.linalg.norm(analytic[name]) + np.linalg.norm(numeric)
        errors[name] = np.linalg.norm(analytic[name] - numeric) / max(size, 1e-300)
    return errors


def check_batch(x: Array, width: int | None = None) -> None:
    """Raise ValueError unless x is a batch (N, width) of finite floats, N > 0."""
    if not isinstance(x, np.ndarray) or x.ndim != 2:
        raise ValueError(f"a batch has the shape (N, width), not {np.shape(x)}")
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"a batch holds floats, not {x.dtype}: use x.astype(float)")
    if len(x) == 0:
        raise ValueError("the batch is empty")
    if width is not None and x.shape[1] != width:
        raise ValueError(
            f"the batch has {x.shape[1]} columns, the layer {width} inputs"
        )
    if not np.isfinite(x).all():
        raise ValueError("the batch holds NaN or infinity")


def check_labels(labels: Array, count: int, classes: int) -> None:
    """Raise ValueError unless labels are `count` integers from 0 to classes - 1."""
    if not isinstance(labels, np.ndarray) or labels.shape != (count,):
        raise ValueError(f"labels have the shape ({count},), not {np.shape(labels)}")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are integers, not {labels.dtype}")
    if labels.min() < 0 or labels.max() >= classes:
        found = f"{labels.min()} to {labels.max()}"
        raise ValueError(f"labels run from 0 to {classes - 1}; these from {found}")
