"""The network in NumPy: layers, losses, optimisers, and the check of their gradients.

A layer has forward(x), backward(dy), and the dictionaries params and grads.
PyTorch appears nowhere here, and neither do images, plots or files.
"""

from collections.abc import Iterator
from itertools import zip_longest

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
        check_batch(x, ndim=2, width=len(self.params["W"]))
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
        check_batch(z, ndim=2)
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


def softmax_regression(
    x: Array, labels: Array, epochs: int, generator: np.random.Generator
) -> Linear:
    """Train one linear layer from x (N, D) to ten scores, from weights of zero.

    Taught in chapter 1.
    """
    model = Linear(x.shape[1], 10, generator, x.dtype)
    model.params["W"][:] = 0
    optimiser = SGD(model, rate=0.001, weight_decay=0.1)
    for _ in range(epochs):
        run_epoch(model, optimiser, x, labels, 64, generator)
    return model


# ---------------------------------------------------------------- images


class Conv2d(Layer):
    """A convolution: each output pixel is a weighted sum of the pixels around it.

    Takes (N, H, W, inputs), returns (N, H', W', outputs), channels last, with
    H' = (H + 2 padding - size) // stride + 1. There is no bias. `generator` draws the
    weights W (size, size, inputs, outputs) with deviation
    sqrt(2 / (size² inputs)) (He et al., 2015, equation 10).
    Raises ValueError for a batch that does not fit. Taught in chapter 5.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        generator: np.random.Generator,
        size: int = 3,
        stride: int = 1,
        padding: int = 1,
        dtype: type = np.float64,
    ):
        super().__init__()
        W = generator.standard_normal((size, size, inputs, outputs))
        self.params = {"W": (W * np.sqrt(2 / (size**2 * inputs))).astype(dtype)}
        self.stride, self.padding = stride, padding

    def forward(self, x: Array) -> Array:
        W, s, p = self.params["W"], self.stride, self.padding
        check_batch(x, ndim=4, width=W.shape[2])
        self.x = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
        height, width = ((n - len(W)) // s + 1 for n in self.x.shape[1:3])
        y = np.zeros((len(x), height, width, W.shape[3]), x.dtype)
        for i, j in np.ndindex(W.shape[:2]):
            y += self.x[:, i : i + s * height : s, j : j + s * width : s] @ W[i, j]
        return y

    def backward(self, dy: Array) -> Array:
        W, s, p = self.params["W"], self.stride, self.padding
        rows, (height, width) = dy.reshape(-1, W.shape[3]), dy.shape[1:3]
        self.grads["W"], dx = np.empty_like(W), np.zeros_like(self.x)
        for i, j in np.ndindex(W.shape[:2]):
            pixels = np.s_[:, i : i + s * height : s, j : j + s * width : s]
            self.grads["W"][i, j] = self.x[pixels].reshape(-1, W.shape[2]).T @ rows
            dx[pixels] += dy @ W[i, j].T
        return dx[:, p : dx.shape[1] - p, p : dx.shape[2] - p]  # without the padding


class BatchNorm(Layer):
    """Each channel shifted and scaled to mean 0, variance 1; then y = gamma x̂ + beta.

    Takes (N, channels) or (N, H, W, channels). While `training` is true, mean and
    variance are the batch's, and the running ones follow them by `momentum` (the
    running variance is the unbiased one, as in PyTorch); else the running ones are
    used. Raises ValueError for a batch that does not fit, or for training with one
    number a channel. Source: Ioffe and Szegedy (2015), algorithm 1.
    Taught in chapter 5.
    """

    def __init__(
        self,
        channels: int,
        momentum: float = 0.1,
        epsilon: float = 1e-5,
        dtype: type = np.float64,
    ):
        super().__init__()
        gamma, beta = np.ones(channels, dtype), np.zeros(channels, dtype)
        self.params = {"gamma": gamma, "beta": beta}
        self.running_mean, self.running_var = beta.copy(), gamma.copy()
        self.momentum, self.epsilon, self.training = momentum, epsilon, True

    def forward(self, x: Array) -> Array:
        check_batch(x, width=len(self.running_mean), least=1 + self.training)
        self.axes = tuple(range(x.ndim - 1))  # all but the channels
        if self.training:
            mean, var, n = x.mean(self.axes), x.var(self.axes), x[..., 0].size
            self.running_mean += self.momentum * (mean - self.running_mean)
            self.running_var += self.momentum * (var * n / (n - 1) - self.running_var)
        else:
            mean, var = self.running_mean, self.running_var
        self.deviation = np.sqrt(var + self.epsilon)
        self.x_hat = (x - mean) / self.deviation
        return self.params["gamma"] * self.x_hat + self.params["beta"]

    def backward(self, dy: Array) -> Array:
        self.grads["gamma"] = (dy * self.x_hat).sum(self.axes)
        self.grads["beta"] = dy.sum(self.axes)
        g = dy * self.params["gamma"]  # by x_hat
        if self.training:
            along = (g * self.x_hat).mean(self.axes)
            g = g - g.mean(self.axes) - self.x_hat * along
        return g / self.deviation


class GlobalAveragePool(Layer):
    """The mean of each channel: (N, H, W, C) to (N, C). Taught in chapter 6."""

    def forward(self, x: Array) -> Array:
        check_batch(x, ndim=4)
        self.shape = x.shape
        return x.mean(axis=(1, 2))

    def backward(self, dy: Array) -> Array:
        pixels = self.shape[1] * self.shape[2]
        return np.broadcast_to(dy[:, None, None] / pixels, self.shape)


class ShortcutA(Layer):
    """Shortcut A: every stride-th pixel, with `extra` channels of zeros appended.

    Source: He et al. (2016), section 4.1. Taught in chapter 5.
    """

    def __init__(self, extra: int, stride: int):
        super().__init__()
        self.extra, self.stride = extra, stride

    def forward(self, x: Array) -> Array:
        check_batch(x, ndim=4)
        self.shape = x.shape
        x = x[:, :: self.stride, :: self.stride]
        return np.pad(x, ((0, 0), (0, 0), (0, 0), (0, self.extra)))

    def backward(self, dy: Array) -> Array:
        dx = np.zeros(self.shape, dy.dtype)
        dx[:, :: self.stride, :: self.stride] = dy[..., : self.shape[3]]
        return dx


class ResidualBlock(Sequential):
    """relu(body(x) + shortcut(x)), for two layers that give the same shape.

    Source: He et al. (2016), equations 1 and 2. Taught in chapter 5.
    """

    def __init__(self, body: Layer, shortcut: Layer):
        super().__init__(body, shortcut, ReLU())

    def forward(self, x: Array) -> Array:
        body, shortcut, relu = self.layers
        return relu.forward(body.forward(x) + shortcut.forward(x))

    def backward(self, dy: Array) -> Array:
        body, shortcut, relu = self.layers
        dy = relu.backward(dy)
        return body.backward(dy) + shortcut.backward(dy)


def make_block(
    in_channels: int,
    channels: int,
    stride: int,
    generator: np.random.Generator,
    shortcut: str = "A",
    dtype: type = np.float64,
) -> ResidualBlock:
    """Build the basic block: two 3x3 convolutions, and a way around them.

    Where the shapes differ, `shortcut` "A" pads with zeros and "B" is a 1x1
    convolution with batch normalisation. Taught in chapter 5.
    """
    body = Sequential(
        Conv2d(in_channels, channels, generator, stride=stride, dtype=dtype),
        BatchNorm(channels, dtype=dtype),
        ReLU(),
        Conv2d(channels, channels, generator, dtype=dtype),
        BatchNorm(channels, dtype=dtype),
    )
    if stride == 1 and in_channels == channels:
        return ResidualBlock(body, Sequential())  # no layer: the identity
    if shortcut == "A":
        return ResidualBlock(body, ShortcutA(channels - in_channels, stride))
    projection = Sequential(
        Conv2d(in_channels, channels, generator, 1, stride, padding=0, dtype=dtype),
        BatchNorm(channels, dtype=dtype),
    )
    return ResidualBlock(body, projection)


def make_resnet(
    depth: int,
    generator: np.random.Generator,
    widths: tuple[int, ...] = (16, 32, 64),
    shortcut: str = "A",
    classes: int = 10,
    dtype: type = np.float32,
) -> Sequential:
    """Build the CIFAR ResNet of depth 6n + 2, for images (N, 32, 32, 3), normalised.

    Source: He et al. (2016), section 4.2. Taught in chapter 6.
    """
    layers = [
        Conv2d(3, widths[0], generator, dtype=dtype),
        BatchNorm(widths[0], dtype=dtype),
        ReLU(),
    ]
    channels, stride = widths[0], 1
    for width in widths:
        for _ in range((depth - 2) // 6):
            block = make_block(channels, width, stride, generator, shortcut, dtype)
            layers.append(block)
            channels, stride = width, 1
        stride = 2  # of the next stage's first block
    head = Linear(channels, classes, generator, dtype)
    return Sequential(*layers, GlobalAveragePool(), head)


def every_layer(layer: Layer) -> Iterator[Layer]:
    """Yield a layer and all those in it, in order. Taught in chapter 5."""
    yield layer
    for part in getattr(layer, "layers", ()):
        yield from every_layer(part)


def set_training(network: Layer, training: bool) -> None:
    """Switch every batch normalisation to the batch's statistics, or the running ones.

    Taught in chapter 5.
    """
    for layer in every_layer(network):
        if isinstance(layer, BatchNorm):
            layer.training = training


def pytorch_layout(a: Array) -> Array:
    """Return a view with PyTorch's order of axes, of weights or their gradients.

    (size, size, in, out) becomes (out, in, size, size), and (inputs, outputs) becomes
    (outputs, inputs). Taught in chapter 5.
    """
    return a.transpose(3, 2, 0, 1) if a.ndim == 4 else a.T


def list_state(network: Layer) -> list[tuple[str, Array]]:
    """List views of all parameters and running statistics, in PyTorch's order.

    Each comes with the last part of its name there. Taught in chapter 5.
    """
    state = []
    for layer in every_layer(network):
        if isinstance(layer, Conv2d | BatchNorm | Linear):
            state += zip(("weight", "bias"), map(pytorch_layout, layer.params.values()))
        if isinstance(layer, BatchNorm):
            state.append(("running_mean", layer.running_mean))
            state.append(("running_var", layer.running_var))
    return state


def load_state(network: Layer, state: dict[str, Array]) -> None:
    """Copy the arrays of a PyTorch state dictionary into a network built the same way.

    Raises ValueError that names the first tensor that does not fit, and changes nothing
    then. Taught in chapter 5.
    """
    given = [(n, a) for n, a in state.items() if not n.endswith("num_batches_tracked")]
    pairs = list(zip_longest(list_state(network), given))
    for own, other in pairs:
        if other is None:
            raise ValueError(
                f"a {own[0]} of shape {own[1].shape} is missing at the end"
            )
        name, array = other
        if own is None:
            raise ValueError(f"{name} has no place in this network")
        if name.split(".")[-1] != own[0] or array.shape != own[1].shape:
            wanted = f"a {own[0]} of shape {own[1].shape}"
            raise ValueError(f"{name} {array.shape} stands where {wanted} belongs")
    for (_, view), (_, array) in pairs:
        view[...] = array


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


def check_batch(
    x: Array, ndim: int | None = None, width: int | None = None, least: int = 1
) -> None:
    """Raise ValueError unless x is a batch of finite floats that is not empty.

    It has the shape (N, width) or (N, H, W, width); `ndim` and `width` hold it to one.
    There must be at least `least` numbers in each column or channel.
    """
    shapes = {2: "(N, width)", 4: "(N, H, W, channels)"}
    wanted = shapes[ndim] if ndim else "(N, width) or (N, H, W, channels)"
    if not isinstance(x, np.ndarray) or x.ndim not in ([ndim] if ndim else shapes):
        raise ValueError(f"a batch has the shape {wanted}, not {np.shape(x)}")
    if not np.issubdtype(x.dtype, np.floating):
        raise ValueError(f"a batch holds floats, not {x.dtype}: use x.astype(float)")
    if x.size == 0:
        raise ValueError("the batch is empty")
    if width is not None and x.shape[-1] != width:
        noun = "columns" if x.ndim == 2 else "channels"
        raise ValueError(f"the batch has {x.shape[-1]} {noun}, the layer needs {width}")
    if x[..., 0].size < least:
        raise ValueError(f"{least} numbers a channel are needed: use more images")
    if not np.isfinite([x.min(), x.max()]).all():
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
