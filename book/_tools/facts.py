"""Write what the book says of its chapters and records wherever it is said.

    python book/_tools/facts.py

A chapter's facts are in its notebook's metadata (`book`), a run's in its record and in
the plan. From there come the cards of the landing page, the tables of the README, of
the teaching guide and of the records' card, and the costs in the chapters' openings.
`make outputs` calls this last.
"""

import json
import re
import sys
from pathlib import Path

import yaml

BOOK = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(BOOK))

from support.files import RESULTS, write_whole  # noqa: E402
from support.plan import command_of, read_plan  # noqa: E402

CHAPTERS = sorted(BOOK.glob("[0-9][0-9]_*.ipynb"))
BLOCK = "<!-- generated: {} -->\n"
END = "<!-- end of generated -->"


def main() -> None:
    """Bring all files up to date and name those that were not."""
    for path in refresh():
        print(f"{path.relative_to(BOOK.parent)}: brought up to date")


def refresh() -> list[Path]:
    """Write the files that are stale; return their paths."""
    written = []
    for path, text in up_to_date().items():
        if path.read_text("utf-8") != text:
            write_whole(path, lambda part, text=text: part.write_text(text, "utf-8"))
            written.append(path)
    return written


def up_to_date() -> dict[Path, str]:
    """Return all files with generated parts, as they should be."""
    chapters = [read_chapter(path) for path in CHAPTERS]
    files = {chapter["path"]: with_costs(chapter) for chapter in chapters}
    for name, blocks in {
        "../README.md": {"chapters": readme_table(chapters)},
        "index.md": {"cards": cards(chapters)},
        "appendix/teaching.md": {"times": teaching_table(chapters)},
        "results/README.md": {
            "networks": table_of_networks(),
            "finetune": table_of_finetune(),
            "numpy": table_of_numpy(),
            "ablations": table_of_ablations(),
            "speed": table_of_speed(),
        },
    }.items():
        path = (BOOK / name).resolve()
        text = path.read_text("utf-8")
        for block, content in blocks.items():
            text = with_block(text, block, content, path)
        files[path] = text
    return files


def with_block(text: str, name: str, content: str, path: Path) -> str:
    """Return `text` with a generated block filled; ValueError if it has none."""
    before, start, rest = text.partition(BLOCK.format(name))
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"{path} has no block {name!r}: {BLOCK.format(name)}…{END}")
    return f"{before}{start}\n{content.strip()}\n\n{end}{after}"


# ---------------------------------------------------------------- chapters


def read_chapter(path: Path) -> dict:
    """Return a chapter's facts: those of its metadata, and those that are counted."""
    notebook = json.loads(path.read_text("utf-8"))
    title = "".join(notebook["cells"][0]["source"]).splitlines()[0].removeprefix("# ")
    minutes, points = exercise_facts(BOOK / "exercises" / path.name)
    return notebook["metadata"]["book"] | {
        "path": path,
        "number": int(path.stem[:2]),
        "title": title,
        "name": title.partition(" ")[2],
        "minutes": reading_minutes(notebook["cells"]),
        "exercise_minutes": minutes,
        "points": points,
    }


def exercise_facts(path: Path) -> tuple[int, int]:
    """Return the minutes and points of a notebook of exercises."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    headings = "\n".join("".join(c["source"]) for c in cells)
    minutes = re.findall(r"^## .*\((\d+) minutes\)$", headings, flags=re.M)
    grades = [cell["metadata"].get("nbgrader", {}) for cell in cells]
    return sum(map(int, minutes)), sum(grade.get("points", 0) for grade in grades)


def reading_minutes(cells: list[dict]) -> int:
    """Minutes for 130 words of prose or 10 lines of code each, rounded to five."""
    words = lines = 0
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            words += len(re.findall(r"\w+", text))
        elif cell["cell_type"] == "code":
            lines += len(text.splitlines())
    return 5 * round((words / 130 + lines / 10) / 5)


def with_costs(chapter: dict) -> str:
    """Return a chapter's notebook with today's costs in its opening."""
    text = chapter["path"].read_text("utf-8")
    costs = (
        (r"(\*\*Cost\.\*\* About )\d+( minutes to read)", chapter["minutes"]),
        (r"(> (?:Reduced mode: )?)\d+( seconds on two CPU cores)", chapter["seconds"]),
    )
    for pattern, number in costs:
        text, found = re.subn(pattern, rf"\g<1>{number}\g<2>", text, count=1)
        if not found:
            raise ValueError(f"{chapter['path'].name} says nowhere {pattern}")
    return text


def cards(chapters: list[dict]) -> str:
    """Return the landing page's cards, by the parts of the contents."""
    contents = yaml.safe_load((BOOK.parent / "_toc.yml").read_text("utf-8"))
    by_file = {f"book/{c['path'].stem}": c for c in chapters}
    lines = []
    for part in contents["parts"]:
        inside = [by_file[p["file"]] for p in part["chapters"] if p["file"] in by_file]
        if not inside:
            continue
        lines += [f"### {part['caption']}", "", "::::{grid} 1 1 2 2", ":gutter: 3", ""]
        for chapter in inside:
            does = chapter["does"]
            lines += [
                f":::{{grid-item-card}} {chapter['title']}",
                f":link: {chapter['path'].stem}",
                ":link-type: doc",
                f"{does[0].upper()}{does[1:]}.",
                "",
                "```{card-footer}",
                f"{chapter['minutes']} min · runs in {chapter['seconds']} s · "
                f"{chapter['after']}",
                "```",
                ":::",
                "",
            ]
        lines[-1:] = ["::::", ""]
    return "\n".join(lines)


def readme_table(chapters: list[dict]) -> str:
    """Return the README's table of chapters."""
    lines = [
        "| | chapter | you do | two cores, sample | recorded, all of CIFAR-10 |",
        "| --- | --- | --- | --- | --- |",
    ]
    for c in chapters:
        here = f"{c['seconds']} s" + (f": {c['here']}" if c["here"] else "")
        link = f"[{c['name']}](book/{c['path'].name})"
        recorded = with_records(c["recorded"])
        lines.append(f"| {c['number']} | {link} | {c['does']} | {here} | {recorded} |")
    return "\n".join(lines)


def teaching_table(chapters: list[dict]) -> str:
    """Return the teaching guide's table of times and points."""
    lines = [
        "| no. | chapter | to read | runs in | in full mode | exercises | points |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for c in chapters:
        lines.append(
            f"| {c['number']} | [{c['name']}](../{c['path'].name}) "
            f"| {c['minutes']} min | {c['seconds']} s | {c['full']} "
            f"| {c['exercise_minutes']} min | {c['points']} |"
        )
    return "\n".join(lines)


# ---------------------------------------------------------------- records


def read(name: str) -> dict:
    """Return a record."""
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def percent(found: float | dict) -> str:
    """Write an accuracy, or the summary of several, as the book does."""
    if isinstance(found, dict):
        spread = f" ± {percent(found['sd'])}" if "sd" in found else ""
        return percent(found["mean"]) + spread
    return f"{found:.2%}".replace("%", " %")


def with_records(text: str) -> str:
    """Fill in what stands in braces: {record/field/field} becomes an accuracy."""

    def value(match: re.Match) -> str:
        name, *fields = match[1].split("/")
        found = read(name)
        for field in fields:
            found = found[field]
        return percent(found)

    return re.sub(r"\{([^}]+)\}", value, text)


def table_of_networks() -> str:
    """Return the card's table of single runs, in the order of the plan."""
    lines = [
        "| record | typed in `book/` | trained on | epochs | test accuracy | commit |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, entry in read_plan().items():
        record = read(name)
        if "history" not in record:
            continue
        place = ", on a GPU" if entry.get("on_gpu") else ""
        score = percent(record["test"]["accuracy"])
        if record["test"]["images"] != 10_000:
            score += f" of {record['test']['images']:,}"
        if "six_views" in record:
            score += f"; with six views {percent(record['six_views']['accuracy'])}"
        lines.append(
            f"| `{name}`{place} | `{command_of(name, entry)}` "
            f"| {record['data']['train_images']:,} | {record['recipe']['epochs']} "
            f"| {score} | `{record['machine']['commit']}` |"
        )
    return "\n".join(lines)


def table_of_finetune() -> str:
    """Return the card's table of the ways to carry a network over."""
    record = read("finetune")
    counts = list(record["steps"])
    lines = [
        f"| way | {counts[0]} labelled images a class | {' | '.join(counts[1:])} |",
        "| --- " * (1 + len(counts)) + "|",
    ]
    for way, by_labels in record["test_accuracy"].items():
        scores = [percent(by_labels[n]) if n in by_labels else "" for n in counts]
        lines.append(f"| {way} | {' | '.join(scores)} |")
    return "\n".join(lines)


def table_of_numpy() -> str:
    """Return the card's table of the first chapters' methods."""
    lines = [
        "| record | typed in `book/` | test accuracy | commit |",
        "| --- | --- | --- | --- |",
    ]
    for name in ("mlp", "baselines"):
        record, made_by = read(name), command_of(name, read_plan()[name])
        for method, summary in record["test_accuracy"].items():
            lines.append(
                f"| `{name}`, {method} | `{made_by}` | {percent(summary)} "
                f"| `{record['machine']['commit']}` |"
            )
    return "\n".join(lines)


def table_of_ablations() -> str:
    """Return the card's table of the recipe without one part at a time."""
    lines = ["| variant | test accuracy |", "| --- | --- |"]
    for variant, summary in read("ablations")["test_accuracy"].items():
        lines.append(f"| {variant} | {percent(summary)} |")
    return "\n".join(lines)


def table_of_speed() -> str:
    """Return the card's table of images a second, the best of the rounds."""
    speeds = read("speed")["images_per_second"]
    lines = ["| loop | ResNet-20 | ResNet-18 |", "| --- | --- | --- |"]
    for loop in speeds["resnet20"]:
        best = [f"{max(speeds[n][loop]):,.0f}" for n in ("resnet20", "resnet18")]
        lines.append(f"| {loop} | {' | '.join(best)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
