"""The class editions of the exercises, and the grading of what students hand in.

    python book/_tools/classroom.py make COURSE
    python book/_tools/classroom.py grade COURSE SUBMISSIONS [--timeout SECONDS]

A course is a folder in nbgrader's form. All work on notebooks is nbgrader's; here is
what surrounds it: the copies that it starts from, what students' programs do to their
notebooks, and the table of marks.
"""

import argparse
import csv
import os
import re
import shutil
import sys
import warnings
from collections import Counter
from pathlib import Path

import nbformat
from nbformat.warnings import MissingIDFieldWarning
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI
from sqlalchemy.exc import SAWarning
from tqdm import tqdm
from traitlets.config import Config, PyFileConfigLoader

BOOK = Path(__file__).resolve().parent.parent
EXERCISES = sorted((BOOK / "exercises").glob("*.ipynb"))

CONFIG = '''"""The settings of this course for nbgrader; made by `make class`."""

import os

# The notebooks import the book's modules: name their folder here if the book moves.
os.environ["PYTHONPATH"] = {book!r}

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "resnets"
c.CourseDirectory.root = os.path.dirname(os.path.abspath(__file__))
c.Execute.timeout = 120  # seconds for one cell; an endless loop is stopped then
c.Execute.extra_arguments = ["--log-level=ERROR"]
c.ClearSolutions.code_stub = {{"python": "raise NotImplementedError()"}}
c.IncludeHeaderFooter.header = c.IncludeHeaderFooter.footer = ""
'''


def open_course(course, timeout=None):
    """Return nbgrader's interface to a course, with the settings of its file."""
    # nbgrader calls programs of its own environment.
    os.environ["PATH"] = (
        f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    loader = PyFileConfigLoader("nbgrader_config.py", path=str(course))
    config = Config(loader.load_config())
    if timeout:
        config.Execute.timeout = timeout
    return NbGraderAPI(config=config)


# ---------------------------------------------------------------- making the course


def make_course(course):
    """Write the three editions of each exercise notebook into a course folder.

    `source` holds the instructor's, `release` the student's, `gradebook.db` the hidden
    checks and, later, the marks. A course that exists is brought up to date.

    Raises:
        RuntimeError: if nbgrader refuses a notebook.
    """
    course.mkdir(parents=True, exist_ok=True)
    config = course / "nbgrader_config.py"
    if not config.exists():  # it may hold the instructor's settings
        config.write_text(CONFIG.format(book=str(BOOK)), "utf-8")
    for path in EXERCISES:
        folder = course / "source" / path.stem
        folder.mkdir(parents=True, exist_ok=True)
        nbformat.write(as_source(nbformat.read(path, as_version=4)), folder / path.name)
    api = open_course(course)
    for path in tqdm(EXERCISES, "student's editions", disable=None):
        result = api.generate_assignment(path.stem)
        if not result["success"]:
            raise RuntimeError(f"nbgrader refuses {path.name}:\n{result['log']}")


def as_source(notebook):
    """Return an exercise notebook as nbgrader's source, with nothing folded.

    The code before the first exercise is locked: as the checks are, it is restored when
    a submission is graded, since without the imports no check runs.
    """
    started = False
    for cell in notebook.cells:
        cell.metadata.pop("jupyter", None)
        cell.metadata.pop("tags", None)
        started = started or "nbgrader" in cell.metadata
        if cell.cell_type == "code" and not started:
            cell.metadata["nbgrader"] = {
                "cell_type": "code",
                "grade": False,
                "grade_id": cell.id,
                "locked": True,
                "schema_version": 3,
                "solution": False,
                "task": False,
            }
    return notebook


# ---------------------------------------------------------------- grading


def grade(course, submissions, timeout=None):
    """Grade a folder of submissions; return one row of marks for each notebook.

    Each student has a folder in it, and in that the notebooks, named as they were
    handed out (what programs add to a name, as in "Copy of 01_introduction (1).ipynb",
    does no harm). Marks are written to `marks.csv` and feedback to `feedback`, both in
    the course. What cannot be graded has a remark in place of points, and stops nobody.

    Args:
        course: folder made by `make_course`.
        submissions: folder of one folder a student.
        timeout: seconds for one cell; that of the course's settings if None.

    Raises:
        FileNotFoundError: if the submissions hold no file in a student's folder.
    """
    files = [
        (folder.name, path)
        for folder in sorted(submissions.iterdir() if submissions.is_dir() else [])
        if folder.is_dir()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.parts)
    ]
    if not files:
        raise FileNotFoundError(
            f"{submissions} holds no submission: it needs a folder for each student, "
            "with her notebooks in it"
        )
    for harmless in (SAWarning, MissingIDFieldWarning):  # of nbgrader and nbformat
        warnings.simplefilter("ignore", harmless)
    api, rows, seen = open_course(course, timeout), [], Counter()
    for student, path in tqdm(files, "grading", disable=None):
        row = {"student": student, "file": path.name}
        rows.append(row)
        try:
            row["notebook"] = name = recognise(course, path)
            seen[student, name] += 1
            if seen[student, name] > 1:
                raise ValueError("handed in twice: only the first was graded")
            safe = re.sub(
                r"[^\w .,@+-]", "_", student
            )  # nbgrader takes [ for a pattern
            submit(course, safe, name, path)
            result = api.autograde(name, safe)
            if not result["success"]:
                raise ValueError(explain(result["log"]))
            row |= marks(api, name, safe)
            api.generate_feedback(name, safe)
        except ValueError as problem:
            row["remark"] = str(problem)
        except Exception as problem:  # anything may be in a file, and nobody waits
            row["remark"] = f"could not be graded: {problem!r}"
    write_marks(course / "marks.csv", rows)
    return rows


def recognise(course, path):
    """Return the name of the exercise notebook that a file was made from."""
    names = [p.name for p in (course / "release").iterdir() if p.name in path.name]
    if path.suffix != ".ipynb" or len(names) != 1:
        raise ValueError("is none of the exercise notebooks, by its name")
    return names[0]


def submit(course, student, name, path):
    """Put a submitted notebook where nbgrader looks, with what students' programs lose.

    Old formats of notebooks are brought up to date, and a cell of an exercise that was
    deleted comes back as it was handed out.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
        _, notebook = nbformat.validator.normalize(notebook)
    except Exception as problem:  # anything may be in a file
        raise ValueError("cannot be read: it is no notebook") from problem
    present = set(ids(notebook))
    if present <= {None}:
        raise ValueError("has no cell of the exercises: was it written anew?")
    handed_out = nbformat.read(
        course / "release" / name / f"{name}.ipynb", as_version=4
    )
    notebook.metadata = handed_out.metadata  # other programs name other kernels
    before = None
    for cell in handed_out.cells:
        own = cell.metadata.get("nbgrader", {}).get("grade_id")
        if own and own not in present:
            at = ids(notebook).index(before) + 1 if before else 0
            notebook.cells.insert(at, cell)
        before = own or before
    folder = course / "submitted" / student / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / f"{name}.ipynb")


def ids(notebook):
    """Return nbgrader's name of each cell, None for cells that it does not know."""
    return [c.metadata.get("nbgrader", {}).get("grade_id") for c in notebook.cells]


def explain(text):
    """Return in one sentence why nbgrader could not grade a submission."""
    if "DeadKernelError" in text or "Kernel died" in text:
        return "could not be graded: its code ended Python, or took all memory"
    errors = re.findall(r"^ *([\w.]*(?:Error|Exception)\b.*)", text, flags=re.M)
    return (
        f"could not be graded: {errors[-1] if errors else 'nbgrader gives no reason'}"
    )


def marks(api, name, student):
    """Return the points of one submission, in all and for each exercise."""
    with Gradebook(api.coursedir.db_url) as gradebook:
        (notebook,) = gradebook.find_submission(name, student).notebooks
        grades = sorted(notebook.grades, key=lambda grade: grade.name)
        each = {f"exercise {g.name.split('-')[2]}": g.score for g in grades}
        return {"points": notebook.score, "of": notebook.max_score, **each}


def write_marks(path, rows):
    """Write the table of marks."""
    numbers = sorted({key for row in rows for key in row if key.startswith("exercise")})
    names = ["student", "notebook", "points", "of", *numbers, "file", "remark"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


WARNING = """\
Grading runs the students' code on this machine, as you: it can read your files, use the
network and change the gradebook. Contain it: the chapter "Teaching with this book" says
how, with a container that has no network and can write nothing but the course.
"""


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("action", choices=["make", "grade"])
    parser.add_argument("course", type=Path)
    parser.add_argument("submissions", type=Path, nargs="?")
    parser.add_argument("--timeout", type=int, help="seconds for one cell")
    args = parser.parse_args()
    if args.action == "make":
        make_course(args.course.resolve())
        print(f"The course lies in {args.course}: release/ is for the students")
        return
    if args.submissions is None:
        parser.error("name the folder of submissions: make grade SUBMISSIONS=folder")
    print(WARNING, file=sys.stderr)
    try:
        rows = grade(args.course.resolve(), args.submissions.resolve(), args.timeout)
    except FileNotFoundError as problem:
        parser.error(str(problem))
    for row in rows:
        said = row.get("remark") or f"{row['points']:g} of {row['of']:g} points"
        print(f"{row['student']}: {row['file']}: {said}")
    print(
        f"Marks are in {args.course / 'marks.csv'}, feedback in {args.course}/feedback"
    )


if __name__ == "__main__":
    main()
