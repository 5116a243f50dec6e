"""docs/troubleshooting.md stays true: links from errors arrive, and quoted errors exist.

A block of the kind ```error quotes what the course itself prints. `…` stands for what
differs from machine to machine; every piece between must stand in the strings of the code,
where one string may go on with another from its beginning.
"""

from __future__ import annotations

import ast
import builtins
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

import pytest

from helpers import check
from system.environment import PACKAGES
from system.errors import TROUBLESHOOTING, see
from tests.conftest import ROOT

DOCUMENT = ROOT / TROUBLESHOOTING
SOURCES = sorted(path for folder in (*PACKAGES, "tools") for path in (ROOT / folder).rglob("*.py"))
LEAST_CHARACTERS = 10  # that a quotation must have in one piece: shorter ones prove nothing
PIECES = re.compile(r"…|\n|→|✗|\s{2,}")
ERROR_NAME = re.compile(r"^(\w+(?:Error|Failed)): ")


def text() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def anchors() -> set[str]:
    return set(re.findall(r'<a id="([\w-]+)"></a>', text()))


def quotations() -> list[str]:
    return re.findall(r"^```error\n(.+?)\n```$", text(), re.MULTILINE | re.DOTALL)


@cache
def trees() -> tuple[ast.Module, ...]:
    return tuple(ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES)


def nodes() -> Iterator[ast.AST]:
    for tree in trees():
        yield from ast.walk(tree)


@cache
def strings() -> frozenset[str]:
    """Every string of the code but docstrings; an f-string's parts are strings of their own."""
    docstrings = {
        id(node.body[0].value)
        for node in nodes()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return frozenset(
        node.value
        for node in nodes()
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value
        and id(node) not in docstrings
    )


def begins(piece: str) -> bool:
    """Whether strings from their beginnings, one after the other, give the piece."""
    return any(
        text.startswith(piece) or (piece.startswith(text) and begins(piece[len(text) :]))
        for text in strings()
    )


def printed(piece: str) -> bool:
    """Whether the code can print the piece: within a string, or from one's end on to others."""
    if any(piece in text for text in strings()):
        return True
    ends = (
        n for n in range(len(piece) - 1, 0, -1) if any(t.endswith(piece[:n]) for t in strings())
    )
    return any(begins(piece[n:]) for n in ends)


def missing(quotation: str) -> list[str]:
    """The pieces of a quotation that no string of the code has."""
    if name := ERROR_NAME.match(quotation):
        classes = {node.name for node in nodes() if isinstance(node, ast.ClassDef)}
        if name[1] not in classes and not hasattr(builtins, name[1]):
            return [name[1]]
        quotation = quotation[name.end() :]
    pieces = [piece.strip() for piece in PIECES.split(quotation)]
    pieces = [piece for piece in pieces if re.search(r"\w", piece)]
    assert max(map(len, pieces), default=0) >= LEAST_CHARACTERS, quotation
    return [piece for piece in pieces if not printed(piece)]


def links() -> set[str]:
    """The sections that the code sends its readers to."""
    calls = (n for n in nodes() if isinstance(n, ast.Call) and isinstance(n.func, ast.Name))
    found = set()
    for call in calls:
        if getattr(call.func, "id", "") == "see":
            (argument,) = call.args
            assert isinstance(argument, ast.Constant), "a section is written out where it is used"
            found.add(str(argument.value))
    return found


def test_errors_lead_to_sections_that_exist() -> None:
    assert {"downloads", "memory", "port", "check"} <= links()
    assert links() <= anchors()
    assert see("port") == "See docs/troubleshooting.md#port"


def test_links_within_the_document_arrive() -> None:
    inside = set(re.findall(r"\]\(#([\w-]+)\)", text()))
    assert inside and inside <= anchors()
    for path in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text()):
        assert (DOCUMENT.parent / path).exists(), path


def test_every_section_is_in_the_table_at_the_top() -> None:
    table = text().partition("<a id=")[0]
    assert set(re.findall(r"\]\(#([\w-]+)\)", table)) == anchors()


@pytest.mark.parametrize("quotation", quotations(), ids=lambda q: q[:40])
def test_quoted_errors_are_those_of_the_code(quotation: str) -> None:
    assert not missing(quotation)


def test_another_word_in_a_quotation_is_noticed() -> None:
    first = next(q for q in quotations() if "could not be reached" in q)
    assert missing(first.replace("could not be reached", "could not be found"))
    assert missing("NoSuchError: this does not fit in memory")


@pytest.mark.slow
def test_a_failed_check_names_the_document() -> None:
    """On a real run, in a terminal and in a notebook."""
    command = [sys.executable, "-m", "helpers.check", "--models", str(ROOT / "docs")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 1 and ran.stdout.endswith(f"{see('check')}\n")
    good, bad = check.Check("A", True, ""), check.Check("B", False, "", "do this")
    assert see("check") in check.as_html([good, bad])
    assert TROUBLESHOOTING not in check.as_html([good])
