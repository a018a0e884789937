"""What a chapter shows and a module keeps is the same code, and is documented."""

import ast
import importlib
import re

import pytest

from notebooks import BOOK, CHAPTERS, MODULES, code, source


def text_of(module):
    return (BOOK / f"{module.replace('.', '/')}.py").read_text("utf-8")


def definitions(text):
    """The functions and classes at the top of a source text, by name."""
    tree = ast.parse(text)
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name: node for node in tree.body if isinstance(node, kinds)}


def bare(node):
    """The syntax tree without docstrings and annotations, which lessons leave out."""
    for inner in ast.walk(node):
        kinds = (ast.FunctionDef, ast.ClassDef)
        if isinstance(inner, kinds) and ast.get_docstring(inner):
            del inner.body[0]
        if isinstance(inner, ast.FunctionDef):
            inner.returns = None
        if isinstance(inner, ast.arg):
            inner.annotation = None
    return ast.dump(node)


def taught(module):
    """The definitions of a module whose docstring names a chapter, with its number."""
    for name, node in definitions(text_of(module)).items():
        found = re.search(r"Taught in chapter (\d+)\.", ast.get_docstring(node) or "")
        if found:
            yield name, node, int(found.group(1))


LESSONS = [lesson for module in MODULES for lesson in taught(module)]


def test_the_lessons_are_found():
    assert {"augment", "train_epoch", "evaluate"} <= {name for name, _, _ in LESSONS}


@pytest.mark.parametrize("name, node, chapter", LESSONS, ids=[x[0] for x in LESSONS])
def test_lesson_and_library_are_the_same_code(name, node, chapter):
    paths = [path for path in CHAPTERS if path.stem.startswith(f"{chapter:02}_")]
    assert paths, f"chapter {chapter} does not exist"
    shown = definitions("\n".join(source(cell) for cell in code(paths[0])))
    assert name in shown, f"chapter {chapter} does not show {name}"
    assert bare(shown[name]) == bare(node)


def test_a_drifted_lesson_is_found():
    kept = 'def f(x: int) -> int:\n    """Add one."""\n    return x + 1'
    same, drifted = "def f(x):\n    return x + 1", "def f(x):\n    return x - 1"
    (one, two, three) = (bare(definitions(t)["f"]) for t in (kept, same, drifted))
    assert one == two != three


@pytest.mark.parametrize("name", MODULES)
def test_public_definitions_are_documented_and_the_module_says_what_it_holds(name):
    module = importlib.import_module(name)
    assert len(module.__doc__.splitlines()) >= 3
    for word, node in definitions(text_of(name)).items():
        if not word.startswith("_"):
            assert ast.get_docstring(node), word


def test_nothing_outside_taught_says_that_it_is_taught():
    for name in MODULES:
        if not name.startswith("taught."):
            assert "Taught in chapter" not in text_of(name), name
