"""The live model: the recorded network in the page, asked as a reader asks it."""

import json
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import helpers
from browsing import DISK, SITE, violations
from support import cifar10, files, photos
from taught import resnet, training


def data():
    text = (SITE / "_static" / "live_model_data.js").read_text("utf-8")
    return json.loads(text.removeprefix("window.liveModelData = ").rstrip(";\n"))


def start_live_model(opened):
    button = opened.page.get_by_role("button", name="Classify a picture here")
    button.click()
    opened.page.wait_for_selector(".live-panel", timeout=120_000)


def answers(opened, sample=None):
    """The ten probabilities in percent, after a click on a sample if one is named."""
    values = opened.page.locator(".live-value")
    if sample is not None:
        said = opened.page.locator(".live-said")
        before = said.inner_text()
        opened.page.locator(".live-samples button").nth(sample).click()
        opened.page.wait_for_function(
            "old => document.querySelector('.live-said').textContent != old", arg=before
        )
    return [float(t.removesuffix("%").strip() or 0) for t in values.all_inner_texts()]


@pytest.mark.parametrize("page", ["book/index.html", "book/09_evaluation.html"])
def test_page_answers_as_the_record_for_ten_images(visit, page):
    opened = visit(page)
    assert not any("live_model_data" in url for url in opened.requests)  # not yet
    start_live_model(opened)
    outputs, _ = files.load_tensors(helpers.RESULTS / "resnet20.outputs.safetensors")
    samples = data()["samples"]
    assert sorted(s["label"] for s in samples) == list(range(10))
    for place, sample in enumerate(samples):
        recorded = outputs["logits"][sample["index"]].float().softmax(dim=0)
        assert int(outputs["labels"][sample["index"]]) == sample["label"]
        shown = torch.tensor(answers(opened, place)) / 100
        assert shown.argmax() == recorded.argmax()
        assert (shown - recorded).abs().max() < 0.006, sample
    assert violations(opened.page) == []
    assert opened.complaints == []


def test_exported_network_gives_pytorchs_logits(sample):
    import onnx
    from onnx.reference import ReferenceEvaluator

    exported = ReferenceEvaluator(onnx.load(SITE / "_static" / "resnet20.onnx"))
    images, _ = cifar10.to_tensors(sample.test)
    images = images[::40]  # of all classes
    logits = exported.run(["logits"], {"images": images.float().numpy()})[0]
    network = resnet.build_model("resnet20")
    files.load_weights(network, helpers.RESULTS / "resnet20.safetensors")
    expected = training.predict(network, images)
    assert (torch.tensor(logits) - expected).abs().max() < 1e-4


def test_bad_files_get_a_sentence_and_good_ones_an_answer(visit, tmp_path, sample):
    pictures = {
        "notes.png": (b"this is text", "no picture that this browser can read"),
        "empty.jpg": (b"", "no picture that this browser can read"),
        "huge.png": (bytes(31_000_000), "more than 30 MB"),
    }
    opened = visit("book/index.html")
    start_live_model(opened)
    said = opened.page.locator(".live-said")
    for name, (content, sentence) in pictures.items():
        (tmp_path / name).write_bytes(content)
        opened.page.set_input_files(".live-file", tmp_path / name)
        opened.page.get_by_text(sentence).wait_for()
        assert name in said.inner_text()
        assert set(opened.page.locator(".live-value").all_inner_texts()) == {"–"}
    opened.page.locator(".live-model").evaluate(
        """place => {
            const dropped = new DataTransfer();
            dropped.items.add(new File(["words"], "dropped.txt"));
            place.dispatchEvent(new DragEvent("drop", {dataTransfer: dropped}));
        }"""
    )
    opened.page.get_by_text("dropped.txt is no picture").wait_for()
    Image.new("RGB", (9000, 9000)).save(tmp_path / "wide.png")
    opened.page.set_input_files(".live-file", tmp_path / "wide.png")
    opened.page.get_by_text("9000 × 9000 pixels").wait_for()
    clear = Image.new("RGBA", (60, 40), (200, 30, 30, 128))
    clear.save(tmp_path / "clear.png")
    opened.page.set_input_files(".live-file", tmp_path / "clear.png")
    opened.page.get_by_text("Transparent parts count as white").wait_for()
    # A sample that was enlarged, with bars at its sides, is seen as it was.
    index = data()["samples"][9]["index"]
    place = list(sample.test.indices).index(index)
    wide = Image.new("RGB", (960, 320))
    pixels = Image.fromarray(sample.test.images[place])
    wide.paste(pixels.resize((320, 320), Image.Resampling.NEAREST), (320, 0))
    wide.save(tmp_path / "truck.png")
    opened.page.set_input_files(".live-file", tmp_path / "truck.png")
    opened.page.get_by_text("shrunk to 32 × 32").wait_for()
    opened.page.wait_for_function(
        "!document.querySelector('.live-said').textContent.includes('Transparent')"
    )
    shown = answers(opened)
    assert max(shown) == shown[cifar10.CLASSES.index("truck")] > 50
    assert opened.complaints == []


def test_live_model_works_from_a_disk(visit):
    opened = visit(f"{DISK}/book/index.html")
    start_live_model(opened)
    assert answers(opened, sample=0)[0] > 0


# ---------------------------------------------------------------- pictures of one's own


@pytest.fixture(scope="module")
def network():
    model = resnet.build_model("resnet20")
    files.load_weights(model, helpers.RESULTS / "resnet20.safetensors")
    return model


def says(network, path):
    """The network's probabilities in percent for a file, by way of Python."""
    images = torch.tensor(photos.shrink(path)[None])
    return 100 * training.predict(network, images).softmax(dim=1)[0]


def png_of_16_bits(path, image):
    """Write a colour PNG with 16 bits a channel, which Pillow cannot."""
    pixels = np.asarray(image).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(name, content):
        sum_ = zlib.crc32(name + content)
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", sum_)
        )

    head = struct.pack(">IIBBBBB", image.width, image.height, 16, 2, 0, 0, 0)
    parts = (b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


def write_kinds(folder, sample):
    """Write pictures of the kinds that readers have, each with something in it."""
    images = sample.test.images
    photo = np.concatenate([images[3], images[40], images[77]], axis=1)
    photo = Image.fromarray(photo).resize((1003, 311), Image.Resampling.BICUBIC)
    tall = photo.rotate(90, expand=True)
    clear = photo.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(photo.size))
    grid = np.full((240, 320, 3), 200, np.uint8)
    grid[::40, :] = grid[:, ::40] = 60
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held on its side
    grey = np.asarray(photo.convert("L")).astype(np.uint16) * 257
    photo.save(folder / "plain.png")
    photo.save(folder / "wide.jpg", quality=95)
    tall.save(folder / "progressive.jpg", quality=95, progressive=True)
    photo.save(folder / "phone.jpg", quality=95, exif=turned)
    photo.convert("L").save(folder / "grey.png")
    Image.fromarray(grey).save(folder / "grey16.png")
    png_of_16_bits(folder / "colour16.png", photo)
    clear.save(folder / "clear.png")
    clear.convert("LA").save(folder / "clear_grey.png")
    photo.quantize(64).save(folder / "palette.png")
    photo.save(folder / "picture.bmp")
    photo.save(folder / "picture.gif")
    photo.save(folder / "picture.webp", lossless=True)
    clear.save(folder / "clear.webp", lossless=True)
    Image.fromarray(grid).save(folder / "grid.png")
    ImageOps.scale(photo, 3).save(folder / "large.png")
    Image.fromarray(images[5]).save(folder / "as_it_is.png")
    Image.fromarray(images[5][:20, :14]).save(folder / "small.png")
    return sorted(folder.iterdir())


def test_page_and_python_say_the_same_of_the_same_files(
    visit, tmp_path, sample, network
):
    opened = visit("book/index.html")
    start_live_model(opened)
    for path in write_kinds(tmp_path, sample):
        said = opened.page.locator(".live-said")
        said.evaluate("e => e.textContent = 'waiting'")
        opened.page.set_input_files(".live-file", path)
        opened.page.wait_for_function(
            "document.querySelector('.live-said').textContent != 'waiting'"
        )
        assert "ten classes only" in said.inner_text(), path.name
        difference = torch.tensor(answers(opened)) - says(network, path)
        assert difference.abs().max() <= 1, (path.name, difference)
    assert opened.complaints == []


def test_a_grid_is_no_ship(network, tmp_path):
    """Without an average over all pixels, thin lines are lost, and it says ship."""
    grid = np.full((240, 320, 3), 200, np.uint8)
    grid[::40, :] = grid[:, ::40] = 60
    assert says(network, grid).argmax() == cifar10.CLASSES.index("cat")


def test_same_file_can_be_chosen_again(visit, tmp_path, sample):
    opened = visit("book/index.html")
    start_live_model(opened)
    path = tmp_path / "again.png"
    Image.fromarray(sample.test.images[5]).save(path)
    opened.page.set_input_files(".live-file", path)
    opened.page.get_by_text("ten classes only").wait_for()
    first = answers(opened)
    assert answers(opened, sample=0) != first
    opened.page.set_input_files(".live-file", path)
    opened.page.get_by_text("ten classes only").wait_for()
    assert answers(opened) == first


def test_old_answer_does_not_take_the_place_of_a_new_one(visit, tmp_path):
    opened = visit("book/index.html")
    start_live_model(opened)
    expected = answers(opened, sample=1)
    answers(opened, sample=2)
    Image.new("RGB", (6000, 6000), (90, 120, 200)).save(tmp_path / "slow.png")
    opened.page.set_input_files(".live-file", tmp_path / "slow.png")
    assert answers(opened, sample=1) == expected
    opened.page.wait_for_timeout(2000)
    assert answers(opened) == expected
    assert "test image" in opened.page.locator(".live-said").inner_text()


def test_paste_and_drop_of_what_is_no_file_get_a_sentence(visit):
    opened = visit("book/index.html")
    start_live_model(opened)
    send = """([kind, count]) => {
        const data = new DataTransfer();
        data.setData("text/plain", "https://example.org/cat.png");
        for (let i = 0; i < count; i++)
            data.items.add(new File(["x"], `f${i}.png`, {type: "image/png"}));
        const event = kind == "paste"
            ? new ClipboardEvent(kind, {clipboardData: data, bubbles: true})
            : new DragEvent(kind, {dataTransfer: data});
        const place = document.querySelector(".live-model");
        (kind == "paste" ? document.activeElement : place).dispatchEvent(event);
    }"""
    for kind, count, sentence in (
        ("drop", 0, "That is no file"),
        ("paste", 0, "That is no file"),
        ("drop", 2, "one picture at a time"),
        ("paste", 1, "f0.png is no picture"),
    ):
        opened.page.evaluate(send, [kind, count])
        opened.page.locator(".live-said", has_text=sentence).wait_for()


def test_panel_takes_the_focus_of_the_button_that_it_replaces(visit):
    opened = visit("book/index.html")
    start_live_model(opened)
    at = opened.page.evaluate("document.activeElement.closest('.live-samples') != null")
    assert at


def test_page_without_scripts_shows_a_still_picture(browser, address):
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(f"{address}/book/index.html")
    assert opened.locator(".live-model img").is_visible()
    context.close()
