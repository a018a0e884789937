"""Facts stand once: what is said of chapters and records is made from them."""

import re

import facts
import pytest

from notebooks import BOOK, CHAPTERS, EXERCISES


@pytest.fixture(scope="module")
def fresh():
    return facts.up_to_date()


def test_all_that_is_generated_is_up_to_date(fresh):
    stale = [
        path.name for path, text in fresh.items() if path.read_text("utf-8") != text
    ]
    assert stale == [], "run `make outputs`"
    names = {path.relative_to(BOOK.parent).as_posix() for path in fresh}
    assert {"README.md", "book/index.md", "book/appendix/teaching.md"} <= names
    assert len(fresh) == len(CHAPTERS) + 4


def test_a_changed_fact_makes_them_stale(fresh, monkeypatch):
    read_chapter = facts.read_chapter

    def slower(path):
        chapter = read_chapter(path)
        return chapter | {"seconds": chapter["seconds"] + 5}

    monkeypatch.setattr(facts, "read_chapter", slower)
    changed = facts.up_to_date()
    stale = {path.name for path in fresh if fresh[path] != changed[path]}
    assert {"README.md", "index.md", "teaching.md", CHAPTERS[0].name} <= stale


def test_a_changed_record_makes_the_card_stale(fresh, monkeypatch):
    read = facts.read

    def other(name):
        record = read(name)
        if name == "resnet20":
            record["test"]["accuracy"] = 0.95
        return record

    monkeypatch.setattr(facts, "read", other)
    changed = facts.up_to_date()
    card = BOOK / "results" / "README.md"
    assert "| 95.00 % |" in changed[card] and "| 95.00 % |" not in fresh[card]
    assert "95.00 % of 10,000" in changed[BOOK.parent / "README.md"]


def test_every_chapter_has_its_facts_and_a_card():
    cards = facts.cards([facts.read_chapter(path) for path in CHAPTERS])
    for path in CHAPTERS:
        chapter = facts.read_chapter(path)
        assert chapter["does"] and chapter["after"] and chapter["full"]
        assert 0 < chapter["seconds"] <= 60, "a chapter runs in under a minute"
        assert f":link: {path.stem}\n" in cards


def test_minutes_and_points_of_exercises_are_counted():
    for path in EXERCISES:
        minutes, points = facts.exercise_facts(path)
        text = path.read_text("utf-8")
        assert minutes == sum(map(int, re.findall(r"\((\d+) minutes\)\\n", text)))
        assert points == sum(map(int, re.findall(r'"points": (\d+)', text)))


def test_reading_goes_at_130_words_or_ten_lines_a_minute():
    prose = {"cell_type": "markdown", "source": ["word " * 1300]}
    lines = {"cell_type": "code", "source": ["line\n"] * 50}
    assert facts.reading_minutes([prose]) == 10
    assert facts.reading_minutes([prose, lines]) == 15


def test_a_page_without_its_block_is_named(tmp_path):
    with pytest.raises(ValueError, match="page.md has no block 'cards'"):
        facts.with_block("nothing", "cards", "", tmp_path / "page.md")
