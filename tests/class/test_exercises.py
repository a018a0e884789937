"""The exercises: solutions pass their checks, stubs and wrong answers do not."""

import ast
import os
import re
import textwrap

import pytest
from wrong_answers import WRONG

from notebooks import BOOK, CHAPTERS, EXERCISES, code, prose, read, source

SOLUTION = re.compile(
    r"^( *)### BEGIN SOLUTION\n.*?^ *### END SOLUTION\n?", flags=re.M | re.S
)
STUB = "raise NotImplementedError()"  # what nbgrader leaves in place of a solution

each_notebook = pytest.mark.parametrize("path", EXERCISES, ids=lambda path: path.stem)


def grader(cell):
    return cell["metadata"].get("nbgrader", {})


def exercises(path):
    """The solution cell and the check cell of each exercise, by name."""
    cells = {grader(c)["grade_id"]: c for c in code(path) if grader(c)}
    names = [name for name in cells if not name.endswith("-check")]
    return {name: (cells[name], cells[f"{name}-check"]) for name in names}


def with_answer(cell, *parts):
    """The source of a solution cell with other lines between its markers."""
    left = [textwrap.dedent(part).strip("\n") + "\n" for part in parts]
    text = SOLUTION.sub(lambda m: textwrap.indent(left.pop(0), m[1]), source(cell))
    assert left == []
    return text


def problem_with(text, check, names):
    """What the check raises for this answer, run on a copy of the names so far."""
    names = dict(names)
    try:
        exec(text, names)
        exec(source(check), names)
    except Exception as problem:  # a check may fail in any way, so long as it fails
        return problem
    return None


def trials(path):
    """For each exercise, its answers beside what its check says to them.

    The stub is the first; code that a prompt shows, with mistakes in it, is the last.
    """
    found, names, prompt = {}, {}, ""
    for cell in read(path):
        if cell["cell_type"] == "markdown":
            prompt = source(cell)
            continue
        name = grader(cell).get("grade_id")
        if name in exercises(path):  # a solution: first try the answers that are none
            solution, check = exercises(path)[name]
            stub = (STUB,) * len(SOLUTION.findall(source(solution)))
            wrong = [a if isinstance(a, tuple) else (a,) for a in WRONG[name]]
            texts = [with_answer(solution, *answer) for answer in (stub, *wrong)]
            texts += re.findall(r"```python\n(.*?)```", prompt, flags=re.S)
            found[name] = [(text, problem_with(text, check, names)) for text in texts]
        exec(source(cell), names)  # raises where a solution fails its check
    return found


@pytest.fixture(scope="module")
def in_exercises():
    started = os.getcwd()
    os.chdir(BOOK / "exercises")
    yield
    os.chdir(started)


@pytest.mark.filterwarnings("ignore")  # a wrong answer may well divide by zero
@each_notebook
def test_checks_pass_solutions_and_fail_stubs_and_wrong_answers(path, in_exercises):
    found = trials(path)
    assert len(found) >= 3
    for name, ((_, of_stub), *others) in found.items():
        assert isinstance(of_stub, NotImplementedError), (name, of_stub)
        assert len(others) >= 2, name
        for answer, problem in others:
            expected = AssertionError, FloatingPointError
            assert isinstance(problem, expected), (name, answer, problem)


@each_notebook
def test_nothing_of_a_solution_is_left_in_its_stub(path):
    for name, (cell, _) in exercises(path).items():
        holes = source(cell).count("### BEGIN SOLUTION")
        stub = ast.parse(with_answer(cell, *[STUB] * holes))
        for node in ast.walk(stub):
            if isinstance(node, ast.FunctionDef) and node.name != "__init__":
                assert [type(line) for line in node.body] == [ast.Raise], name


def test_every_wrong_answer_belongs_to_an_exercise():
    names = [name for path in EXERCISES for name in exercises(path)]
    assert sorted(names) == sorted(WRONG)


@each_notebook
def test_exercises_are_marked_for_nbgrader(path):
    for name, (cell, check) in exercises(path).items():
        assert re.fullmatch(rf"ex-{int(path.stem[:2])}-\d", name)
        assert grader(cell)["solution"] and not grader(cell)["grade"]
        assert grader(check)["grade"] and grader(check)["locked"]
        assert grader(check)["points"] >= 1
        number = name.removeprefix("ex-").replace("-", ".")
        visible, hidden, last = re.fullmatch(
            r"(.*)### BEGIN HIDDEN TESTS\n(.*)### END HIDDEN TESTS\n(.*)",
            source(check),
            flags=re.S,
        ).groups()
        assert "assert " in visible and "assert " in hidden
        assert last == f'print("Exercise {number} is right.")'
        assert cell["metadata"]["jupyter"] == {"source_hidden": True}
        assert cell["metadata"]["tags"] == ["hide-input"]  # folded on the site


@each_notebook
def test_exercises_have_the_parts_of_exercises(path):
    text = "\n".join(prose(path))
    number = int(path.stem[:2])
    assert text.startswith(f"# Exercises for chapter {number}\n")
    found = re.findall(rf"^## {number}\.(\d) .*\((\d+) minutes\)$", text, flags=re.M)
    assert [int(n) for n, _ in found] == [*range(1, len(found) + 1)]
    assert 3 <= len(exercises(path)) <= 5 and len(found) == len(exercises(path)) + 1
    assert "Predict first" in text and "What a good answer contains" in text
    assert "mistake" in text


@each_notebook
def test_quiz_has_five_questions_and_says_why_each_wrong_answer_is_wrong(path):
    (quiz,) = [text for text in prose(path) if text.startswith("## Five questions")]
    questions = re.split(r"^\*\*Question \d\.\*\* ", quiz, flags=re.M)[1:]
    assert len(questions) == 5
    right = []
    for number, question in enumerate(questions, 1):
        fold = f"\n\n<details><summary>Answer {number}</summary>\n\n"
        asked, _, answer = question.partition(fold)
        assert answer.rstrip().endswith("\n\n</details>")
        choices = re.findall(r"^- \((\w)\) ", asked, flags=re.M)
        assert choices == list("abcd")[: len(choices)] and len(choices) >= 3
        right += re.match(r"\*\*\((\w)\)\.\*\* ", answer).groups()
        for choice in choices:
            assert f"({choice})" in answer, (number, choice)
    assert len(set(right)) >= 3


@each_notebook
def test_chapter_and_exercises_point_at_each_other(path):
    assert f"(../{path.name})" in prose(path)[0]
    (chapter,) = [other for other in CHAPTERS if other.name == path.name]
    assert f"(exercises/{path.name})" in "\n".join(prose(chapter))
    contents = (BOOK.parent / "_toc.yml").read_text("utf-8")
    place = f"file: book/{path.stem}\n"
    inside = f"{place}        sections:\n          - file: book/exercises/{path.stem}\n"
    assert inside in contents
