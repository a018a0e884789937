"""The glossary: every term that a notebook puts in italics, and no other."""

import re

from notebooks import BOOK, CHAPTERS, EXERCISES, prose

# Italics that stress a word and introduce no term.
EMPHASIS = {
    "05_residual_block.ipynb": {"adds", "training", "factor", "amount"},
    "08_fine_tuning.ipynb": {"and"},
    "09_evaluation.ipynb": {"same", "best"},
}

# Terms in italics whose entry has another form, by more than a plural's -s or -es.
FORMS = {
    "clipped": "gradient clipping",
    "clipping": "gradient clipping",
    "dead": "dead unit",
    "dilated": "dilated convolution",
    "exploding": "exploding gradient",
    "folded": "folding",
    "frozen": "frozen parameter",
    "hidden": "hidden layer",
    "macro": "macro average",
    "micro": "micro average",
    "nesterov's": "nesterov momentum",
    "probabilities": "probability",
    "saturated": "saturated output",
    "shattered": "shattered gradient",
    "standardised": "standardisation",
    "stratified": "stratified split",
    "unbiased": "unbiased variance",
    "vanishing": "vanishing gradient",
    "weighted": "weighted average",
}

GLOSSARY = (BOOK / "appendix/glossary.md").read_text("utf-8")
LITERAL = re.compile(r"```.*?```|`[^`\n]*`|\$\$.*?\$\$|\$[^$\n]*\$|\*\*", re.S)
HEADING_OR_ITALICS = re.compile(r"^##? (.+)$|(?<![*\\])\*(?!\s)([^*]+)\*", re.M)


def entries(text):
    """The entries: term, Chinese, meaning and link."""
    blocks = text.partition("```{glossary}\n")[2].removesuffix("```\n").split("\n\n")
    parts = [[line.strip() for line in block.splitlines()] for block in blocks]
    return [[term, *rest] for term, *rest in parts]


def italics(texts):
    """The words in italics of Markdown texts, each with the heading above it."""
    heading = ""
    for text in texts:
        for match in HEADING_OR_ITALICS.finditer(LITERAL.sub(" ", text)):
            if match[1]:
                heading = match[1]
            else:
                yield " ".join(match[2].casefold().split()), heading


def stressed(page, words):
    return words in EMPHASIS.get(page, ())


def entry(words, known):
    """The term that has the entry for words in italics; the words, if none has."""
    words = FORMS.get(words, words)
    forms = (words, words.removesuffix("s"), words.removesuffix("es"))
    return next((form for form in forms if form in known), words)


def link(page, heading):
    """A link to a section of a chapter, or to the notebook of an exercise."""
    number = heading.split()[0]
    if page.startswith("exercises/"):
        return f"[ex. {number}](../{page})"
    anchor = re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
    return f"[{number}](../{page}#{anchor})"


def first_places(known):
    """For each term in italics, the link to where it first stands, chapters first."""
    places = {}
    for path in CHAPTERS + EXERCISES:
        page = path.relative_to(BOOK).as_posix()
        for words, heading in italics(prose(path)):
            if not stressed(page, words):
                places.setdefault(entry(words, known), link(page, heading))
    return places


ENTRIES = entries(GLOSSARY)
TERMS = [cells[0].casefold() for cells in ENTRIES]
PLACES = first_places(TERMS)


def test_page_is_a_title_a_paragraph_and_entries_of_four_lines():
    title, paragraph, rest = GLOSSARY.split("\n\n", maxsplit=2)
    assert title == "# Glossary"
    assert 20 <= len(paragraph) <= 200
    assert "Chinese" in paragraph
    assert rest.startswith("```{glossary}\n") and rest.endswith("\n```\n")
    assert {len(parts) for parts in ENTRIES} == {4}


def test_every_term_in_italics_has_an_entry():
    assert len(PLACES) > 100
    assert [term for term in PLACES if term not in TERMS] == []


def test_every_entry_stands_in_italics_in_a_notebook():
    assert [term for term in TERMS if term not in PLACES] == []


def test_listed_emphasis_and_forms_stand_in_the_notebooks():
    pages = {path.relative_to(BOOK).as_posix(): path for path in CHAPTERS + EXERCISES}
    found = {page: {w for w, _ in italics(prose(pages[page]))} for page in pages}
    for page, words in EMPHASIS.items():
        assert words <= found[page], page
    assert set(FORMS) <= set().union(*found.values())


def test_entries_are_sorted_and_unique():
    assert sorted(set(TERMS)) == TERMS


def test_each_entry_has_its_chinese_and_a_meaning_of_one_sentence():
    for term, chinese, meaning, _ in ENTRIES:
        assert re.search(r"[\u4e00-\u9fff]", chinese), term
        assert 8 <= len(meaning.split()) <= 45, term
        assert meaning[0].isupper(), term
        assert re.findall(r"[.!?](?!\S)", meaning) == ["."], term
        assert meaning.endswith("."), term


def test_each_link_leads_to_where_the_term_first_stands_in_italics():
    links = {term: cells[-1] for term, cells in zip(TERMS, ENTRIES)}
    assert {t: PLACES.get(t) for t in TERMS if links[t] != PLACES.get(t)} == {}


def test_italics_are_told_from_bold_code_and_formulas():
    text = (
        "## 3.2 What, then?\n*One\nterm*, **bold**, `*code*` and $a*b*c$ \\*so\\*\n"
        "```\n# *fenced*\n```\n$$ x*y*z $$\n2 * 3 * 4\n* item\n***both***, *two's*"
    )
    assert list(italics([text, "*next* cell"])) == [
        (words, "3.2 What, then?") for words in ("one term", "both", "two's", "next")
    ]
    assert link("03_x.ipynb", "3.2 What, then?") == "[3.2](../03_x.ipynb#32-what-then)"
    assert (
        link("exercises/03_x.ipynb", "3.4 Soft") == "[ex. 3.4](../exercises/03_x.ipynb)"
    )
    known = {"bias", "loss", "pixel", "hidden layer"}
    words = ("bias", "losses", "pixels", "hidden", "unknowns")
    assert [entry(w, known) for w in words] == [
        "bias", "loss", "pixel", "hidden layer", "unknowns"
    ]  # fmt: skip
