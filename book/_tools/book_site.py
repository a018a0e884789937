"""A Sphinx extension for what the configuration cannot say.

It points links to the repository that builds the book, says on each page what it was
verified with, shows of exercises what students may see, brings what would otherwise
come from other servers, and makes pages light: no script or icon that is not used.
"""

import hashlib
import html
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from shutil import copyfile

import packages
import tinycss2
from docutils import nodes
from fontTools import subset
from PIL import Image
from sphinx.errors import ExtensionError
from sphinx.util import logging

BOOK = Path(__file__).resolve().parent.parent
VERIFIED = BOOK.parent / ".venv" / "verified"  # touched when the notebooks have passed
LIVE_MODEL = "live_model.js"
HIDDEN = re.compile(
    r"^### BEGIN HIDDEN TESTS\n.*?^### END HIDDEN TESTS\n", flags=re.M | re.S
)
UNUSED = ("thebe", packages.MATHJAX, "design-tabs")  # book.js loads MathJax

log = logging.getLogger(__name__)


def setup(app):
    """Connect the handlers; called by Sphinx."""
    # Before the theme's own handlers (500) read the repository, after they filled in.
    app.connect("config-inited", follow_the_repository, priority=100)
    app.connect("config-inited", say_what_was_verified)
    app.connect("builder-inited", start_helpers)
    app.connect("source-read", hide_checks)
    app.connect("html-page-context", choose_scripts, priority=900)
    app.connect("html-page-context", describe, priority=900)
    # After the theme has written its style sheets.
    app.connect("build-finished", finish_site, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def follow_the_repository(app, config):
    """Point links and addresses to the repository whose workflow builds the book."""
    slug = os.environ.get("GITHUB_REPOSITORY")
    if slug:
        config.html_theme_options["repository_url"] = f"https://github.com/{slug}"
    else:
        slug = "/".join(config.html_theme_options["repository_url"].split("/")[-2:])
    owner, name = slug.split("/")
    config.html_baseurl = f"https://{owner}.github.io/{name}/"
    config.ogp_site_url = config.html_baseurl
    config.ogp_image = f"{config.html_baseurl}_static/card.png"


def say_what_was_verified(app, config):
    """Put the date and the versions at the foot of each page."""
    now = int(os.environ.get("SOURCE_DATE_EPOCH", 0))
    built = datetime.fromtimestamp(now, UTC) if now else datetime.now(UTC)
    sources = [*BOOK.rglob("*.ipynb"), *BOOK.rglob("*.py")]
    changed = max(p.stat().st_mtime for p in sources if ".ipynb_" not in str(p))
    if VERIFIED.exists() and VERIFIED.stat().st_mtime >= changed:
        date = datetime.fromtimestamp(VERIFIED.stat().st_mtime, UTC)
        words = (
            f"Last verified on {day(date)}: every cell was run and its output compared"
        )
    else:
        words = f"Built on {day(built)}; not verified since the last change"
    names = {"numpy": "NumPy", "torch": "PyTorch"}
    versions = [f"{name} {version(package)}" for package, name in names.items()]
    python = ".".join(map(str, sys.version_info[:3]))
    config.html_theme_options["extra_footer"] = (
        f"<p>{words}; Python {python}, {', '.join(versions)}.</p>"
    )


def day(date):
    """Write a date as 4 November 2026."""
    return f"{date.day} {date:%B %Y}"


def start_helpers(app):
    """Start to make what the site carries besides pages; finish_site waits for it."""
    if app.builder.name == "html":
        static = Path(app.outdir) / "_static"
        static.mkdir(parents=True, exist_ok=True)
        app.course = Path(app.doctreedir) / "class"
        tools = (("live_model.py", static), ("classroom.py", "make", app.course))
        app.helpers = [
            subprocess.Popen(
                [sys.executable, BOOK / "_tools" / tool, *arguments],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for tool, *arguments in tools
        ]


def hide_checks(app, docname, source):
    """Leave on the pages of exercises what a student may see of their checks."""
    if docname.startswith("book/exercises/"):
        notebook = json.loads(source[0])
        for cell in notebook["cells"]:
            text = "".join(cell["source"])
            text = HIDDEN.sub("", text)
            cell["source"] = re.sub(r"^ *### \w+ SOLUTION\n?", "", text, flags=re.M)
        source[0] = json.dumps(notebook)


def choose_scripts(app, pagename, templatename, context, doctree):
    """Leave to each page the scripts and style sheets that it uses."""
    body = context.get("body", "")

    def used(file, names):
        return not any(
            n in f"{getattr(file, 'filename', file)}{vars(file)}" for n in names
        )

    scripts = UNUSED if "live-model" in body else (*UNUSED, LIVE_MODEL)
    styles = UNUSED if "sd-" in body else (*UNUSED, "sphinx-design")
    for key, names in (("script_files", scripts), ("css_files", styles)):
        context[key] = [file for file in context.get(key, []) if used(file, names)]


def describe(app, pagename, templatename, context, doctree):
    """Let the page's first paragraph be its description."""
    if doctree is not None:
        paragraph = html.escape(next(doctree.findall(nodes.paragraph)).astext())
        context["metatags"] = re.sub(
            r'(description" content=)"[^"]*"',
            lambda found: f'{found[1]}"{" ".join(paragraph.split())}"',
            context["metatags"],
        )


def finish_site(app, exception):
    """Bring MathJax and the live model, and lighten what the theme made."""
    if app.builder.name != "html":
        return
    live_model, classroom = app.helpers
    problems = [helper.communicate()[1].strip() for helper in app.helpers]
    if exception:
        return
    site = Path(app.outdir)
    static = site / "_static"
    if live_model.returncode:
        # Readers then see the still picture; a build without network is no mistake.
        log.info("no live model: %s", problems[0].splitlines()[-1])
        leave_still_picture(site)
    if classroom.returncode:
        raise ExtensionError(f"no student's editions: {problems[1]}")
    for page in (site / "_sources/book/exercises").glob("*.ipynb"):
        copyfile(app.course / "release" / page.stem / page.name, page)
    packages.bring_mathjax(static)
    for unused in [*site.rglob("*.map"), *static.rglob("*.ttf")]:
        unused.unlink()
    with ThreadPoolExecutor() as workers:
        list(workers.map(shrink, (site / "_images").glob("*.png")))
    pages = list(site.rglob("*.html"))
    for page in pages:
        page.write_text(finish_page(page.read_text("utf-8"), page), "utf-8")
    keep_used_icons(static, pages)
    join_styles(static, pages)


def leave_still_picture(site):
    """Take the script of the live model out of the site."""
    (site / "_static" / LIVE_MODEL).unlink()
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        text = re.sub(rf"<script[^>]*{LIVE_MODEL}[^>]*></script>", "", text)
        page.write_text(text, "utf-8")


def shrink(picture):
    """Put WebP of the same pixels in place of a PNG: half the size."""
    Image.open(picture).save(picture.with_suffix(".webp"), lossless=True)
    picture.unlink()


def finish_page(text, page):
    """Return a page with lazy scripts and pictures, and names for what has none."""
    if "data-content_root" not in text:
        return text  # no page of the theme, but the one that leads to the first
    # Icons come from the font; the search is a page of its own; one viewport is enough.
    text = re.sub(r"\s*<script defer src=\S*fontawesome\.js\S*></script>", "", text)
    if page.name != "search.html":
        search = r"\s*<script src=\S*/?(searchtools|language_data|searchindex)\.js\b.*"
        text = re.sub(search, "", text)
    viewport = r'\s*<meta name="viewport"[^>]*>'
    text = re.sub(viewport, "", text, count=len(re.findall(viewport, text)) - 1)
    # Scripts wait for the page, but for the options that inline scripts fill in.
    text = re.sub(
        r"<script src=(?!\S*documentation_options)", "<script defer src=", text
    )
    text = re.sub(r'(src="[^"]*_images/[^"]*)\.png"', r'\1.webp"', text)
    text = re.sub(r"<img [^>]*>", lambda found: finish_image(found[0], page), text)
    # Names and punctuation have the colour of the block: half of a page's elements.
    text = re.sub(r'<span class="(?:n|p|w)">([^<]*)</span>', r"\1", text)
    # What the theme leaves without a name for those who listen to the page.
    text = text.replace(' role="doc-biblioentry"', ' role="listitem"')
    text = text.replace(
        '<summary><span class="toctree-toggle"',
        '<summary aria-label="Pages of this chapter"><span class="toctree-toggle"',
    )
    return text.replace(
        '<div id="pst-primary-sidebar"',
        '<div id="pst-primary-sidebar" role="region" aria-label="Book"',
    )


def finish_image(tag, page):
    """Return the tag of an image with its size, and lazy unless it is the cover."""
    source = re.search(r'src="([^":?]*_images/[^":?]+)"', tag)
    if source is None or "width=" in tag:
        return tag
    width, height = Image.open(page.parent / source[1]).size
    lazy = ' loading="lazy" decoding="async"'
    if "cover" in source[1]:
        lazy = ' fetchpriority="high"'
    return f'<img width="{width}" height="{height}"{lazy}{tag.removeprefix("<img")}'


def keep_used_icons(static, pages):
    """Keep those icons in the fonts and the style sheet that the site can show."""
    (static / "scripts" / "fontawesome.js").unlink()
    users = [*pages, *static.glob("scripts/*.js")]
    text = " ".join(user.read_text("utf-8") for user in users)
    names = set(re.findall(r"fa-[a-z0-9-]+", text))
    style = static / "styles" / "pydata-sphinx-theme.css"

    def keep(rule):
        return rule[0] if names & set(re.findall(r"fa-[a-z0-9-]+", rule[1])) else ""

    rules = re.compile(r'((?:\.fa-[a-z0-9-]+:before,?)+)\{content:"[^"]*"\}')
    style.write_text(rules.sub(keep, style.read_text("utf-8")), "utf-8")
    sheets = " ".join(sheet.read_text("utf-8") for sheet in static.rglob("*.css"))
    codes = {int(code, 16) for code in re.findall(r'"\\([0-9a-f]{4})"', sheets)}
    options = subset.Options(flavor="woff2", ignore_missing_unicodes=True)
    for file in (static / "vendor" / "fontawesome" / "webfonts").glob("*.woff2"):
        font = subset.load_font(file, options)
        chosen = subset.Subsetter(options)
        chosen.populate(unicodes=codes)
        chosen.subset(font)
        subset.save_font(font, file, options)


def small(file):
    """Whether a script is none of the large ones, which bring their own styles."""
    return file.stat().st_size < 300_000


def keep_used_rules(sheet, words):
    """Return a style sheet without the rules for classes that are not among `words`."""
    kept = []
    for rule in tinycss2.parse_stylesheet(sheet, True, True):
        if rule.type == "qualified-rule":
            chosen = [s for s in selectors(rule.prelude) if classes(s) <= words]
            if chosen:
                heads = ",".join(tinycss2.serialize(s).strip() for s in chosen)
                kept.append(f"{heads}{{{tinycss2.serialize(rule.content)}}}")
        elif rule.type == "at-rule" and rule.lower_at_keyword in ("media", "supports"):
            inside = keep_used_rules(tinycss2.serialize(rule.content), words)
            head = f"@{rule.at_keyword}{tinycss2.serialize(rule.prelude)}"
            kept += [f"{head}{{{inside}}}"] if inside else []
        else:
            kept.append(rule.serialize())
    return "\n".join(kept)


def selectors(prelude):
    """Split the tokens before the braces of a rule at their commas."""
    parts = [[]]
    for token in prelude:
        if token == ",":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def classes(selector):
    """Return the classes that a selector needs: not those in brackets."""
    pairs = zip(selector, selector[1:])
    return {name.value for dot, name in pairs if dot == "." and name.type == "ident"}


def join_styles(static, pages):
    """Put one style sheet in place of those that every page has, in their order.

    Rules for classes that stand in no page and no script are left out.
    """
    link = re.compile(r'\s*<link [^>]*href="[^"]*_static/([^"?]+\.css)[^>]*>')
    first = next(page for page in pages if page.name == "search.html")
    names = link.findall(first.read_text("utf-8"))
    sheets = [(static / name).read_text("utf-8") for name in names]
    sheets[0] = (static / "basic.css").read_text("utf-8")  # all that theme.css imports
    users = [*pages, *(script for script in static.rglob("*.js") if small(script))]
    text = " ".join(user.read_text("utf-8") for user in users)
    joined = keep_used_rules("\n".join(sheets), set(re.split(r"[\s\"'`<>=.]+", text)))
    (static / "styles" / "site.css").write_text(joined, "utf-8")
    digest = hashlib.sha256(joined.encode()).hexdigest()[:8]
    for page in pages:
        text = page.read_text("utf-8")
        found = [m for m in link.finditer(text) if m[1] in names]
        if found:
            one = found[0][0].replace(names[0], f"styles/site.css?v={digest}")
            for match in found[1:]:
                text = text.replace(match[0], "")
            one = re.sub(r"\?digest=\w+", "", one)
            page.write_text(text.replace(found[0][0], one), "utf-8")
