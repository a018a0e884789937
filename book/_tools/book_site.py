"""A Sphinx extension for what the configuration cannot say.

It points links to the repository that builds the book, says on each page what it was
verified with, shows of exercises what students may see, lets formulas be set by the
Node that pip installed, puts drawings into the page, and adds live model and classes.
"""

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from shutil import copyfile, copytree, ignore_patterns

import imagesize
import packages  # which finds support/, too
from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.writers.html5 import HTML5Translator
from sphinxcontrib import katex

from support.npm import node

BOOK = Path(__file__).resolve().parent.parent
VERIFIED = BOOK.parent / ".venv" / "verified"  # touched when the notebooks have passed
EBOOKS = BOOK.parent / "_build" / "ebooks"  # where `make ebooks` puts them
HIDDEN = re.compile(
    r"^### BEGIN HIDDEN TESTS\n.*?^### END HIDDEN TESTS\n", flags=re.M | re.S
)


def setup(app):
    """Connect the handlers; called by Sphinx."""
    katex.NODEJS_BINARY = str(node())
    katex.KATEX_DEFAULT_OPTIONS["throwOnError"] = True  # a wrong formula ends the build
    katex.STARTUP_TIMEOUT = katex.RENDER_TIMEOUT = 120  # seconds, on a busy machine
    # Before the theme's own handlers (500) read the repository, after they filled in.
    app.connect("config-inited", follow_the_repository, priority=100)
    app.connect("config-inited", say_what_was_verified)
    app.connect("builder-inited", start_makers)
    app.connect("source-read", hide_checks)
    app.connect("html-page-context", lighten, priority=900)
    app.connect("build-finished", finish_site)
    app.add_post_transform(DrawingsInline)
    app.add_post_transform(ColumnsNamed)
    app.add_node(nodes.image, override=True, html=(visit_image, None))
    entry = visit_citation, HTML5Translator.depart_citation
    app.add_node(nodes.citation, override=True, html=entry)
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
    foot = f"<p>{words}; Python {python}, {', '.join(versions)}.</p>"
    books = [
        f'<a href="{config.html_baseurl}{path.name}">{path.suffix[1:].upper()}</a> '
        f"({path.stat().st_size / 1e6:.0f} MB)"
        for path in sorted(EBOOKS.glob("*.*"))
    ]
    if books:
        foot += f"<p>The whole book as {' and '.join(books)}.</p>"
    config.html_theme_options["extra_footer"] = foot


def day(date):
    """Write a date as 4 November 2026."""
    return f"{date.day} {date:%B %Y}"


def start_makers(app):
    """Bring KaTeX's style; start to make what the site carries besides pages."""
    static = Path(app.outdir) / "_static"
    style = packages.dist("katex")
    # Browsers take woff2, of which Sphinx's EPUB knows nothing.
    other = "*.woff2" if app.builder.name == "epub" else "*.woff"
    unused = ignore_patterns("*.ttf", other)
    copytree(style / "fonts", static / "fonts", ignore=unused, dirs_exist_ok=True)
    copyfile(style / "katex.min.css", static / "katex.min.css")
    if app.builder.name != "html":  # one book to keep, which has no such buttons
        app.config.html_theme_options |= {"launch_buttons": {}, "repository_url": ""}
        return
    popper = packages.dist("@popperjs/core") / "umd"
    for script in (
        packages.dist("tippy.js") / "tippy-bundle.umd.min.js",
        popper / "popper.min.js",
    ):
        copyfile(script, static / script.name)
    app.course = Path(app.doctreedir) / "class"
    tools = (("live_model.py", static), ("classroom.py", "make", app.course))
    app.makers = [
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
            text = HIDDEN.sub("", "".join(cell["source"]))
            cell["source"] = re.sub(r"^ *### \w+ SOLUTION\n?", "", text, flags=re.M)
        source[0] = json.dumps(notebook)


def lighten(app, pagename, templatename, context, doctree):
    """Leave out what a page does not use; let scripts wait until the page is drawn."""
    unused = ["thebe"]
    if "sd-" not in context.get("body", ""):
        unused += ["sphinx-design", "design-tabs"]
    for kind in ("script_files", "css_files"):
        context[kind] = [
            file
            for file in context[kind]
            if not any(name in f"{file} {vars(file)}" for name in unused)
        ]
    for script in context["script_files"]:
        if pagename == "search":  # whose own scripts want the others at once
            script.attributes.pop("defer", None)
        elif "documentation_options" not in str(script.filename):
            script.attributes["defer"] = "defer"
    named = '<meta name="viewport" content="width=device-width, initial-scale=1" />'
    context["metatags"] = context.get("metatags", "").replace(named, "")
    # The theme's icon for a repository is the only one of another font.
    for group in context.get("header_buttons", []):
        for button in [group, *group.get("buttons", [])]:
            if "fa-github" in button.get("icon", ""):
                button["icon"] = "fas fa-code-branch"


class DrawingsInline(SphinxPostTransform):
    """Put drawings into the page itself, where search and screen readers find them."""

    default_priority = 900  # when outputs have become images
    builders = ("html",)

    def run(self, **options):
        """Replace the images that are drawings."""
        for image in list(self.document.findall(nodes.image)):
            path = Path(self.app.srcdir, image["uri"])
            if path.suffix == ".svg" and 'class="drawing"' in path.read_text("utf-8"):
                text = path.read_text("utf-8").partition("<svg")[2]
                image.replace_self(nodes.raw("", f"<svg{text}", format="html"))


class ColumnsNamed(SphinxPostTransform):
    """Put the name of its column before each cell: on a phone, tables become lists."""

    default_priority = 900
    builders = ("html",)

    def run(self, **options):
        """Add what only a phone shows."""
        for table in self.document.findall(nodes.tgroup):
            names = [name.astext() for name in next(table.findall(nodes.row))]
            for row in next(table.findall(nodes.tbody)):
                for name, cell in list(zip(names, row))[1:]:
                    if name and cell.astext():
                        label = nodes.inline("", f"{name}: ", classes=["column"])
                        cell[0].insert(0, label)


def visit_image(self, node):
    """Write an image with its size, so that nothing moves when it arrives late."""
    path = Path(self.builder.srcdir, node["uri"])
    HTML5Translator.visit_image(self, node)
    width, height = map(round, imagesize.get(path))
    late = 'fetchpriority="high"' if "cover" in node["classes"] else 'loading="lazy"'
    size = f'<img width="{width}" height="{height}" {late} '
    self.body[-1] = self.body[-1].replace("<img ", size, 1)


def visit_citation(self, node):
    """Write an entry of the references in a role that its element may have."""
    HTML5Translator.visit_citation(self, node)
    self.body[-1] = self.body[-1].replace("doc-biblioentry", "listitem")


def finish_site(app, exception):
    """Wait for the makers, and put the student's editions where the pages link to."""
    problems = [maker.communicate()[1].strip() for maker in getattr(app, "makers", ())]
    if app.builder.name != "html" or exception:
        return
    for maker, problem in zip(app.makers, problems):
        if maker.returncode:
            raise ExtensionError(f"{Path(maker.args[1]).name}: {problem}")
    for book in EBOOKS.glob("*.*"):
        copyfile(book, Path(app.outdir, book.name))
    for page in Path(app.outdir, "_sources/book/exercises").glob("*.ipynb"):
        copyfile(app.course / "release" / page.stem / page.name, page)
