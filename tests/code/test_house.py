"""The house: which room may use which, so that a change has one place."""

import ast

import pytest

from notebooks import APPENDICES, BOOK, CHAPTERS, EXERCISES, MODULES, code, source

# A room on the left may import from those on the right, and from nowhere else.
ARROWS = {
    "chapters": {"helpers", "taught"},
    "helpers": {"support"},
    "taught": {"taught"},
    "support": {"support"},
    "runs": {"runs", "taught", "support"},
}
ROOMS = {"helpers", "taught", "support", "runs"}

# The chapter in which a taught module is complete, and so may be used by another.
COMPLETE = {
    "baselines": 1,
    "scratch": 6,
    "resnet": 6,
    "training": 7,
    "finetuning": 8,
    "metrics": 9,
    "speed": 10,
    "memory": 10,
    "fast": 10,
}

# Runs that are commands: whoever needs a part of one moves the part to a module.
COMMANDS = ("ablations", "baselines", "fast", "finetune", "mlp", "speed", "train")


def imported(text):
    """The modules of the book that a source text imports, by their full names."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module in ROOMS:
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            else:
                found.add(node.module)
    return {name for name in found if name.partition(".")[0] in ROOMS}


def text_of(module):
    return (BOOK / f"{module.replace('.', '/')}.py").read_text("utf-8")


def against_the_arrows(room, text):
    """What a source text of a room imports, and may not."""
    return [n for n in imported(text) if n.partition(".")[0] not in ARROWS[room]]


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_along_the_arrows(module):
    assert against_the_arrows(module.partition(".")[0], text_of(module)) == []


@pytest.mark.parametrize(
    "path",
    CHAPTERS + EXERCISES + APPENDICES,
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_notebook_imports_helpers_and_lessons_only(path):
    text = "\n".join(source(cell) for cell in code(path))
    assert against_the_arrows("chapters", text) == []


def test_an_import_against_an_arrow_is_found():
    for room, line in (
        ("support", "from taught.training import evaluate"),
        ("taught", "import helpers"),
        ("taught", "from support import files"),
        ("helpers", "from taught.training import fit"),
        ("runs", "import helpers"),
        ("chapters", "from support.files import write_whole"),
        ("chapters", "from runs import train"),
    ):
        assert against_the_arrows(room, line) != [], line
    assert against_the_arrows("runs", "from taught import fast\nimport torch") == []


def test_lesson_uses_only_what_its_chapter_has_taught():
    assert {f"taught.{name}" for name in COMPLETE} == {
        name for name in MODULES if name.startswith("taught.")
    }
    for name, chapter in COMPLETE.items():
        for other in imported(text_of(f"taught.{name}")):
            assert COMPLETE[other.removeprefix("taught.")] <= chapter, (name, other)


def test_no_command_is_imported_as_a_toolbox():
    assert {f"runs.{name}" for name in COMMANDS} <= set(MODULES)
    for module in MODULES:
        for other in imported(text_of(module)):
            assert other.removeprefix("runs.") not in COMMANDS, module


def test_helpers_stay_small_and_train_nothing():
    text = text_of("helpers")
    assert len(text.splitlines()) <= 200
    assert "distributed" not in text and "optim" not in text
