"""The fast network's full runs: they learn, go on where they stopped, and are kept."""

import pytest
import torch
from safetensors import safe_open

import helpers
from runs import fast as runs_fast
from runs.fast import FullRecipe, fit
from support import checkpoints, cifar10, download, files
from taught import fast, training

SMALL = (8, 16, 16)  # widths


def small_run(few):
    torch.manual_seed(0)
    model = fast.FastResNet(SMALL)
    recipe = FullRecipe(epochs=3, batch_size=40, stem_epochs=1)
    fit(model, few, recipe, report=lambda line: None)
    return model


def test_training_starts_from_whitened_patches(few):
    filters = fast.whitening_filters(training.normalise(few[0]))
    assert torch.equal(small_run(few).stem.weight, filters)


def test_it_learns(few):
    torch.manual_seed(0)
    recipe = FullRecipe(epochs=8, batch_size=20, stem_epochs=1)
    history = fit(fast.FastResNet(SMALL), few, recipe, few, report=lambda _: None)
    assert history[-1]["accuracy"] > history[0]["accuracy"] + 0.2
    assert history[-1]["validation_accuracy"] > 0.45


def test_run_that_is_cut_off_ends_with_the_same_weights(few, tmp_path):
    whole = small_run(few)
    path = tmp_path / "run.checkpoint"

    class CutOff(Exception):
        pass

    def cut(line):
        if line.startswith("epoch  2/3  loss "):
            raise CutOff

    torch.manual_seed(0)
    recipe = FullRecipe(epochs=3, batch_size=40, stem_epochs=1)
    with pytest.raises(CutOff):
        fit(fast.FastResNet(SMALL), few, recipe, checkpoint=path, report=cut)
    assert path.exists()
    torch.manual_seed(1)  # nothing may hang on how the network starts
    resumed = fast.FastResNet(SMALL)
    history = fit(resumed, few, recipe, checkpoint=path, report=lambda line: None)
    assert [row["epoch"] for row in history] == [1, 2, 3]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_too_few_images_are_named(few):
    with pytest.raises(ValueError, match="200 images fill no batch of 2000"):
        fit(fast.FastResNet(SMALL), few, FullRecipe())


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"batch_size": 0}, {"head_rate": 0}, {"seed": -1}]
)
def test_impossible_recipe_is_refused(wrong):
    with pytest.raises(ValueError, match="a recipe needs .*, not "):
        FullRecipe(**wrong)


def test_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(few, tmp_path):
    recipe = FullRecipe(epochs=2, batch_size=40, head_rate=1e30, bias_rate=1e30)
    checkpoint = tmp_path / "run.checkpoint"
    model = fast.FastResNet(SMALL)
    optimizer = fast.make_optimizer(model, recipe)
    run = vars(recipe) | {"images": len(few[0])}
    first = {"epoch": 1, "loss": 2.3}
    checkpoints.save_checkpoint(checkpoint, model, optimizer, run, [first])
    good = checkpoint.read_bytes()
    with pytest.raises(files.TrainingError, match="in epoch 2 at .* 0.12: lower"):
        fit(model, few, recipe, checkpoint=checkpoint, report=lambda line: None)
    assert checkpoint.read_bytes() == good


def test_checkpoint_of_another_run_is_refused(few, tmp_path):
    checkpoint = tmp_path / "run.checkpoint"
    recipe, model = FullRecipe(epochs=1, batch_size=40), fast.FastResNet(SMALL)
    quiet = {"checkpoint": checkpoint, "report": lambda line: None}
    fit(model, few, recipe, known_as={"threads": 2}, **quiet)
    with pytest.raises(files.TrainingError, match="made with threads = 2, not 1"):
        fit(model, few, recipe, known_as={"threads": 1}, **quiet)


def test_command_line_writes_a_record(tmp_path, monkeypatch, sample):
    monkeypatch.setattr(download, "load_full", lambda: sample)
    monkeypatch.setattr(fast.FastResNet, "__init__", narrow(fast.FastResNet.__init__))
    arguments = ["--epochs", "1", "--device", "cpu", "--name", "small"]
    arguments += ["--threads", "2", "--precision", "float32"]
    runs_fast.main([*arguments, "--results", str(tmp_path)])
    with safe_open(tmp_path / "small.outputs.safetensors", "pt") as outputs:
        names = "logits", "labels", "six_views_logits"
        logits, labels, views = map(outputs.get_tensor, names)
    record = helpers.read_record(tmp_path / "small")
    model = fast.FastResNet()
    files.load_weights(model, tmp_path / "small.safetensors")
    again = training.predict(model, cifar10.to_tensors(sample.test)[0])
    again -= again.max(dim=1, keepdim=True).values
    assert torch.equal(again.half(), logits)
    for z, key in ((logits, "test"), (views, "six_views")):
        right = int((z.float().argmax(dim=1) == labels).sum())
        assert record[key]["correct"] == right and record[key]["images"] == 1000
    assert record["command"].startswith("python -m runs.fast --epochs 1")
    assert record["recipe"]["bf16"] is False
    assert record["machine"]["precision"] == "float32"
    with pytest.raises(SystemExit, match="exists: choose another --name"):
        runs_fast.main([*arguments, "--results", str(tmp_path)])


def test_run_that_ctrl_c_stopped_goes_on(tmp_path, monkeypatch, sample, capsys):
    monkeypatch.setattr(download, "load_full", lambda: sample)
    monkeypatch.setattr(fast.FastResNet, "__init__", narrow(fast.FastResNet.__init__))
    arguments = ["--epochs", "2", "--device", "cpu", "--results", str(tmp_path)]
    train_epoch = fast.train_fast_epoch

    def stopped_in_the_second(model, images, labels, optimizer, recipe, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        return train_epoch(model, images, labels, optimizer, recipe, epoch)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(fast, "train_fast_epoch", stopped_in_the_second)
        runs_fast.main(arguments)
    checkpoint = tmp_path / "fast.checkpoint"
    assert f"with --resume goes on from {checkpoint}." in capsys.readouterr().out
    runs_fast.main([*arguments, "--resume"])
    assert len(helpers.read_record(tmp_path / "fast")["history"]) == 2
    assert not checkpoint.exists()


def test_wrong_option_is_one_sentence(tmp_path, monkeypatch):
    folder = ["--results", str(tmp_path)]
    with pytest.raises(SystemExit, match="^runs.fast: a recipe needs epochs"):
        runs_fast.main(["--epochs", "0", *folder])
    with pytest.raises(
        SystemExit, match="^runs.fast: no device 'abacus' here: use cpu"
    ):
        runs_fast.main(["--device", "abacus", *folder])
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="^runs.fast: it trains in one process"):
        runs_fast.main(folder)
    assert list(tmp_path.iterdir()) == []


def narrow(build):
    return lambda self: build(self, SMALL)
