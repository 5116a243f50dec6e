"""The glossary: complete for every lesson, sorted, and every link to it arrives.

A term is what a lesson sets in bold, or names in its line "Words of this lesson". Bold that
ends a sentence or asks something is a label ("**What you see.**"), and so is what LABELS
names. Exercises set in bold what is asked for; that introduces nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

from classroom import course

ROOT = Path(__file__).resolve().parent.parent
GLOSSARY = ROOT / "notebooks" / "glossary.md"
LESSONS = course.notebooks()
each_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=lambda p: p.stem)

BOLD = re.compile(r"\*\*(.+?)\*\*|<b>(.+?)</b>", re.DOTALL)
WORDS = re.compile(r"^\*\*Words of this lesson:\*\* (.+)\.$", re.MULTILINE)
EXERCISES = re.compile(r"^## Exercises$.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^\]]+)\]\(glossary\.md(?:#([^)]*))?\)")
ENTRY = re.compile(
    r'^<a id="(?P<anchor>[^"]+)"></a>\*\*(?P<name>[^*]+)\*\*(?: \(also: (?P<also>[^)]+)\))?'
    r" · \[lesson (?P<number>\d\d)\]\((?P<file>[^)]+)\)<br>\n(?P<text>.+)$",
    re.MULTILINE,
)
# Bold in a lesson that names no term: parts of every lesson, and words that are only stressed.
LABELS = {
    *("you will", "time", "memory", "network", "the same without a running kernel"),
    *("00 start here", "predict", "run and measure", "explore", "in production", "break"),
    *("seen", "roles", "price", "length", "cache only what is deterministic"),
    *("validation alone", "over http", "exercises"),
}


@dataclass(frozen=True)
class Entry:
    """One term of the glossary."""

    anchor: str
    names: tuple[str, ...]
    lesson: Path
    number: str
    text: str


def entries() -> list[Entry]:
    found = []
    for match in ENTRY.finditer(GLOSSARY.read_text(encoding="utf-8")):
        also = match["also"].split(", ") if match["also"] else []
        lesson = GLOSSARY.parent / match["file"]
        names = (match["name"], *also)
        found.append(Entry(match["anchor"], names, lesson, match["number"], match["text"]))
    return found


def known() -> dict[str, Entry]:
    """Every name of every term, in small letters."""
    return {name.casefold(): entry for entry in entries() for name in entry.names}


def entry_of(term: str) -> Entry | None:
    """The entry of a term as a lesson writes it: capitals, a plural, a note in brackets."""
    plain = re.sub(r" \(.*\)$", "", " ".join(term.split())).casefold()
    return known().get(plain) or known().get(plain.removesuffix("s"))


def prose(lesson: Path) -> str:
    cells = nbformat.read(lesson, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def words(text: str) -> list[str]:
    """The line "Words of this lesson", as a list, without its links."""
    found = WORDS.search(text)
    assert found, "there is no line '**Words of this lesson:** …'"
    return re.split(r", (?![^(]*\))", re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", found[1]))


def bold_terms(text: str) -> list[str]:
    text = EXERCISES.sub("", text)
    bold = (a or b for a, b in BOLD.findall(text))
    return [t for t in bold if t[-1] not in ".:?!" and " ".join(t.split()).casefold() not in LABELS]


def test_every_line_of_the_glossary_is_understood() -> None:
    """An entry that the pattern misses would be tested by nothing."""
    text = GLOSSARY.read_text(encoding="utf-8")
    assert len(entries()) == text.count("<a id=") == text.count("<br>") > 50


def test_sorted_without_duplicates() -> None:
    names = [entry.names[0].casefold() for entry in entries()]
    assert names == sorted(names)
    every = [name.casefold() for entry in entries() for name in entry.names]
    assert len(every) == len(set(every))


def test_anchors_follow_the_names() -> None:
    for entry in entries():
        slug = re.sub(r"[^a-z0-9]+", "-", entry.names[0].lower()).strip("-")
        assert entry.anchor == slug


def test_explained_in_one_to_three_sentences() -> None:
    for entry in entries():
        assert entry.text.endswith("."), entry.anchor
        assert 1 <= len(re.findall(r"[.!?](?:\s|$)", entry.text)) <= 3, entry.anchor


def test_every_entry_occurs_in_the_lesson_that_it_names() -> None:
    for entry in entries():
        assert entry.lesson in LESSONS and entry.lesson.name.startswith(entry.number), entry.anchor
        text = prose(entry.lesson).casefold()
        assert any(
            re.search(rf"(?<!\w){re.escape(name.casefold())}", text) for name in entry.names
        ), f"{entry.anchor}: not in {entry.lesson.name}"


def test_the_glossary_names_the_first_lesson_that_introduces_a_term() -> None:
    first: dict[str, str] = {}
    for lesson in LESSONS:
        text = prose(lesson)
        for term in bold_terms(text):
            if entry := entry_of(term):
                first.setdefault(entry.anchor, lesson.name)
    wrong = {
        e.anchor: first[e.anchor]
        for e in entries()
        if e.anchor in first and first[e.anchor] < e.lesson.name
    }
    assert not wrong, "set in bold by an earlier lesson"


@each_lesson
def test_every_term_of_a_lesson_is_explained(lesson: Path) -> None:
    text = prose(lesson)
    terms = [*bold_terms(text), *words(text)]
    assert len(terms) > 5
    missing = sorted({term for term in terms if entry_of(term) is None})
    assert not missing, "not in notebooks/glossary.md (nor a label in this test)"


@each_lesson
def test_words_of_a_lesson_link_to_their_entries(lesson: Path) -> None:
    text = prose(lesson)
    anchors = {entry.anchor for entry in entries()}
    for term, anchor in LINK.findall(text):
        assert not anchor or anchor in anchors, f"glossary.md#{anchor}"
        entry = entry_of(term)
        assert not anchor or entry is None or entry.anchor == anchor, f"{term} leads to {anchor}"
    line = WORDS.search(text)
    assert line and len(LINK.findall(line[1])) == len(words(text)), "a word without its link"
