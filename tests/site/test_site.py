"""The built site in a real browser, as readers use it: by key, on paper, offline."""

import io
import os
import re
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace

import book_site
import numpy as np
import pytest
import yaml
from PIL import Image

from browsing import DISK, PAGES, SITE, WIDTHS
from notebooks import read, source

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = [page for page in PAGES if re.match(r"book/\d\d_", page)]


# ---------------------------------------------------------------- reading


def test_chapter_shows_its_figures_and_its_maths_to_all(visit):
    """Formulas are drawn for the eye, and as MathML for those who listen."""
    opened = visit("book/07_training.html")
    assert opened.page.locator("article .cell_output img").count() >= 10
    formulas = opened.page.locator("article .katex").count()
    assert formulas >= 6
    assert opened.page.locator(".katex > .katex-mathml math").count() == formulas
    drawn = opened.page.locator(".katex > .katex-html[aria-hidden=true]")
    assert drawn.count() == formulas
    fonts = drawn.first.evaluate("e => getComputedStyle(e).fontFamily")
    assert "KaTeX" in fonts
    assert not any("mathjax" in url.lower() for url in opened.requests)
    assert opened.complaints == []


RAW = re.compile(r"\\\(|\\\[|\\tag|\$\$|\\frac")


@pytest.mark.parametrize("page", CHAPTERS[4:5])
def test_formulas_need_no_script(browser, address, page):
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    opened.goto(f"{address}/{page}")
    text = opened.locator("article").inner_text()
    assert opened.locator("article .katex-html").count() > 20
    context.close()
    assert "(5.1)" in text or "05_" not in page
    assert RAW.findall(text) == []


def test_formulas_are_set_in_print(visit):
    from pypdf import PdfReader

    opened = visit("book/05_residual_block.html")
    printed = PdfReader(io.BytesIO(opened.page.pdf()))
    text = "\n".join(page.extract_text() for page in printed.pages)
    assert "5.1 A convolution" in text
    assert RAW.findall(text) == []


def test_mentions_of_equations_terms_and_works_lead_to_them(visit):
    opened = visit("book/05_residual_block.html")
    article = opened.page.locator("article")
    for kind, shown in (
        ("#eq-5.1", "(5.1)"),
        ("glossary.html#term-stride", "stride"),
        ("references.html#he2016", "He et al. (2016)"),
    ):
        link = article.locator(f'a[href$="{kind}"]', has_text=shown).first
        target = link.evaluate("a => a.href")
        other = visit(target.removeprefix(f"{target.split('/book/')[0]}/"))
        place = other.page.locator(f'[id="{target.partition("#")[2]}"]')
        assert place.bounding_box()["y"] < 900, target


def test_a_preview_shows_what_a_link_leads_to(visit):
    opened = visit("book/05_residual_block.html")
    for kind, shown in (
        ("#eq-5.1", "(5.1)"),
        ("#term-stride", "window"),
        ("#he2016", "Deep Residual Learning"),
    ):
        opened.page.locator(f'article a[href$="{kind}"]').first.hover()
        opened.page.locator(".tippy-box", has_text=shown).wait_for()
        opened.page.mouse.move(1, 1)
    assert opened.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_follow_the_page(visit, scheme):
    """Also against the system: ink is dark on a light page, and light on a dark one."""
    system = "light" if scheme == "dark" else "dark"
    opened = visit("book/02_neural_network.html", scheme=system)
    opened.page.evaluate(
        "scheme => document.documentElement.dataset.theme = scheme", scheme
    )
    for place in ("svg.drawing", ".cell_output img"):
        shown = opened.page.locator(f"article {place}").first.screenshot()
        pixels = np.asarray(Image.open(io.BytesIO(shown)).convert("L"), int)
        paper = np.median(pixels)
        assert (paper > 230) if scheme == "light" else (paper < 40), place
        assert np.ptp(pixels) > 150, place


DRAWN = [
    page for page in CHAPTERS if 'class="drawing"' in (SITE / page).read_text("utf-8")
]


@pytest.mark.parametrize("page", DRAWN)
def test_text_of_drawings_is_legible_on_a_phone(visit, page):
    opened = visit(page, width=390)
    heights = opened.page.locator("svg.drawing text").evaluate_all(
        """all => all.map(t => parseFloat(getComputedStyle(t).fontSize)
            * t.ownerSVGElement.getScreenCTM().a)"""
    )
    assert heights and min(heights) >= 11


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


def test_icons_are_drawn_from_fonts(visit):
    opened = visit("book/07_training.html")
    fonts = opened.page.evaluate(
        """async () => {
            await document.fonts.ready;
            const loaded = [...document.fonts].filter(f => f.status == "loaded");
            return loaded.map(f => f.family);
        }"""
    )
    assert any("Font Awesome" in family for family in fonts)
    icons = opened.page.locator(".article-header-buttons i, .sidebar-toggle span")
    codes = icons.evaluate_all(
        "all => all.map(i => getComputedStyle(i, '::before').content)"
    )
    assert len(codes) >= 6 and "none" not in codes


def test_site_carries_nothing_that_it_does_not_use():
    scripts = list(SITE.rglob("fontawesome*.js"))
    assert len(scripts) == 1 and scripts[0].stat().st_size < 1000
    assert not [p for p in SITE.rglob("*.js") if "mathjax" in p.name.lower()]


# ---------------------------------------------------------------- without network


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
    assert opened.page.locator(".katex").count() >= 6
    assert opened.complaints == []
    opened = visit(f"{DISK}/search.html?q=momentum")
    opened.page.wait_for_selector("#search-results li a")
