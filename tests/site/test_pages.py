"""Each page of the built site in a real browser: on a desk and a phone, in the dark."""

import re
from importlib.metadata import version

import page_weight
import pytest
from PIL import Image

from browsing import PAGES, SITE, WIDTHS, Visit, violations


@pytest.fixture(scope="module", params=[*PAGES, "search.html"])
def opened(request, browser, address):
    """One page after the other, which the tests of every page share."""
    visit = Visit(browser, f"{address}/{request.param}", settle=False)
    yield visit
    visit.context.close()


def test_all_pages_were_built():
    names = {page.removeprefix("book/").removesuffix(".html") for page in PAGES}
    chapters = "01_introduction", "exercises/01_introduction", "07_training"
    assert {"index", *chapters, "appendix/references"} <= names


FITS = """width => {
    const wide = document.documentElement.scrollWidth > width ? ["the page"] : [];
    const blocks = "article pre, article div.math, article table, article img";
    for (const block of document.querySelectorAll(blocks))
        if (block.getBoundingClientRect().right > width + 1)
            wide.push(block.textContent.slice(0, 60) || block.alt);
    for (const formula of document.querySelectorAll("article .katex-html")) {
        const box = formula.getBoundingClientRect();
        if (box.left < 0 || box.right > width + 1)
            wide.push("cut: " + formula.textContent.slice(0, 60));
    }
    return wide;
}"""

# By keyboard, that is: a block that scrolls can be focused.
REACHED = """() => [...document.querySelectorAll("article pre")].every(
    block => block.scrollWidth <= block.clientWidth || block.tabIndex == 0)"""

# One token of code of each kind is enough, and the strokes of a formula are hidden from
# those who listen.
THIN = """() => {
    const seen = new Set();
    for (const token of document.querySelectorAll("div.highlight span[class]")) {
        const kind = token.className + token.closest("[class*=cell_]")?.className;
        if (seen.has(kind)) token.replaceWith(...token.childNodes);
        seen.add(kind);
    }
    for (const block of document.querySelectorAll("div.highlight")) block.normalize();
    for (const cell of document.querySelectorAll("div.cell"))
        cell.style.contentVisibility = "visible";
    for (const drawn of document.querySelectorAll(".katex-html"))
        drawn.replaceChildren();
}"""


def test_page_loads_without_a_complaint_and_weighs_less_than_its_budget(opened):
    page_weight.read_on(opened.page)
    assert 50_000 < page_weight.weigh(opened.finished) < page_weight.BUDGET
    assert opened.complaints == []


def test_pictures_have_size_and_alt_text_and_arrive_when_needed(opened):
    pictures = opened.page.locator("article img").evaluate_all(
        """all => Promise.all(all.map(async i => {
            const lazy = i.loading == "lazy" || i.className.includes("cover");
            i.loading = "eager";
            await i.decode();
            const box = [i.getAttribute("width"), i.getAttribute("height")];
            return [i.alt, lazy, box.map(Number), [i.naturalWidth, i.naturalHeight]];
        }))"""
    )
    for alt, lazy, said, real in pictures:
        assert len(alt) > 40
        assert lazy, alt
        assert said == real, alt


@pytest.mark.parametrize("width", WIDTHS.values(), ids=WIDTHS)
def test_page_fits_its_window_and_wide_blocks_scroll_by_themselves(opened, width):
    opened.page.set_viewport_size({"width": width, "height": 900})
    assert opened.page.evaluate(FITS, width) == []


@pytest.mark.parametrize(
    "width",
    [
        pytest.param(WIDTHS["phone"], id="phone"),
        pytest.param(WIDTHS["desk"], id="desk", marks=pytest.mark.slow),
    ],
)
def test_page_is_accessible_in_light_and_dark(opened, width):
    opened.page.evaluate(THIN)
    opened.page.set_viewport_size({"width": width, "height": 900})
    opened.page.wait_for_function(REACHED)  # the theme sees to it after a while
    for scheme in ("light", "dark"):
        opened.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        theme = f"document.documentElement.dataset.theme == '{scheme}'"
        opened.page.wait_for_function(theme)
        assert violations(opened.page, only_colours=scheme == "dark") == [], scheme


@pytest.mark.parametrize("page", PAGES)
def test_head_tells_search_engines_and_other_sites_what_the_page_is(page):
    text = (SITE / page).read_text("utf-8")
    head = text.partition("</head>")[0]
    home = re.search(r'canonical" href="(https://.*)/book/', head)[1]
    assert f'<link rel="canonical" href="{home}/{page}" />' in head
    assert f"<loc>{home}/{page}</loc>" in (SITE / "sitemap.xml").read_text("utf-8")
    for name in ('name="description"', 'property="og:description"'):
        description = re.search(rf'{name} content="([^"]*)"', head)[1]
        assert 20 < len(description) < 200, description
    card = re.search(r'og:image" content="([^"]*)"', head)[1]
    assert Image.open(SITE / card.removeprefix(f"{home}/")).size == (1200, 630)
    assert 'rel="icon" href="../' in head
    verified = re.search(r'class="extra_footer">\s*<p>(.*)</p>', text)[1]
    assert re.match(r"(Last verified|Built) on \d+ [A-Z][a-z]+ \d{4}", verified)
    assert f"PyTorch {version('torch')}." in verified
    assert text.count('name="viewport"') == 1
