"""Reading the book's notebooks, for the tests that look at their form."""

import json
import re
from pathlib import Path

BOOK = Path(__file__).resolve().parent.parent / "book"
CHAPTERS = sorted(BOOK.glob("[0-9][0-9]_*.ipynb"))
EXERCISES = sorted(BOOK.glob("exercises/*.ipynb"))
APPENDICES = sorted(BOOK.glob("appendix/*.ipynb"))
PAGES = [BOOK / "index.md", *sorted(BOOK.glob("appendix/*.md"))]
MODULES = [  # helpers, taught.scratch, …
    ".".join(path.relative_to(BOOK).with_suffix("").parts)
    for folder in ("", "taught", "support", "runs")
    for path in sorted((BOOK / folder).glob("[a-z]*.py"))
]


def read(path):
    return json.loads(path.read_text("utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def tags(cell):
    return cell["metadata"].get("tags", [])


def code(path):
    return [cell for cell in read(path) if cell["cell_type"] == "code"]


def prose(path):
    return [source(cell) for cell in read(path) if cell["cell_type"] == "markdown"]


def printed(cell):
    """What a cell shows as text."""
    parts = []
    for output in cell.get("outputs", []):
        parts.append("".join(output.get("text", "")))
        parts.append("".join(output.get("data", {}).get("text/plain", "")))
    return "\n".join(parts)


PICTURES = {"image/png", "image/svg+xml"}


def pictures(cell):
    return [o for o in cell.get("outputs", []) if PICTURES & o.get("data", {}).keys()]


LITERAL = re.compile(r"```.*?```|\$\$.*?\$\$|`[^`\n]*`|\$[^$\n]*\$|\]\([^)]*\)", re.S)
END = re.compile(r"(?<!et al)[.!?][)*\]\"”]* +(?=[A-Z\[(*\"“])")


def crowded(text):
    """The lines of Markdown that hold more than one sentence, but tables and HTML."""
    for line in LITERAL.sub("x", text).splitlines():
        line = re.sub(r"^[> ]*(?:(?:[-*]|\d+\.) +)?(?:\*\*[^*]*\*\* +)?", "", line)
        plain = re.sub(r"\*[^*]*\*", "X", re.sub(r"\([^()]*\)", "x", line))
        if not line.startswith(("|", "<", "#", "!", ":::")) and END.search(plain):
            yield line


NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?: ?%| points?)?")


def claims(text):
    """The numbers in prose that state a finding: with a decimal, a comma, or a unit."""
    text = re.sub(r"\$\$.*?\$\$|```.*?```|`[^`]*`|\$[^$]*\$", " ", text, flags=re.S)
    for line in text.splitlines():
        if line.startswith("#") or "references.md" in line:
            continue  # headings are numbered; a cited line rests on its source
        line = re.sub(r"\]\([^)]*\)", "]", line)
        line = re.sub(r"^\d+\. |[Ss]ection \d+\.\d+|\(\d+\.\d+\)", "", line)
        for match in NUMBER.finditer(line):
            token = match.group()
            if re.search(r"[.,%]|point", token):
                yield re.sub(r"[,% a-z]", "", token)


def numbers_in(record):
    """All numbers of a record, at any depth, but of its history only the last epoch."""
    if isinstance(record, dict):
        last = {"history": record.get("history", [])[-1:]}
        record = list((record | last).values())
    if isinstance(record, list):
        return [number for entry in record for number in numbers_in(entry)]
    return [record] if isinstance(record, (int, float)) else []


def supported(token, text, recorded):
    """Whether a number stands in `text`, or is a record's number, rounded or in %."""
    plain = text.replace(",", "").replace("_", "")
    if re.search(rf"(?<![\d.]){re.escape(token)}(?!\d|\.\d)", plain):
        return True
    digits = len(token.partition(".")[2])
    return any(
        round(number * scale, digits) == float(token)
        for number in recorded
        for scale in (1, 100, 1 / 60)
    )
