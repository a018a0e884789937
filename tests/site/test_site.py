"""The built site in a real browser, as readers use it: by key, on paper, offline."""

import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import book_site
import page_weight
import pytest
import torch
import yaml
from PIL import Image

import helpers
from browsing import PAGES, SITE, WIDTHS, Visit, violations
from notebooks import read, source
from support import cifar10, files
from taught import resnet, training

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = [page for page in PAGES if re.match(r"book/\d\d_", page)]


@pytest.fixture
def visit(browser, address):
    open_visits = []

    def go(page, **options):
        # A page of this server, or a file that the caller names in full.
        where = page if page.startswith("file:") else f"{address}/{page}"
        open_visits.append(Visit(browser, where, **options))
        return open_visits[-1]

    yield go
    for opened in open_visits:
        opened.context.close()


# ---------------------------------------------------------------- reading


def test_chapter_shows_its_figures_and_its_maths_to_all(visit):
    opened = visit("book/07_training.html")
    asked = any(page_weight.MATHS in url for url in opened.requests)
    # Not yet; ten seconds after loading, on a busy machine, all may have begun.
    assert not asked or opened.page.evaluate("performance.now()") > 10_000
    opened.typeset_all()
    assert opened.page.locator("article .cell_output img").count() >= 10
    formulas = opened.page.locator("mjx-container").count()
    assert formulas >= 6
    assert opened.page.locator("mjx-container > svg[aria-hidden=true]").count() == (
        formulas
    )
    assert opened.page.locator("mjx-assistive-mml math").count() == formulas
    assert opened.complaints == []


def test_formula_in_the_window_is_typeset_without_a_stir(visit):
    opened = visit("book/05_residual_block.html")
    assert opened.page.locator("mjx-container").count() == 0
    opened.page.set_viewport_size({"width": 1280, "height": 6000})  # no scrolling
    opened.page.wait_for_selector("mjx-container svg", timeout=60_000)


def test_search_finds_the_chapter(visit):
    opened = visit("search.html?q=momentum")
    opened.page.wait_for_selector("#search-results li a")
    titles = opened.page.locator("#search-results li > a").all_inner_texts()
    assert any("Training a ResNet" in title for title in titles)
    assert opened.complaints == []


def test_root_leads_to_the_landing_page_and_on_to_the_chapters(visit):
    opened = visit("index.html")
    opened.page.wait_for_url("**/book/index.html")
    opened.page.get_by_role("link", name="Train at once: chapter 7").click()
    opened.page.wait_for_url("**/book/07_training.html*")
    assert "Training a ResNet" in opened.page.title()
    for direction, target in (("left-prev", "exercises/06"), ("right-next", "07")):
        link = opened.page.locator(f".prev-next-area .{direction}")
        assert target in link.get_attribute("href")


def test_landing_page_shows_its_promise_and_picture_in_one_screen(visit):
    opened = visit("book/index.html")
    for target in ("article h1", "article img.cover", "article ul"):
        box = opened.page.locator(target).first.bounding_box()
        assert box["y"] + box["height"] / 2 < 900, target
    parts = opened.page.locator(".bd-sidebar-primary .caption-text").all_inner_texts()
    assert parts[:3] == opened.page.locator("article h3").evaluate_all(
        "all => all.map(h => h.firstChild.textContent)"
    )


@pytest.mark.parametrize("page", ["book/index.html", "book/09_evaluation.html"])
@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_everything_is_reached_by_keyboard_and_seen_when_reached(visit, page, width):
    opened = visit(page, width=width)
    steps = opened.page.evaluate(
        """() => [...document.querySelectorAll("a, button, input, summary")].filter(
            e => e.checkVisibility({visibilityProperty: true})).length"""
    )
    reached = set()
    for _ in range(steps + 20):
        opened.page.keyboard.press("Tab")
        at = opened.page.evaluate(
            """() => {
                const e = document.activeElement;
                const style = getComputedStyle(e);
                const ring = style.outlineStyle != "none" || style.boxShadow != "none";
                const parts = [...e.querySelectorAll("*"), e];
                const after = getComputedStyle(e, "::after"); // of a card
                const seen = parts.some(part => {
                    const box = part.getBoundingClientRect();
                    return box.width * box.height > 0;
                }) || parseFloat(after.width) > 0;
                return [e.outerHTML.slice(0, 200), seen, ring,
                        e === document.body];
            }"""
        )
        if at[3]:
            break
        reached.add(at[0])
        assert at[1], f"invisible: {at[0]}"
        assert at[2], f"without a ring: {at[0]}"
    for needed in ("main-content", "07_training", "theme-switch", "search-button"):
        assert width == 390 or any(needed in html for html in reached), needed
    assert len(reached) > 0.7 * steps


def test_quiz_opens_by_keyboard_and_is_called_what_it_says(visit):
    opened = visit("book/exercises/04_activations.html", width=390)
    assert not opened.page.get_by_text("A is saturated").is_visible()
    opened.page.locator("summary", has_text="Answer 2").focus()
    opened.page.keyboard.press("Enter")
    assert opened.page.get_by_text("A is saturated").is_visible()
    answers = opened.page.locator("summary", has_text=re.compile(r"^Answer \d"))
    assert answers.evaluate_all("all => all.map(s => s.ariaLabel)") == [None] * 5


def test_exercise_pages_hide_what_a_student_may_not_see(address):
    page = "book/exercises/03_backpropagation"
    text = (SITE / f"{page}.html").read_text("utf-8")
    assert "Show the solution" in text and "SOLUTION" not in text
    plain = re.sub(r"<[^>]+>", "", text)
    assert "central differences say" in plain  # of the check that is shown
    assert "twin.grad.item()" not in plain  # of the one that is not
    download = re.search(r'href="([^"]*_sources/[^"]*\.ipynb)"', text)[1]
    handed_out = (SITE / page).parent / download
    sources = [source(cell) for cell in read(handed_out)]
    assert "NotImplementedError" in "".join(sources)
    assert "twin.grad.item()" not in "".join(sources)


@pytest.mark.parametrize("page", CHAPTERS[4:6])
def test_paper_shows_the_text_alone_and_cuts_no_code(visit, page):
    opened = visit(page, width=700)
    opened.page.emulate_media(media="print")
    shown = "e => e.checkVisibility()"
    for aside in (".bd-sidebar-primary", ".bd-header-article", ".prev-next-footer"):
        assert not opened.page.locator(aside).first.evaluate(shown), aside
    cut = opened.page.locator("article pre").evaluate_all(
        "all => all.filter(e => e.scrollWidth > e.clientWidth + 1).length"
    )
    assert cut == 0
    assert len(opened.page.pdf()) > 100_000


def test_buttons_lead_to_the_repository_that_built_the_site(visit):
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))
    built_by = os.environ.get("GITHUB_REPOSITORY")
    home = f"https://github.com/{built_by}" if built_by else config["repository"]["url"]
    opened = visit("book/07_training.html")
    links = opened.page.eval_on_selector_all("a", "all => all.map(a => a.href)")
    slug = home.removeprefix("https://github.com/")
    notebook = "blob/main/book/07_training.ipynb"
    colab = f"https://colab.research.google.com/github/{slug}/{notebook}"
    assert colab in links and home in links
    assert not any("github.com" in x and slug not in x for x in links if "blob" in x)


def configured(monkeypatch, slug=None):
    """What the extension makes of the configuration, in a repository of that name."""
    if slug:
        monkeypatch.setenv("GITHUB_REPOSITORY", slug)
    else:
        monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    options = {"repository_url": "https://github.com/house/book"}
    config = SimpleNamespace(html_theme_options=options)
    book_site.follow_the_repository(None, config)
    book_site.say_what_was_verified(None, config)
    return config


def test_a_fork_leads_to_itself(monkeypatch):
    ours, theirs = configured(monkeypatch), configured(monkeypatch, "reader/copy")
    assert ours.html_baseurl == "https://house.github.io/book/"
    assert theirs.html_theme_options["repository_url"] == (
        "https://github.com/reader/copy"
    )
    assert (
        theirs.html_baseurl == theirs.ogp_site_url == ("https://reader.github.io/copy/")
    )
    assert theirs.ogp_image.startswith(theirs.html_baseurl)


def test_foot_says_verified_only_of_what_was_run_after_the_last_change(
    monkeypatch, tmp_path
):
    stamp = tmp_path / "verified"
    monkeypatch.setattr(book_site, "VERIFIED", stamp)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    foot = configured(monkeypatch).html_theme_options["extra_footer"]
    assert "Built on 15 January 2027; not verified" in foot
    stamp.touch()
    os.utime(stamp, (1900000000, 1900000000))
    foot = configured(monkeypatch).html_theme_options["extra_footer"]
    assert "Last verified on 17 March 2030: every cell was run" in foot
    os.utime(stamp, (1000000000, 1000000000))  # older than the notebooks
    foot = configured(monkeypatch).html_theme_options["extra_footer"]
    assert "not verified" in foot


def test_icons_are_drawn_from_the_small_fonts(visit):
    opened = visit("book/07_training.html")
    fonts = opened.page.evaluate(
        """async () => {
            await document.fonts.ready;
            return [...document.fonts].filter(f => f.status == "loaded").length;
        }"""
    )
    assert fonts >= 2
    icons = opened.page.locator(".article-header-buttons i, .sidebar-toggle span")
    codes = icons.evaluate_all(
        "all => all.map(i => getComputedStyle(i, '::before').content)"
    )
    assert len(codes) >= 6
    from fontTools.ttLib import TTFont

    drawn = {code for f in SITE.rglob("*.woff2") for code in TTFont(f).getBestCmap()}
    assert {ord(code.strip('"')) for code in codes} <= drawn


def test_style_sheet_keeps_what_pages_and_scripts_can_show():
    sheet = """@charset "utf-8"; p, .used > a, .unused { color: red }
        .used.unused b { color: red } .used:not(.unused) { margin: 0 }
        @media print { .unused { color: red } } @media screen { .used { top: 0 } }
        @keyframes turn { to { rotate: 1turn } }"""
    kept = book_site.keep_used_rules(sheet, {"used"})
    assert kept.count("red") == 1 and "p,.used > a{" in kept and "print" not in kept
    for rule in ("@charset", ".used:not(.unused){", "screen {.used{", "@keyframes"):
        assert rule in kept, rule
    assert len((SITE / "_static/styles/site.css").read_bytes()) < 160_000


def test_site_carries_nothing_that_it_does_not_use():
    assert not list(SITE.rglob("*.map"))
    assert not list(SITE.rglob("fontawesome*.js"))
    assert (SITE / "_static" / page_weight.MATHS).stat().st_size > 1_000_000
    fonts = list(SITE.rglob("*.woff2"))
    assert fonts and sum(f.stat().st_size for f in fonts) < 10_000


# ---------------------------------------------------------------- without network


DISK = SITE.as_uri()  # as who unpacked the zip opens it


@pytest.mark.slow
def test_zip_holds_the_whole_site(tmp_path):
    subprocess.run(["make", "zip"], cwd=ROOT, check=True, capture_output=True)
    with zipfile.ZipFile(ROOT / "_build" / "resnets-from-scratch.zip") as packed:
        names = {name for name in packed.namelist() if not name.endswith("/")}
    files = (path for path in SITE.rglob("*") if path.is_file())
    assert names == {f"html/{path.relative_to(SITE).as_posix()}" for path in files}


def test_site_works_from_a_disk(visit):
    opened = visit(f"{DISK}/index.html")
    opened.page.wait_for_url("**/book/index.html")
    opened.page.get_by_role("link", name="Start with chapter 1").click()
    opened.page.wait_for_load_state("networkidle")
    assert "Introduction" in opened.page.title()
    opened = visit(f"{DISK}/book/03_backpropagation.html")
    opened.typeset_all()
    assert opened.page.locator("mjx-container").count() >= 6
    assert opened.complaints == []
    opened = visit(f"{DISK}/search.html?q=momentum")
    opened.page.wait_for_selector("#search-results li a")


def test_live_model_works_from_a_disk(visit):
    opened = visit(f"{DISK}/book/index.html")
    start_live_model(opened)
    assert answers(opened, sample=0)[0] > 0


# ---------------------------------------------------------------- the live model


@pytest.fixture(scope="module", autouse=True)
def live_model_is_there():
    if not (SITE / "_static" / "live_model_data.js").exists() and os.environ.get("CI"):
        pytest.fail("the site was built without the live model: npm is missing?")


needs_live_model = pytest.mark.skipif(
    not (SITE / "_static" / "live_model_data.js").exists(),
    reason="the site was built without the live model: npm is missing",
)


def data():
    text = (SITE / "_static" / "live_model_data.js").read_text("utf-8")
    return json.loads(text.removeprefix("window.liveModelData = ").rstrip(";\n"))


def start_live_model(opened):
    button = opened.page.get_by_role("button", name="Classify a picture here")
    # A jump to the button lays out the cells around it: no click before all is still.
    button.scroll_into_view_if_needed()
    opened.typeset_all()
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


@needs_live_model
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


@needs_live_model
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


@needs_live_model
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


def test_page_without_the_live_model_shows_a_still_picture(visit, tmp_path):
    """As the build leaves it where npm is missing."""
    shutil.copytree(SITE, tmp_path / "site")
    book_site.leave_still_picture(tmp_path / "site")
    page = tmp_path / "site" / "book" / "index.html"
    opened = visit(page.as_uri())
    assert opened.page.locator(".live-model img").is_visible()
    assert opened.page.locator(".live-model button").count() == 0
    assert opened.complaints == []
