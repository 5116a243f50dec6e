r"""Text of a model or a user as HTML, shown as it is.

JupyterLab typesets what stands between dollars, `\(…\)` and `\begin{…}` as mathematics; a
browser takes `<` for a tag, lets right-to-left text move its neighbours, and draws
zero-width characters as nothing. `safe` guards against all of these. Whatever puts
somebody else's text into HTML calls it.
"""

from __future__ import annotations

import html
import re
import sys
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML

_JOINERS = "\u200c\u200d"  # zero-width, but at work within emoji and some scripts
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"  # letters and marks that draw nothing
_DRAWN_FORMATS = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2"
# What JupyterLab may typeset, and characters of scripts that run from right to left.
_RISKY = re.compile(
    r"\$|\\[()\[\]\\]|\\(?:begin|(?:eq)?ref)\b"
    "|[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefe\U00010800-\U00010fff\U0001e800-\U0001efff]"
)
_CELL = re.compile(r"(<t[dh][^>]*>)([^<]*)(?=</t[dh]>)")  # of a table that pandas wrote


def reveal(text: str) -> str:
    """The text with every character that draws nothing written as ⟨U+200B⟩, as plain text.

    Spaces, line breaks and tabs stay, and so do joiners between letters or emoji.
    """
    if text.replace("\n", "").replace("\t", "").isprintable() and text.isascii():
        return text
    shown = []
    for before, char, after in zip(" " + text, text, text[1:] + " ", strict=False):
        joins = char in _JOINERS and not any(c.isascii() or c.isspace() for c in (before, after))
        shown.append(f"⟨U+{ord(char):04X}⟩" if _is_hidden(char) and not joins else char)
    return "".join(shown)


def _is_hidden(char: str) -> bool:
    if char in "\n\t" or char in _DRAWN_FORMATS:
        return False
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") or char in _FILLERS


def visible(token: str) -> str:
    """A token as plain text: blanks, line breaks, tabs and hidden characters as signs."""
    shown = reveal(token).replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥")
    return "◌" + shown if unicodedata.combining(shown[:1] or " ") else shown


def safe(text: object) -> str:
    """The text as HTML that shows exactly this text.

    Args:
        text: anything; what is no string is shown as `str` writes it.

    Returns:
        HTML for the inside of an element, or of an attribute if there is no mathematics
        and no right-to-left text (for those `attribute`).
    """
    shown = reveal(str(text))
    inside = html.escape(shown)
    if not _RISKY.search(shown):
        return inside
    return f'<bdi class="mathjax_ignore tex2jax_ignore">{inside}</bdi>'


def attribute(text: str) -> str:
    """The text for the inside of an attribute in quotes (alt, title, aria-label)."""
    return html.escape(reveal(text), quote=True)


def direction(text: str) -> str:
    """The direction in which a paragraph of this text runs: "rtl" or "ltr"."""
    strong = (unicodedata.bidirectional(c) for c in text)
    first = next((kind for kind in strong if kind in ("L", "R", "AL")), "L")
    return "ltr" if first == "L" else "rtl"


def safe_table(markup: str) -> str:
    """The HTML of a table by pandas, its cells and headings made safe."""
    return _CELL.sub(lambda cell: cell[1] + _safe_cell(cell[2]), markup)


def _safe_cell(inside: str) -> str:
    text = html.unescape(inside)
    return safe(text) if _RISKY.search(text) or reveal(text) != text else inside


def left_aligned(table: pd.DataFrame) -> HTML:
    """A table of texts, to be read from the left (notebooks align tables to the right)."""
    from IPython.display import HTML

    markup = safe_table(table.to_html(border=0)).replace("<th>", '<th style="text-align:left">')
    return HTML(markup.replace("<td>", '<td style="text-align:left">'))


def guard_tables() -> None:
    """In a notebook, let every table of pandas pass through `safe_table` when it is shown."""
    if "IPython" not in sys.modules:
        return
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is None or shell.display_formatter is None:
        return
    formatter = shell.display_formatter.formatters["text/html"]
    for module in ("pandas", "pandas.core.frame"):  # its name since, and before, pandas 3
        formatter.for_type_by_name(module, "DataFrame", _shown_table)


def _shown_table(table: pd.DataFrame) -> str | None:
    markup = table._repr_html_()  # type: ignore[operator]
    return None if markup is None else safe_table(markup)
