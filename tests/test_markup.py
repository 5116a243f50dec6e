"""Text of a model or a user as HTML: exactly this text is shown, nothing is taken for more."""

from __future__ import annotations

import html
import random
import re
import unicodedata

import pandas as pd
import pytest

from system.markup import attribute, direction, left_aligned, reveal, safe, safe_table, visible

PLAIN = ["a < b & c", 'say "yes"', "it's", "naïve café", "日本語", "two\nlines\tend"]
PLAIN += ["👩\u200d👩\u200d👧 🇩🇪", "\\n"]
MATHS = ["$5 million now, not $6", r"\(x\)", r"\[x\]", r"\begin{equation}", r"a \\ b", r"\$1"]


def shown(markup: str) -> str:
    """The text that a browser shows."""
    return html.unescape(re.sub(r"<[^>]*>", "", markup))


@pytest.mark.parametrize("text", PLAIN)
def test_plain_text_stays_plain(text: str) -> None:
    """Escaped and nothing more, so that stored tables of ordinary text stay as they are."""
    assert safe(text) == html.escape(text) and shown(safe(text)) == text


@pytest.mark.parametrize("text", MATHS)
def test_mathematics_is_switched_off(text: str) -> None:
    assert safe(text).startswith('<bdi class="mathjax_ignore tex2jax_ignore">')
    assert shown(safe(text)) == text


@pytest.mark.parametrize("text", ["العربية", "abc עברית", "x \u202e y"])
def test_right_to_left_text_is_isolated(text: str) -> None:
    markup = safe(text)
    assert markup.startswith("<bdi") or "U+202E" in markup
    assert "\u202e" not in markup


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\u200bb", "a⟨U+200B⟩b"),
        ("a\u200db", "a⟨U+200D⟩b"),  # a joiner with nothing to join
        ("می\u200cخواهم", "می\u200cخواهم"),  # Persian needs it
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("\ufeffx", "⟨U+FEFF⟩x"),
        ("soft\u00adhyphen", "soft⟨U+00AD⟩hyphen"),
        ("\U000e0041", "⟨U+E0041⟩"),  # tags: a hidden prompt
        ("\x00\x1b[31m", "⟨U+0000⟩⟨U+001B⟩[31m"),
        ("\ud800", "⟨U+D800⟩"),
        ("\u2028", "⟨U+2028⟩"),
        ("ㅤ", "⟨U+3164⟩"),
        ("a b\n\tc", "a b\n\tc"),
    ],
)
def test_hidden_characters_are_written(text: str, expected: str) -> None:
    assert reveal(text) == expected
    assert shown(safe(text)) == expected
    assert html.unescape(attribute(text)) == expected


def test_a_token_shows_its_blanks() -> None:
    assert visible(" a\n\t") == "·a⏎⇥"
    assert visible("\u0301") == "◌\u0301"  # an accent without its letter
    assert visible("") == ""


def test_whatever_the_text_it_is_shown_whole_and_encodable() -> None:
    """Random characters from everywhere: the words come back, no tag and no hidden character."""
    rng = random.Random(4)
    for _ in range(2000):
        text = "".join(chr(rng.choice([rng.randrange(0x300), rng.randrange(0x11000),
                                       rng.randrange(0x110000)])) for _ in range(8))  # fmt: skip
        markup = safe(text)
        assert shown(markup) == reveal(text)
        markup.encode("utf-8")
        hidden = [c for c in reveal(text) if unicodedata.category(c) in ("Cc", "Cs")]
        assert set(hidden) <= {"\n", "\t"}
        assert set(re.findall(r"<[^>]*>", markup)) <= {
            '<bdi class="mathjax_ignore tex2jax_ignore">', "</bdi>",
        }  # fmt: skip


def test_direction_is_that_of_the_first_letter() -> None:
    assert direction("123 العربية abc") == "rtl"
    assert direction("abc العربية") == direction("123 !") == direction("") == "ltr"


def test_tables_of_pandas_are_safe_and_otherwise_unchanged() -> None:
    plain = pd.DataFrame({"text": PLAIN[:4], "n": [1.5, 2, 3, 4]})
    assert safe_table(plain.to_html()) == plain.to_html()
    odd = pd.DataFrame({"$a and $b": ["<b>$5</b> & $6", "a\u200bb"]}, index=["العربية", r"\(x\)"])
    for markup in (safe_table(odd.to_html()), left_aligned(odd).data):
        cells = [shown(c) for c in re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", markup)]
        assert cells == [
            "", "$a and $b", "العربية", "<b>$5</b> & $6", r"\(x\)", "a⟨U+200B⟩b",
        ]  # fmt: skip
        assert markup.count("mathjax_ignore") == 4


def test_a_notebook_shows_every_table_safely() -> None:
    """`import helpers` is enough, in a shell of IPython as in a kernel."""
    from IPython.core.interactiveshell import InteractiveShell

    import system.markup

    shell = InteractiveShell.instance()
    try:
        system.markup.guard_tables()
        assert shell.display_formatter is not None
        data, _ = shell.display_formatter.format(pd.DataFrame({"x": ["$5 or $6"]}))
        assert '<bdi class="mathjax_ignore tex2jax_ignore">$5 or $6</bdi>' in data["text/html"]
        assert "$5 or $6" in data["text/plain"] and "bdi" not in data["text/plain"]
    finally:
        InteractiveShell.clear_instance()
