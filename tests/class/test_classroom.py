"""The class editions, and the grading of real submissions by nbgrader."""

import copy
import csv
import shutil
import subprocess
import sys

import classroom
import nbformat
import pytest
from test_exercises import exercises, grader, with_answer
from wrong_answers import WRONG

from notebooks import EXERCISES

NAMES = [path.stem for path in EXERCISES]
VARIANTS = ["solution", "empty", "wrong", "wrong-too"]

each_name = pytest.mark.parametrize("name", NAMES)
# nbgrader starts a kernel for each notebook; one chapter stands for all.
each_name_or_one = pytest.mark.parametrize(
    "name",
    [
        NAMES[2],
        *(pytest.param(n, marks=pytest.mark.slow) for n in NAMES if n != NAMES[2]),
    ],
)


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A course as `make class` makes it."""
    folder = tmp_path_factory.mktemp("a class") / "course"
    classroom.make_course(folder)
    return folder


def edition(course, which, name):
    path = course / which / name / f"{name}.ipynb"
    return nbformat.read(path, as_version=4)


def cell_of(notebook, grade_id):
    (found,) = [c for c in notebook.cells if grader(c).get("grade_id") == grade_id]
    return found


def hand_in(folder, student, notebook, filename):
    (folder / student).mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, folder / student / filename)


def graded(course, submissions, timeout):
    """The rows of marks.csv, by student and notebook, after grading as a user does."""
    command = [sys.executable, classroom.__file__, "grade", course, submissions]
    done = subprocess.run(
        [*command, "--timeout", str(timeout)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "runs the students' code on this machine" in done.stderr
    with (course / "marks.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {(row["student"], row["notebook"] or row["file"]): row for row in rows}


def answered(course, name, which):
    """A submission: the student's edition with answers, right or wrong, filled in."""
    notebook = edition(course, "release", name)
    path = EXERCISES[NAMES.index(name)]
    for grade_id, (solution, _) in exercises(path).items():
        if which == "solution":
            answer = "".join(solution["source"])
        else:
            wrong = WRONG[grade_id][VARIANTS.index(which) - 2]
            answer = with_answer(
                solution, *([wrong] if isinstance(wrong, str) else wrong)
            )
        cell_of(notebook, grade_id).source = answer
    # The open exercise is not graded: what it runs takes the test's time only.
    last = max(i for i, c in enumerate(notebook.cells) if grader(c).get("grade"))
    notebook.cells = [
        c for i, c in enumerate(notebook.cells) if i <= last or c.cell_type != "code"
    ]
    return notebook


# ---------------------------------------------------------------- the editions


@each_name
def test_students_edition_has_no_solution_and_no_hidden_check(course, name):
    notebook = edition(course, "release", name)
    text = "\n".join(cell.source for cell in notebook.cells)
    assert "SOLUTION" not in text and "HIDDEN" not in text
    for grade_id, (solution, check) in exercises(EXERCISES[NAMES.index(name)]).items():
        lines = "".join(solution["source"]).split("### BEGIN SOLUTION\n")[1]
        assert lines.split("### END SOLUTION")[0] not in text
        assert "NotImplementedError" in cell_of(notebook, grade_id).source
        visible = "".join(check["source"]).split("### BEGIN HIDDEN TESTS")[0]
        assert cell_of(notebook, f"{grade_id}-check").source.startswith(visible)


@each_name
def test_students_edition_opens_unfolded_and_sets_itself_up(course, name):
    notebook = edition(course, "release", name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "git" in code[0].source and grader(code[0])["locked"]
    assert not any(cell.metadata.get("tags") or cell.outputs for cell in code)
    assert not any("jupyter" in cell.metadata for cell in code)


@each_name
def test_instructors_edition_has_all_and_the_settings_are_kept(course, name):
    source = edition(course, "source", name)
    original = nbformat.read(EXERCISES[NAMES.index(name)], as_version=4)
    assert [c.source for c in source.cells] == [c.source for c in original.cells]


def test_course_that_exists_keeps_its_settings(course, tmp_path):
    again = tmp_path / "course"
    shutil.copytree(course, again)
    config = again / "nbgrader_config.py"
    config.write_text(config.read_text("utf-8") + "# mine\n", "utf-8")
    classroom.make_course(again)
    assert config.read_text("utf-8").endswith("# mine\n")
    assert classroom.open_course(again).config.Execute.timeout == 120
    assert classroom.open_course(again, timeout=7).config.Execute.timeout == 7


# ---------------------------------------------------------------- a class


@pytest.fixture(scope="module")
def class_marks(course, tmp_path_factory):
    """A function that grades a notebook of four students and returns their marks."""
    done = {}

    def marks(name):
        if name not in done:
            place = tmp_path_factory.mktemp("handed in")
            for which in VARIANTS:
                notebook = (
                    edition(course, "release", name)
                    if which == "empty"
                    else answered(course, name, which)
                )
                hand_in(place, which, notebook, f"{name}.ipynb")
            done[name] = graded(course, place, timeout=120)
        return done[name]

    return marks


@each_name_or_one
def test_solution_gets_full_marks_and_the_empty_edition_none(class_marks, name):
    of = sum(c["metadata"]["nbgrader"]["points"] for _, c in pairs(name))
    for which, points in (("solution", of), ("empty", 0)):
        row = class_marks(name)[which, name]
        assert (float(row["points"]), float(row["of"])) == (points, of), row
        assert not row["remark"]


def pairs(name):
    return exercises(EXERCISES[NAMES.index(name)]).values()


@each_name_or_one
@pytest.mark.parametrize("which", ["wrong", "wrong-too"])
def test_wrong_answer_is_caught_by_the_check_of_its_exercise(class_marks, name, which):
    row = class_marks(name)[which, name]
    for number in range(1, len(pairs(name)) + 1):
        assert float(row[f"exercise {number}"]) == 0, (number, row)


def test_feedback_shows_what_was_wrong(course, class_marks):
    name = NAMES[2]
    assert class_marks(name)
    page = course / "feedback" / "wrong" / name / f"{name}.html"
    assert "AssertionError" in page.read_text("utf-8")


# ---------------------------------------------------------------- what goes wrong


def edited(grade_id, text):
    def edit(notebook):
        cell_of(notebook, grade_id).source = text

    return edit


def delete_cells(notebook):
    gone = ("setup", "ex-3-1-check", "ex-3-3", "ex-3-3-check")
    notebook.cells = [
        c for c in notebook.cells if grader(c).get("grade_id") not in gone
    ]


def cheat(notebook):
    edited("ex-3-1", "def two_paths(x, y):\n    return 0, 0\n")(notebook)
    edited("ex-3-1-check", 'print("Exercise 3.1 is right.")')(notebook)
    cell_of(notebook, "ex-3-1-check").metadata["nbgrader"]["points"] = 100


def as_colab_saves(notebook):
    notebook.nbformat_minor = 0
    notebook.metadata = {"colab": {"provenance": []}, "kernelspec": {"name": "python3"}}
    for cell in notebook.cells:
        cell.metadata["id"] = cell.pop("id")
    delete_cells(notebook)


SLOW = ("loop", "colab")  # the time that a cell gets, and one kernel more
ODD = {
    "loop": edited("ex-3-1", "def two_paths(x, y):\n    while True:\n        pass\n"),
    "crash": edited("ex-3-2", "import os\n\nos._exit(3)"),
    "deleted": delete_cells,
    "cheat": cheat,
    "colab": as_colab_saves,
    "anew": lambda notebook: [c.metadata.clear() for c in notebook.cells],
    "zero": lambda notebook: None,  # the last by name: graded after all the others
}


@pytest.fixture(scope="module")
def odd_marks(request, course, tmp_path_factory):
    """Marks of students whose notebooks are in some way broken, but for the last."""
    folder = tmp_path_factory.mktemp("odd")
    name = NAMES[2]
    solution = answered(course, name, "solution")
    everything = "not slow" not in request.config.option.markexpr
    for student, edit in ODD.items():
        if student in SLOW and not everything:
            continue
        notebook = copy.deepcopy(solution)
        edit(notebook)
        (folder / student).mkdir()
        text = nbformat.writes(notebook)
        path = folder / student / f"Copy of {name} (1).ipynb"
        path.write_text(text, "utf-8")
    for filename in (f"{name}.ipynb", "essay.docx"):
        (folder / "text").mkdir(exist_ok=True)
        (folder / "text" / filename).write_text("my answers", "utf-8")
    shutil.copytree(folder / "zero", folder / "twice")
    hand_in(folder, "twice", solution, f"{name}.ipynb")
    return graded(course, folder, timeout=25)


@pytest.mark.parametrize(
    ("student", "points"),
    [
        pytest.param("loop", [0, 2, 2, 3], marks=pytest.mark.slow),
        ("deleted", [1, 2, 0, 3]),
        ("cheat", [0, 2, 2, 3]),
        pytest.param("colab", [1, 2, 0, 3], marks=pytest.mark.slow),
        ("zero", [1, 2, 2, 3]),
    ],
)
def test_odd_submission_is_graded(odd_marks, student, points):
    row = odd_marks[student, NAMES[2]]
    found = [float(row[f"exercise {n}"] or -1) for n in range(1, 5)]
    assert found == points, row
    assert (float(row["points"]), float(row["of"])) == (sum(points), 8)


@pytest.mark.parametrize(
    ("student", "file", "remark"),
    [
        ("crash", NAMES[2], "its code ended Python"),
        ("anew", NAMES[2], "has no cell of the exercises"),
        ("text", NAMES[2], "it is no notebook"),
        ("text", "essay.docx", "is none of the exercise notebooks"),
        ("twice", NAMES[2], "handed in twice"),
    ],
)
def test_what_cannot_be_graded_is_reported(odd_marks, student, file, remark):
    row = odd_marks[student, file]
    assert remark in row["remark"] and not row["points"]


def test_grading_without_submissions_says_what_is_needed(course, tmp_path):
    with pytest.raises(FileNotFoundError, match="a folder for each student"):
        classroom.grade(course, tmp_path)
    done = subprocess.run(
        ["make", "grade"], cwd=classroom.BOOK.parent, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "make grade SUBMISSIONS=folder" in done.stdout + done.stderr
