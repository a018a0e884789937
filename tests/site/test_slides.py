"""The chapters' slides, as a class sees them on the screen."""

import subprocess

import pytest
import slides

from notebooks import CHAPTERS, read, source

# One chapter stands for all: the one with most figures and formulas.
each_chapter = pytest.mark.parametrize(
    "path",
    [
        path
        if path.stem == "07_training"
        else pytest.param(path, marks=pytest.mark.slow)
        for path in CHAPTERS
    ],
    ids=lambda path: path.stem,
)

# What each slide shows, one after the other, as keys would bring it.
LOOK = """async () => {
    const seen = [];
    for (const slide of Reveal.getSlides()) {
        const place = Reveal.getIndices(slide);
        Reveal.slide(place.h, place.v);
        await new Promise(done => requestAnimationFrame(done));
        const box = slide.getBoundingClientRect();
        const parts = "pre, img, svg.drawing, table, .katex-html";
        const wide = [...slide.querySelectorAll(parts)];
        seen.push({
            name: `${place.h}/${place.v}`,
            text: slide.innerText,
            bottom: box.bottom,
            right: Math.max(0, ...wide.map(e => e.getBoundingClientRect().right)),
            scrolls: slide.scrollHeight > slide.clientHeight + 1,
        });
    }
    return seen;
}"""


@pytest.fixture(scope="module")
def folder():
    """The slides as `make slides` leaves them."""
    root = slides.BOOK.parent
    subprocess.run(["make", "slides"], cwd=root, check=True, capture_output=True)
    return root / "_build" / "slides"


@pytest.fixture(scope="module")
def decks(folder, browser):
    """A function that tells of a chapter's slides, and the browser's complaints."""
    found = {}

    def look(path):
        if path.stem in found:
            return found[path.stem]
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        complaints = []
        page.on("console", lambda m, to=complaints: to.append(m.text))
        page.on("pageerror", lambda e, to=complaints: to.append(str(e)))
        page.on("requestfailed", lambda r, to=complaints: to.append(r.url))
        page.goto((folder / f"{path.stem}.slides.html").as_uri())
        seen = page.evaluate(LOOK)
        formulas = page.locator(".katex").count()
        broken = page.locator(".katex-error").count()
        links = page.eval_on_selector_all("a", "all => all.map(a => a.href)")
        found[path.stem] = seen, complaints, formulas, broken, links
        page.close()
        return found[path.stem]

    return look


@each_chapter
def test_slides_fit_the_screen(decks, path):
    seen = decks(path)[0]
    assert len(seen) >= 15
    for slide in seen:
        assert slide["bottom"] <= 801 and slide["right"] <= 1281, slide
        assert len(slide["text"]) > 20 or slide["name"] != "0/0", slide
    assert sum(slide["scrolls"] for slide in seen) <= 2, [
        slide["name"] for slide in seen if slide["scrolls"]
    ]


@each_chapter
def test_slides_need_no_network_and_raise_no_error(decks, path):
    _, complaints, formulas, broken, links = decks(path)
    assert complaints == []
    assert broken == 0 and (formulas >= 3 or path.stem == "01_introduction")
    for link in links:
        assert ".ipynb" not in link and "references.md" not in link, link


@each_chapter
def test_slides_show_headings_and_keep_prose_for_the_speaker(decks, folder, path):
    shown = "\n".join(slide["text"] for slide in decks(path)[0])
    for cell in read(path):
        kind = cell["metadata"].get("slideshow", {}).get("slide_type")
        if source(cell).startswith("#") and cell["cell_type"] == "markdown":
            assert kind == "slide", cell["id"]
            assert source(cell).splitlines()[0].lstrip("# ") in shown
        if cell["id"] == "setup":
            assert kind == "skip"
    text = (folder / f"{path.stem}.slides.html").read_text("utf-8")
    assert text.count('<aside class="notes">') >= 5
    assert "google.colab" not in shown
