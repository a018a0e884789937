"""Ways to carry a trained network over to other classes, and their recorded comparison.

    python book/finetune.py

Here live the parts that chapter 8 teaches, and the comparison over seeds and labels.
Networks live in resnet.py, images in cifar10.py, the ordinary training in helpers.py.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cifar10
import helpers
import resnet
import train

ANIMALS, VEHICLES = (2, 3, 4, 5, 6, 7), (0, 1, 8, 9)
WAYS = ("from scratch", "linear probe", "full", "by stage", "gradual")
STEPS = {25: 100, 100: 150, 250: 200}  # by labelled images a class, batches of 50
RATES = (0.03, 0.1, 0.3, 1.0)  # to choose from, at 100 labelled images a class
HEAD_RATE = 1.0  # of the head alone: the best of these for the linear probe
GENTLE_TO_ROUGH = (0.01, 0.1, 0.3)  # to see what is forgotten
SEEDS = (0, 1, 2, 3, 4)
LONGER = 4  # times the steps, for a network from scratch and the most labels


def pick(part: cifar10.Images, per_class: int, seed: int) -> cifar10.Images:
    """Choose `per_class` images of each class at random.

    Raises ValueError if a class has fewer. Taught in chapter 8.
    """
    generator, places = np.random.default_rng(seed), []
    for c in range(part.labels.max() + 1):
        of_class = np.flatnonzero(part.labels == c)
        places.append(generator.choice(of_class, per_class, replace=False))
    places = np.concatenate(places)
    return cifar10.Images(*(array[places] for array in part))


def carry_over(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Fill a new model with the weights of an old one, but for its head `fc`.

    Everything else must fit, else RuntimeError names it. Taught in chapter 8.
    """
    head = {f"fc.{name}": p for name, p in model.fc.named_parameters()}  # as it is
    model.load_state_dict({**state, **head})
    return model


def freeze(module: nn.Module, frozen: bool = True) -> None:
    """Exclude the parameters of a module from training, or include them again.

    Taught in chapter 8.
    """
    for p in module.parameters():
        p.requires_grad_(not frozen)


def train_mode(model: nn.Module) -> None:
    """Put a model into training mode, but what is frozen into evaluation mode.

    Else the running statistics of a frozen normalisation would move.
    Taught in chapter 8.
    """
    model.train()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(p.requires_grad for p in own):
            module.eval()


def stage_groups(model: nn.Module, rate: float, factor: float = 1.0) -> list[dict]:
    """Group the parameters that are trained: head, last stage, …, first stage, stem.

    The head gets the learning rate `rate`, each group after it `factor` times the one
    before. Taught in chapter 8.
    """
    names = ["fc", *reversed(model.stages), "conv1", "bn1"]
    groups = []
    for depth, name in enumerate(names):
        params = [p for p in model.get_submodule(name).parameters() if p.requires_grad]
        depth = min(depth, len(names) - 2)  # conv1 and bn1 are the stem
        if params:
            groups.append({"params": params, "lr": rate * factor**depth})
    return groups


def fine_tune(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    groups: list[dict],
    steps: int,
    seed: int,
    batch_size: int = 50,
) -> None:
    """Train the parameters in `groups`, each by its own learning rate.

    Every rate rises over the first 15 % of the steps and then falls to 0. `images` is
    uint8 (N, 32, 32, 3), `labels` int64 (N,). Taught in chapter 8.
    """
    optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=5e-4)
    peaks = [group["lr"] for group in optimizer.param_groups]
    generator, order = torch.Generator().manual_seed(seed), torch.tensor([]).long()
    fast = helpers.bf16_is_fast(images.device)
    train_mode(model.to(memory_format=torch.channels_last))
    for step in range(steps):
        for group, peak in zip(optimizer.param_groups, peaks):
            group["lr"] = helpers.learning_rate(step, steps, peak, warm_up=0.15)
        if len(order) < batch_size:
            order = torch.randperm(len(images), generator=generator)
        batch, order = order[:batch_size], order[batch_size:]
        x = helpers.normalise(helpers.augment(images[batch], generator))
        with torch.autocast(x.device.type, torch.bfloat16, enabled=fast):
            z = model(x)
        loss = F.cross_entropy(z.float(), labels[batch], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def adapt(
    way: str,
    state: dict[str, Tensor],
    images: Tensor,
    labels: Tensor,
    steps: int,
    rate: float,
    seed: int,
) -> nn.Module:
    """Train a ResNet-20 on a few images, in one of the five WAYS; return it.

    `state` is that of the network to carry over. Taught in chapter 8.
    """
    torch.manual_seed(seed)  # draws the head, or from scratch everything
    model = resnet.build_model("resnet20", classes=int(labels.max()) + 1)
    model.to(images.device)
    if way != "from scratch":
        carry_over(model, state)
    if way in ("linear probe", "gradual"):
        freeze(model)
        freeze(model.fc, False)
        head_steps = steps if way == "linear probe" else steps // 4
        groups = stage_groups(model, rate if way == "linear probe" else HEAD_RATE)
        fine_tune(model, images, labels, groups, head_steps, seed)
        steps -= head_steps
    if way != "linear probe":
        freeze(model, False)
        groups = stage_groups(model, rate, factor=0.5 if way == "by stage" else 1.0)
        fine_tune(model, images, labels, groups, steps, seed)
    return model


def features(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the mean over the pixels of what each stage puts out, (N, channels).

    In evaluation mode; the last stage's is what the head gets. Taught in chapter 8.
    """
    model.eval()
    with torch.no_grad():
        h = model.pool(F.relu(model.bn1(model.conv1(helpers.normalise(images)))))
        found = {"stem": h}
        for name in model.stages:
            found[name] = h = model.get_submodule(name)(h)
    return {name: h.mean(dim=(2, 3)) for name, h in found.items()}


def cka(a: Tensor, b: Tensor) -> float:
    """Compare two sets of features of the same images, (N, p) and (N, q): 0 to 1.

    Linear centred kernel alignment: the correlation of their tables of inner products
    between images. Source: Kornblith et al. (2019), section 3. Taught in chapter 8.
    """
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    one, other = a @ a.T, b @ b.T  # (N, N)
    return float((one * other).sum() / (one.norm() * other.norm()))


def with_head(model: nn.Module, head: nn.Module, images: Tensor, labels: Tensor):
    """Return the accuracy of a model with another head on it. Taught in chapter 8."""
    kept, model.fc = model.fc, head
    accuracy = helpers.evaluate(model, images, labels)["accuracy"]
    model.fc = kept
    return accuracy


def choose_rates(state: dict, part: cifar10.Images, held_out: tuple) -> dict:
    """Return the rate of each way that does best on images that no run trains on."""
    few = helpers.to_tensors(pick(part, 100, seed=1000))
    chosen = {}
    for way in WAYS:
        scores = {}
        for rate in RATES:
            model = adapt(way, state, *few, STEPS[100], rate, seed=1000)
            scores[rate] = helpers.evaluate(model, *held_out)["accuracy"]
        best = max(scores, key=scores.get)
        chosen[way] = {"rate": best, "validation_accuracy": scores}
        print(f"{way}: rate {best}", flush=True)
    return chosen


def summarise(values: Sequence[float]) -> dict:
    """Return mean, standard deviation and number of some accuracies."""
    return {
        "mean": float(np.mean(values)),
        "sd": float(np.std(values, ddof=1)),
        "n": len(values),
    }


def main() -> None:
    """Compare all ways over labels and seeds, and write results/finetune.json.

    What is measured stands in runs/finetune.json at once, so a stopped run goes on.
    """
    torch.set_num_threads(2)
    data = cifar10.load_full()
    state, _ = helpers.load_tensors(helpers.RESULTS / "animals.safetensors")
    part = cifar10.only(data.train, VEHICLES)
    part, held_out = train.set_aside(part, 2_000)
    held_out = helpers.to_tensors(held_out)
    test = helpers.to_tensors(cifar10.only(data.test, VEHICLES))
    animals = helpers.to_tensors(cifar10.only(data.test, ANIMALS))
    head = nn.Linear(64, len(ANIMALS))
    head.load_state_dict({n: state[f"fc.{n}"].float() for n in ("weight", "bias")})
    device = torch.device("cpu")
    machine = train.describe_machine(device, helpers.bf16_is_fast(device))

    partial = train.RUNS / "finetune.json"
    done = json.loads(partial.read_text("utf-8")) if partial.exists() else {}
    if "rates" not in done:
        done["rates"] = choose_rates(state, part, held_out)
        helpers.write_record(partial, done)
    jobs = [(way, k, 1, None) for k in STEPS for way in WAYS]
    jobs += [("from scratch", max(STEPS), LONGER, None)]
    jobs += [("full", 100, 1, rate) for rate in GENTLE_TO_ROUGH]
    runs = done.setdefault("runs", {})
    for seed in SEEDS:
        for way, k, times, rate in jobs:
            name = f"{way}, {k}, {times}, {rate}, {seed}"
            if name in runs:
                continue
            few = helpers.to_tensors(pick(part, k, seed))
            used = rate or done["rates"][way]["rate"]
            model = adapt(way, state, *few, times * STEPS[k], used, seed)
            runs[name] = {
                "way": way if times == 1 else f"{way}, {times} times the steps",
                "labels": k,
                "rate": used,
                "swept": rate is not None,
                "seed": seed,
                "test_accuracy": helpers.evaluate(model, *test)["accuracy"],
            }
            if rate is not None:
                animals_accuracy = with_head(model, head, *animals)
                runs[name]["animals_accuracy"] = animals_accuracy
            print(name, f"{runs[name]['test_accuracy']:.1%}", flush=True)
            helpers.write_record(partial, done)
    write(list(runs.values()), done["rates"], data, machine)
    partial.unlink()


def write(runs: list[dict], rates: dict, data: cifar10.Cifar10, machine: dict) -> None:
    """Sum the runs up and write results/finetune.json."""
    summary, forgetting = {}, {}
    for run in runs:
        if run["swept"]:
            key = str(run["rate"])
            both = forgetting.setdefault(key, {"vehicles": [], "animals": []})
            both["vehicles"].append(run["test_accuracy"])
            both["animals"].append(run["animals_accuracy"])
        else:
            by_labels = summary.setdefault(run["way"], {})
            by_labels.setdefault(str(run["labels"]), []).append(run["test_accuracy"])
    record = {
        "name": "finetune",
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": "python book/finetune.py",
        "data": {"source": data.source, "sha256": cifar10.digest(data)},
        "protocol": "carried over from the record animals; rates chosen at 100 images "
        "a class, on 2,000 training images outside all runs; test set used once",
        "machine": machine,
        "steps": {str(k): steps for k, steps in STEPS.items()},
        "rates": rates,
        "test_accuracy": {
            way: {k: summarise(values) for k, values in by_labels.items()}
            for way, by_labels in summary.items()
        },
        "forgetting": {
            rate: {name: summarise(values) for name, values in both.items()}
            for rate, both in forgetting.items()
        },
        "runs": runs,
    }
    helpers.write_record(helpers.RESULTS / "finetune.json", record)


if __name__ == "__main__":
    main()
