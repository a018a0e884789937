"""What the tests of the site share: a visit to a page, and its audit."""

import re

import page_weight
from axe_playwright_python.base import AXE_FILE_PATH

SITE = page_weight.SITE
DISK = SITE.as_uri()  # as who unpacked the zip opens it
PAGES = sorted(
    path.relative_to(SITE).as_posix()
    for path in SITE.glob("book/**/*.html")
    if 'http-equiv="refresh"' not in path.read_text("utf-8")  # leads to a page
)
WIDTHS = {"desk": 1280, "phone": 390}

# The last one is the proof that the site needs no other host: no name is ever found.
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


class Visit:
    """One page open in the browser, and what went wrong on the way."""

    def __init__(self, browser, address, width=1280, scheme="light", settle=True):
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        self.context.set_default_timeout(120_000)  # a busy machine may take its time
        self.page = self.context.new_page()
        self.complaints = []
        self.requests = []
        self.finished = page_weight.watch(self.page)
        self.page.on("console", self.on_console)
        self.page.on("pageerror", lambda e: self.complaints.append(f"error: {e}"))
        self.page.on(
            "requestfailed", lambda r: self.complaints.append(f"failed: {r.url}")
        )
        self.page.on("request", lambda r: self.on_request(r, address))
        self.page.on("response", self.on_response)
        self.page.goto(address, wait_until="load")
        if settle:
            self.page.wait_for_load_state("networkidle")

    def on_console(self, message):
        if message.type in ("error", "warning"):
            self.complaints.append(f"console: {message.text}")

    def on_request(self, request, address):
        self.requests.append(request.url)
        home = re.sub(
            r"(book/\d|book/\w+\.|book/ex|book/app|index|search).*", "", address
        )
        if not request.url.startswith((home, "data:", "blob:")):
            self.complaints.append(f"foreign: {request.url}")

    def on_response(self, response):
        if response.status >= 400:
            self.complaints.append(f"{response.status}: {response.url}")


# What axe-core finds, in words. A scheme changes nothing but colours; these depend on
# the kind of element that a text stands in, and one text of each kind is judged in each
# scheme.
AUDIT = """async onlyColours => {
    const colours = ["color-contrast", "link-in-text-block"];
    const kind = e => e ? [kind(e.parentElement), e.tagName, e.className,
        e.getAttribute("style"), e.rowIndex % 2].join(" ")
        : document.documentElement.dataset.theme;
    const judged = window.judged ??= new Set();
    const texts = [];
    for (const e of document.querySelectorAll("body *"))
        if ([...e.childNodes].some(n => n.nodeType == 3 && n.data.trim())
                && e.checkVisibility() && e.getClientRects().length
                && judged.size < judged.add(kind(e)).size)
            texts.push(e);
    const options = {resultTypes: ["violations"], preload: false};
    const found = [];
    if (texts.length)
        found.push(await axe.run({include: texts}, {...options, runOnly: colours}));
    if (!onlyColours) {
        const rules = Object.fromEntries(colours.map(c => [c, {enabled: false}]));
        found.push(await axe.run(document, {...options, rules}));
    }
    return found.flatMap(run => run.violations).flatMap(
        rule => rule.nodes.map(n => `${rule.id}: ${n.target} ${n.html}`));
}"""


def violations(page, only_colours=False):
    """What axe-core finds on a page as it is shown now."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_FILE_PATH.read_text("utf-8"))
    return page.evaluate(AUDIT, only_colours)
