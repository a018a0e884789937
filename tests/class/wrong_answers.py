"""Plausible wrong answers to the exercises: each must fail its check.

One entry an exercise, by the name of its solution cell, with what is put between the
solution's markers; in a cell with two solutions, the answers are pairs. The empty
answer is not listed: the tests try it for every exercise.
"""

# The forward pass that exercise 3.4 asks for: its wrong answers differ elsewhere.
SMOOTHED = """
N, K = z.shape
z = z - z.max(axis=1, keepdims=True)
log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
self.p = np.exp(log_p)
self.t = np.full((N, K), self.smoothing / K)
self.t[np.arange(N), labels] += 1 - self.smoothing
return -(self.t * log_p).sum() / N
"""

WRONG = {
    "ex-1-1": [
        "return np.bincount(labels)  # no place for the last classes",
        "return np.unique(labels, return_counts=True)[1]  # no zeros",
    ],
    "ex-1-2": [
        """
        distances = [((x - query) ** 2).sum(axis=1).argmin() for query in queries]
        return np.array(distances)  # squares
        """,
        """
        return np.array([np.abs((x - q).sum(axis=1)).argmin() for q in queries])
        """,
        "return nearest(x, queries, 1)[:, 0]  # chapter 1's distance",
        "return np.array([[np.abs(x - q).sum(axis=1).argmin()] for q in queries])",
    ],
    "ex-1-3": [
        """
        kept, held_out = [], []
        for c in np.unique(labels):
            places = generator.permutation(np.flatnonzero(labels == c))
            held_out.extend(places[:per_class])
            kept.extend(places[per_class - 1 :])  # one is in both
        return np.array(kept), np.array(held_out)
        """,
        """
        kept, held_out = [], []
        for c in np.unique(labels):
            places = np.flatnonzero(labels == c)
            generator.permutation(places)  # changes nothing
            held_out.extend(places[:per_class])
            kept.extend(places[per_class:])
        return np.array(kept), np.array(held_out)
        """,
        """
        order = generator.permutation(len(labels))  # as many, but not of each class
        count = per_class * len(np.unique(labels))
        return order[count:], order[:count]
        """,
    ],
    "ex-1-4": [
        """
        order = generator.permutation(count)
        size = count // number  # the rest is lost
        return [order[i * size : (i + 1) * size] for i in range(number)]
        """,
        "return np.array_split(np.arange(count), number)  # not shuffled",
        "return [np.arange(i, count, number) for i in range(number)]  # a pattern",
        """
        parts = np.array_split(np.arange(count), number)  # shuffled after the cut
        return [generator.permutation(part) for part in parts]
        """,
        "return np.array_split(np.random.default_rng(0).permutation(count), number)",
        """
        order, size = generator.permutation(count), count // number
        parts = [order[i * size : (i + 1) * size] for i in range(number - 1)]
        return [*parts, order[(number - 1) * size :]]  # the last takes all the rest
        """,
    ],
    "ex-2-1": [
        "return sum(a * b for a, b in zip(sizes, sizes[1:]))  # no biases",
        "return sum(a * b + a for a, b in zip(sizes, sizes[1:]))  # inputs' biases",
    ],
    "ex-2-2": [
        """
        z = z - z.max(axis=1, keepdims=True)
        p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        return np.log(p)  # log of 0
        """,
        "return z - np.log(np.exp(z).sum(axis=1, keepdims=True))  # overflow",
        """
        z = z - z.max(axis=1, keepdims=True)
        return z - np.log(np.exp(z).sum())  # one sum for all
        """,
    ],
    "ex-2-3": [
        """
        return np.ones((1, 2)), np.zeros(2), np.array([[1.0], [-1.0]]), np.zeros(1)
        """,
        """
        W = np.array([[1.0, -1.0]])
        return W, np.zeros(2), W.T, np.zeros(1)
        """,
        """
        W1, b1 = np.array([[2.0, 1.0]]), np.array([0, 1e5])  # right down to -100,000
        return W1, b1, np.array([[1.0], [-1.0]]), np.array([1e5])
        """,
    ],
    "ex-2-4": [
        """
        z = z - z.max()
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        return -log_p[np.arange(len(z)), labels].mean()  # one maximum for all
        """,
        """
        z = z - z.max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum())
        return -log_p[np.arange(len(z)), labels].mean()  # one sum for all
        """,
        """
        z = z - z.max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        return -log_p[:, labels].mean()  # everyone's classes
        """,
        """
        z = z - z.max(axis=1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        return -log_p[np.arange(len(z)), labels].sum()  # not the mean
        """,
        """
        p = np.exp(z - z.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        return -np.log(p[np.arange(len(z)), labels]).mean()  # log of 0
        """,
    ],
    "ex-2-5": [
        "return np.sqrt(2 / inputs)  # He's",
        "return np.sqrt(2 / ((1 + slope) * inputs))  # the slope, not its square",
        "return 2 / ((1 + slope**2) * inputs)  # the variance",
    ],
    "ex-3-1": [
        "return 2 * x * y * y, 2 * x * y * x  # the direct path is missing",
        "return 2 * x * y + 3, 2 * x * y  # not through u",
    ],
    "ex-3-2": [
        (
            "self.x = x\nreturn x * self.params['g']",
            """
            self.grads["g"] = (dy * self.x).mean(axis=0)  # the mean
            return dy * self.params["g"]
            """,
        ),
        (
            "self.x = x\nreturn x * self.params['g']",
            """
            self.grads["g"] = (dy * self.x).sum(axis=0)
            return dy  # without the weight
            """,
        ),
        (
            "self.x = x\nreturn x * self.params['g']",
            """
            self.grads["g"] = dy.sum(axis=0)  # without the input
            return dy * self.params["g"]
            """,
        ),
        (
            "self.x = x\nreturn x * self.params['g']",
            """
            old = self.grads.get("g", 0)  # adds up from pass to pass
            self.grads["g"] = old + (dy * self.x).sum(axis=0)
            return dy * self.params["g"]
            """,
        ),
    ],
    "ex-3-3": [
        "v = momentum * v + g\np -= rate * v + weight_decay * p",
        """
        v *= momentum
        v += g
        p -= rate * v + weight_decay * p  # decay without the rate
        """,
        "v[:] = momentum * v + g\np -= rate * (v + weight_decay * p)  # outside v",
        "v *= momentum\nv += (1 - momentum) * (g + weight_decay * p)\np -= rate * v",
    ],
    "ex-3-4": [
        (
            SMOOTHED.replace("+=", "="),
            "return dL * (self.p - self.t) / len(self.p)",
        ),
        (
            SMOOTHED,
            "return dL * (self.p - self.t)  # not over N",
        ),
        (
            "self.hard = np.eye(z.shape[1])[labels]" + SMOOTHED,
            "return dL * (self.p - self.hard) / len(self.p)  # the hard labels'",
        ),
    ],
    "ex-4-1": [
        "return int((z <= 0).any(axis=0).sum())  # negative for some image",
        "return int((z < 0).all(axis=0).sum())  # forgets 0",
        "return int((z <= 0).all(axis=1).sum())  # images, not units",
        "return int((z.mean(axis=0) <= 0).sum())  # negative on average",
    ],
    "ex-4-2": [
        (
            "self.derivative = 1 / (1 + np.exp(-z))\nreturn np.log(1 + np.exp(z))",
            "return da * self.derivative",
        ),
        (
            "self.derivative = np.tanh(z)\nreturn np.logaddexp(0, z)",
            "return da * self.derivative",
        ),
    ],
    "ex-4-3": [
        """
        for g in grads.values():
            g *= limit / np.linalg.norm(g)
        """,
        """
        for g in grads.values():
            norm = np.linalg.norm(g)  # each by itself
            if norm > limit:
                g *= limit / norm
        """,
        """
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        for g in grads.values():
            g *= limit / norm  # also if it is short
        """,
        """
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        if norm > limit:
            for name in grads:
                grads[name] = grads[name] * limit / norm  # not in place
        """,
        """
        for g in grads.values():
            np.clip(g, -limit, limit, out=g)  # by element: another direction
        """,
    ],
    "ex-4-4": [
        (
            "self.z = z\nreturn np.where(z > 0, z, self.params['s'] * z)",
            """
            self.grads["s"] = np.array([(da * self.z).sum()])  # of all inputs
            return da * np.where(self.z <= 0, self.params["s"], 1)
            """,
        ),
        (
            "self.z = z\nreturn np.where(z > 0, z, self.params['s'] * z)",
            """
            negative = self.z <= 0
            self.grads["s"] = np.array([da[negative].sum()])  # without the input
            return da * np.where(negative, self.params["s"], 1)
            """,
        ),
        (
            "self.z = z\nreturn np.maximum(z, self.params['s'] * z)  # not so if s > 1",
            """
            negative = self.z <= 0
            self.grads["s"] = np.array([(da * self.z)[negative].sum()])
            return da * np.where(negative, self.params["s"], 1)
            """,
        ),
    ],
    "ex-5-1": [
        """
        weights = 0
        for size, stride, padding in layers:
            n = (n + padding - size) // stride + 1  # one side of the frame
            weights += size**2 * channels**2
        return n, weights
        """,
        """
        weights = 0
        for size, stride, padding in layers:
            n = (n + 2 * padding - size) // stride + 1
            weights += size**2 * channels  # one input channel
        return n, weights
        """,
        """
        weights = 0
        for size, stride, padding in layers:
            n = (n + 2 * padding - size) // stride + 1
            weights += size**2 * 2 * channels  # in plus out
        return n, weights
        """,
        """
        weights = 0
        for size, stride, padding in layers:
            n = -(-(n + 2 * padding - size) // stride) + 1  # rounded up
            weights += size**2 * channels**2
        return n, weights
        """,
    ],
    "ex-5-2": [
        (
            """
            N, H, W, C = x.shape
            squares = x.reshape(N, H // 2, 2, W // 2, 2, C)
            self.shape = x.shape
            return squares.max(axis=(2, 4))
            """,
            """
            N, H, W, C = self.shape
            dx = np.zeros((N, H // 2, 2, W // 2, 2, C))
            dx += dy[:, :, None, :, None]  # to all four
            return dx.reshape(self.shape)
            """,
        ),
        (
            """
            N, H, W, C = x.shape
            squares = x.reshape(N, H // 2, 2, W // 2, 2, C)
            y = np.maximum(squares.max(axis=(2, 4)), 0)  # never below 0
            self.greatest = squares == y[:, :, None, :, None]
            return y
            """,
            """
            N, H, _, W, _, C = self.greatest.shape
            dx = self.greatest * dy[:, :, None, :, None]
            return dx.reshape(N, 2 * H, 2 * W, C)
            """,
        ),
    ],
    "ex-5-3": [
        """
        scale = gamma / np.sqrt(var + epsilon)
        return W * scale, beta - mean  # the mean not scaled
        """,
        """
        scale = gamma / np.sqrt(var)  # no epsilon
        return W * scale, beta - mean * scale
        """,
        """
        scale = gamma / np.sqrt(var + epsilon)
        W *= scale  # the caller's weights are changed
        return W, beta - mean * scale
        """,
        """
        scale = gamma / np.sqrt(var + epsilon)
        return W * scale, -mean * scale  # beta is lost
        """,
    ],
    "ex-5-4": [
        (
            """
            body, shortcut, relu = self.layers
            self.share = 1 - self.drop
            if self.training:
                self.share = float(self.generator.random() >= self.drop)
            y = shortcut.forward(x)
            if self.share:
                y = y + self.share * body.forward(x)
            return relu.forward(y)
            """,
            """
            body, shortcut, relu = self.layers
            dy = relu.backward(dy)
            dx = shortcut.backward(dy)
            if self.share:
                return dx + body.backward(self.share * dy)
            for layer in every_layer(self):  # the shortcut's, too
                if not isinstance(layer, Sequential):
                    layer.grads = {n: np.zeros_like(p) for n, p in layer.params.items()}
            return dx
            """,
        ),
        (
            """
            body, shortcut, relu = self.layers
            self.share = float(self.generator.random() >= self.drop)  # always
            y = shortcut.forward(x) + self.share * body.forward(x)
            return relu.forward(y)
            """,
            """
            body, shortcut, relu = self.layers
            dy = relu.backward(dy)
            return shortcut.backward(dy) + body.backward(self.share * dy)
            """,
        ),
        (
            """
            body, shortcut, relu = self.layers
            self.share = 1 - self.drop
            if self.training:
                self.share = float(self.generator.random() >= self.drop)
            y = shortcut.forward(x)
            if self.share:
                y = y + self.share * body.forward(x)
            return relu.forward(y)
            """,
            """
            body, shortcut, relu = self.layers
            dy = relu.backward(dy)
            dx = shortcut.backward(dy)
            if self.share:
                dx = dx + body.backward(self.share * dy)
            return dx  # the old gradients stay
            """,
        ),
        (
            """
            body, shortcut, relu = self.layers
            self.share = 1 - self.drop
            if self.training:
                self.share = float(self.generator.random() >= self.drop)
            y = shortcut.forward(x)
            if self.share:
                y = y + self.share * body.forward(x)
            return relu.forward(y)
            """,
            """
            body, shortcut, relu = self.layers
            dy = relu.backward(dy)
            dx = shortcut.backward(dy)
            if self.share:
                return dx + body.backward(self.share * dy)
            for g in body.grads.values():
                g *= 0  # at first there are none
            return dx
            """,
        ),
        (
            """
            body, shortcut, relu = self.layers
            self.share = 1.0  # evaluation: the body at its full size
            if self.training:
                self.share = float(self.generator.random() >= self.drop)
            y = shortcut.forward(x)
            if self.share:
                y = y + self.share * body.forward(x)
            return relu.forward(y)
            """,
            """
            body, shortcut, relu = self.layers
            dy = relu.backward(dy)
            dx = shortcut.backward(dy)
            if self.share:
                return dx + body.backward(self.share * dy)
            for layer in every_layer(body):
                if not isinstance(layer, Sequential):
                    layer.grads = {n: 0 * p for n, p in layer.params.items()}
            return dx
            """,
        ),
    ],
    "ex-6-1": [
        """
        if kind == "basic":
            return 9 * in_channels * channels + 9 * channels**2 + 4 * channels
        out = 4 * channels
        weights = in_channels * channels + 9 * channels**2 + channels * out
        return weights + 4 * channels  # the last normalisation forgotten
        """,
        """
        if kind == "basic":
            return 2 * 9 * in_channels * channels  # no normalisation
        return 2 * in_channels * channels + 9 * channels**2
        """,
    ],
    "ex-6-2": [
        "return 1 + sum((size - 1) * d for size, _, d in layers)  # no strides",
        """
        field, jump = 1, 1
        for size, stride, dilation in layers:
            jump *= stride  # too early
            field += (size - 1) * dilation * jump
        return field
        """,
        """
        field = 1
        for size, stride, dilation in layers:
            field = field * stride + (size - 1) * dilation + 1 - stride  # wrong end
        return field
        """,
    ],
    "ex-6-3": [
        """
        blocks = [block(in_channels, width, stride, shortcut)]
        for _ in range(count - 1):
            blocks.append(block(width, width, 1, shortcut))  # no expansion
        return nn.Sequential(*blocks)
        """,
        """
        blocks = [block(in_channels, width, stride, shortcut)]
        for _ in range(count):  # one too many
            blocks.append(block(width * block.expansion, width, 1, shortcut))
        return nn.Sequential(*blocks)
        """,
        """
        blocks = [block(in_channels, width, stride, shortcut)]
        for _ in range(count - 1):
            blocks.append(block(width * block.expansion, width))  # shortcut dropped
        return nn.Sequential(*blocks)
        """,
    ],
    "ex-6-4": [
        """
        return nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, stride=2, bias=False),  # B
            nn.BatchNorm2d(channels),
        )
        """,
        """
        return nn.Sequential(
            nn.MaxPool2d(2),
            nn.Conv2d(in_channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        """,
        """
        return nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(in_channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )
        """,
    ],
    "ex-7-1": [
        """
        return peak / 2 * (1 + math.cos(math.pi * step / steps))  # no warm-up
        """,
        """
        rise = warm_up * steps
        if step + 1 <= rise:
            return peak * (step + 1) / rise
        return peak / 2 * (1 + math.cos(math.pi * step / steps))  # from the start
        """,
        """
        rise = warm_up * steps
        if step + 1 <= rise:
            return peak * (step + 1) / rise
        return peak * math.cos(math.pi / 2 * (step - rise) / (steps - rise))
        """,
        """
        rise = warm_up * steps
        if step + 1 <= rise:
            return peak * (step + 1) / int(rise)
        return peak / 2 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))
        """,
    ],
    "ex-7-2": [
        """
        model.eval()
        right = total = 0
        for x, y in batches:
            right += int((model(x).argmax(dim=1) == y).sum())
            total += len(y)
        return right / total  # stays in evaluation mode
        """,
        """
        training = model.training
        right = total = 0
        with torch.no_grad():  # which does not stop the running averages
            for x, y in batches:
                right += int((model(x).argmax(dim=1) == y).sum())
                total += len(y)
        model.train(training)
        return right / total
        """,
        """
        training = model.training
        model.eval()
        shares = [float((model(x).argmax(1) == y).float().mean()) for x, y in batches]
        model.train(training)
        return sum(shares) / len(shares)
        """,
        """
        training = model.training
        model.eval()
        right = total = 0
        with torch.no_grad():
            for x, y in batches:
                right += int((model(x).argmax(dim=1) == y).sum())
                total += len(y)
        model.training = training  # its layers stay in evaluation mode
        return right / total
        """,
    ],
    "ex-7-3": [
        """
        total = 0.0
        for p in model.parameters():
            if p.grad is not None:
                length = p.grad.norm()
                total += float(length) ** 2
                p.grad.mul_(min(1, limit / float(length)))  # one at a time
        return total**0.5
        """,
        """
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        length = torch.cat([g.flatten() for g in gradients]).norm()
        for g in gradients:
            g.mul_(limit / length)  # short ones are made longer
        return float(length)
        """,
        """
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        length = torch.cat([g.flatten() for g in gradients]).norm()
        for g in gradients:
            g.clamp_(-limit, limit)  # another direction
        return float(length)
        """,
        """
        for p in model.parameters():
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        return float(nn.utils.clip_grad_norm_(model.parameters(), limit))
        """,
    ],
    "ex-7-4": [
        """
        covered = images.clone()
        corners = torch.randint(0, 33 - size, (len(images), 2), generator=generator)
        for image, (top, left) in zip(covered, corners.tolist()):
            image[top : top + size, left : left + size] = COLOUR
        return covered  # always whole
        """,
        """
        corners = torch.randint(1 - size, 32, (len(images), 2), generator=generator)
        for image, (top, left) in zip(images, corners.tolist()):
            image[max(top, 0) : top + size, max(left, 0) : left + size] = COLOUR
        return images  # the same memory
        """,
        """
        covered = images.clone()
        top, left = torch.randint(1 - size, 32, (2,), generator=generator).tolist()
        covered[:, max(top, 0) : top + size, max(left, 0) : left + size] = COLOUR
        return covered  # one place for all
        """,
        """
        covered = images.clone()
        corners = torch.randint(1 - size, 31, (len(images), 2), generator=generator)
        for image, (top, left) in zip(covered, corners.tolist()):
            image[max(top, 0) : top + size, max(left, 0) : left + size] = COLOUR
        return covered  # never at 31
        """,
        """
        covered = images.clone()
        corners = torch.randint(2 - size, 32, (len(images), 2), generator=generator)
        for image, (top, left) in zip(covered, corners.tolist()):
            image[max(top, 0) : top + size, max(left, 0) : left + size] = COLOUR
        return covered  # never the first
        """,
    ],
    "ex-8-1": [
        """
        trained = [p for p in model.parameters() if p.requires_grad]
        return len(trained) / len(list(model.parameters()))  # tensors, not numbers
        """,
        """
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
        return trained / max(frozen, 1)  # over the rest
        """,
        """
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        return trained / sum(t.numel() for t in model.state_dict().values())
        """,
    ],
    "ex-8-2": [
        """
        freeze(model)
        for name in [*model.stages[-count:], "fc"]:  # -0 is 0: all
            freeze(model.get_submodule(name), False)
        """,
        """
        first = len(model.stages) - count
        for name in model.stages[:first]:  # the stem is not frozen
            freeze(model.get_submodule(name))
        """,
        """
        freeze(model)
        first = len(model.stages) - count
        for name in model.stages[first:]:  # nor is the head trained
            freeze(model.get_submodule(name), False)
        """,
    ],
    "ex-8-3": [
        """
        return {n: alpha * before[n] + (1 - alpha) * after[n] for n in after}
        """,
        """
        return {n: (1 - alpha) * before[n] + alpha * t for n, t in after.items()}
        """,
        """
        mixed = dict(after)  # the counts are the same tensors
        for name, new in after.items():
            if new.is_floating_point():
                mixed[name] = (1 - alpha) * before[name] + alpha * new
        return mixed
        """,
        """
        mixed = {name: t.clone() for name, t in after.items()}
        for name in mixed:
            if "running" not in name and mixed[name].is_floating_point():
                mixed[name] = (1 - alpha) * before[name] + alpha * after[name]
        return mixed  # the statistics of one network for the weights of another
        """,
    ],
    "ex-8-4": [
        """
        total = sum((p**2).sum() for p in model.parameters())  # to 0
        return strength / 2 * total
        """,
        """
        total = torch.zeros(())
        for name, p in model.named_parameters():
            start = 0 if name.startswith("fc.") else state[name]
            total = total + ((p - start) ** 2).sum()  # what is frozen, too
        return strength / 2 * total
        """,
        """
        total = torch.zeros(())
        for name, p in model.named_parameters():
            if p.requires_grad and not name.startswith("fc."):
                total = total + ((p - state[name]) ** 2).sum()
        return strength / 2 * total  # no head
        """,
        """
        total = torch.zeros(())
        for name, p in model.named_parameters():
            if p.requires_grad:
                start = 0 if name.startswith("fc.") else state[name]
                total = total + ((p.detach() - start) ** 2).sum()  # no gradient
        return (strength / 2 * total).requires_grad_()
        """,
        """
        total = torch.zeros(())
        for name, p in model.named_parameters():
            if p.requires_grad and p.ndim > 1:  # no biases
                start = 0 if name.startswith("fc.") else state[name]
                total = total + ((p - start) ** 2).sum()
        return strength / 2 * total
        """,
    ],
    "ex-9-1": [
        "return recalls.mean()  # as if all classes were equally large",
        "return (recalls / images).sum() / (1 / images).sum()  # the small ones first",
    ],
    "ex-9-2": [
        """
        report = classification_report(matrix)
        precision, recall = report["precision"], report["recall"]
        below = beta * precision + recall  # beta, not its square
        above = (1 + beta) * precision * recall
        return np.divide(above, below, out=np.zeros(len(below)), where=below > 0)
        """,
        """
        report = classification_report(matrix)
        precision, recall = report["precision"], report["recall"]
        below = precision + beta**2 * recall  # the wrong one is weighed
        above = (1 + beta**2) * precision * recall
        return np.divide(above, below, out=np.zeros(len(below)), where=below > 0)
        """,
        """
        report = classification_report(matrix)
        precision, recall = report["precision"], report["recall"]
        above = (1 + beta**2) * precision * recall
        return above / (beta**2 * precision + recall)  # 0 / 0
        """,
    ],
    "ex-9-3": [
        """
        place = (confidence * bins).astype(int)  # 1.0 is in no bin
        error = 0.0
        for b in range(bins):
            inside = place == b
            if inside.any():
                gap = abs(confidence[inside].mean() - right[inside].mean())
                error += inside.mean() * gap
        return error
        """,
        """
        place = np.minimum((confidence * bins).astype(int), bins - 1)
        gaps = []
        for b in range(bins):
            inside = place == b
            if inside.any():
                gaps.append(abs(confidence[inside].mean() - right[inside].mean()))
        return np.mean(gaps)  # a bin of one image counts as one of a thousand
        """,
        "return abs(confidence.mean() - right.mean())  # one bin: errors cancel",
        "return np.abs(confidence - right).mean()  # a bin for each image",
    ],
    "ex-9-4": [
        """
        values = []
        for _ in range(repeats):
            one = right[generator.integers(0, len(right), len(right))]
            two = other[generator.integers(0, len(right), len(right))]
            values.append(one.mean() - two.mean())  # the pairs are lost
        return tuple(np.percentile(values, [2.5, 97.5]))
        """,
        """
        differences = right.astype(float) - other
        values = []
        for _ in range(repeats):
            places = generator.permutation(len(right))  # each image once
            values.append(differences[places].mean())
        return tuple(np.percentile(values, [2.5, 97.5]))
        """,
        """
        differences = right.astype(float) - other
        values = []
        for _ in range(repeats):
            places = generator.integers(0, len(right), len(right))
            values.append(differences[places].mean())
        return tuple(np.percentile(values, [25, 75]))  # the middle half
        """,
        """
        differences = right.astype(float) - other
        values = []
        for _ in range(repeats):
            places = generator.integers(0, len(right), len(right))
            values.append(differences[places].mean())
        return tuple(np.percentile(values, [5, 95]))  # 90 % of them
        """,
    ],
    "ex-10-1": [
        """
        return most  # more is faster
        """,
        """
        def seconds(k):
            return fixed + per_image * batch / k + 2 * k * latency / most

        return min(range(1, most + 1), key=seconds)
        """,
        """
        k = round((per_image * batch / (2 * latency + 1e-12)) ** 0.5)
        return k  # more than there are
        """,
        """
        k = round((per_image * batch / (2 * latency + 1e-12)) ** 0.5)
        return min(max(k, 1), most)
        """,
    ],
    "ex-10-2": [
        """
        return np.mean(means), np.mean(variances)  # without weights
        """,
        """
        weights = np.array(counts) / np.sum(counts)
        return np.sum(weights * means), np.sum(weights * variances)  # no spread
        """,
        """
        mean = np.average(means, weights=counts)
        return mean, np.average(variances, weights=counts) + np.var(means)
        """,
    ],
    "ex-10-3": [
        """
        start = clock()
        for _ in range(repeats):
            step()
        return repeats * batch_size / (clock() - start)  # the first one, too
        """,
        """
        step()
        start = clock()
        for _ in range(repeats):
            step()
        return batch_size / (clock() - start)
        """,
        """
        step()
        start = clock()
        for _ in range(repeats - 1):  # one too few
            step()
        return repeats * batch_size / max(clock() - start, 1)
        """,
        """
        step()
        for _ in range(repeats):
            start = clock()
            step()
        return batch_size / (clock() - start)  # the last one alone
        """,
        """
        step()
        rates = []
        for _ in range(repeats):
            start = clock()
            step()
            rates.append(batch_size / (clock() - start))
        return max(rates)
        """,
    ],
    "ex-10-4": [
        """
        right = rng.binomial(images, accuracy, size=(searches, recipes))
        return (right / images).mean() - accuracy  # the average, not the best
        """,
        """
        right = rng.binomial(images, accuracy, size=(searches, recipes))
        return (right / images).max() - accuracy  # the best of all searches
        """,
        """
        scores = rng.normal(accuracy, 0.5 / images, size=(searches, recipes))
        return scores.max(axis=1).mean() - accuracy
        """,
        """
        right = rng.binomial(images, accuracy, size=(10_000, recipes))
        return (right / images).max(axis=1).mean() - accuracy
        """,
        """
        right = np.random.binomial(images, accuracy, size=(searches, recipes))
        return (right / images).max(axis=1).mean() - accuracy
        """,
    ],
}
