r"""Text of a model or a user as HTML, shown as it is.

JupyterLab typesets what stands between dollars, `\(…\)` and `\begin{…}` as mathematics; a
browser takes `<` for a tag, lets right-to-left text move its neighbours, and draws
zero-width characters as nothing. `safe` guards against all of these. Whatever puts
somebody else's text into HTML calls it. In tables, what was not measured (NaN) is a dash.
"""

from __future__ import annotations

import html
import math
import re
import sys
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML

NOT_MEASURED = "–"
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

    markup = safe_table(known(table).to_html(border=0, na_rep=NOT_MEASURED))
    markup = markup.replace("<th>", '<th style="text-align:left">')
    return HTML(markup.replace("<td>", '<td style="text-align:left">'))


def known(table: Any) -> Any:
    """A table or column of pandas to be shown: what was not measured is NaN or a dash.

    Where nothing is missing, it is the same object.
    """
    missing = table.isna() | table.isin([math.inf, -math.inf])
    if not missing.to_numpy().any():
        return table
    if table.ndim == 2:
        return table.apply(known)
    if table.dtype.kind == "f":
        return table.mask(missing)  # `na_rep` makes it a dash; numbers keep their format
    return table.astype(object).mask(missing, NOT_MEASURED)


def guard_tables() -> None:
    """In a notebook, let every table of pandas pass through here when it is shown.

    Its texts are made safe (`safe_table`), what was not measured is a dash.
    """
    if "IPython" not in sys.modules:
        return
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is None or shell.display_formatter is None:
        return
    formatters = shell.display_formatter.formatters
    for package in ("pandas", "pandas.core.frame"):  # its name since, and before, pandas 3
        formatters["text/html"].for_type_by_name(package, "DataFrame", _shown_table)
        formatters["text/plain"].for_type_by_name(package, "DataFrame", _plain)
    for package in ("pandas", "pandas.core.series"):
        formatters["text/plain"].for_type_by_name(package, "Series", _plain)


def _shown_table(table: pd.DataFrame) -> str | None:
    markup, shown = table._repr_html_(), known(table)  # type: ignore[operator]
    if markup is not None and shown is not table:
        markup = shown.to_html(na_rep=NOT_MEASURED, notebook=True, **_limits(table))
    return None if markup is None else safe_table(markup)


def _plain(table: Any, printer: Any, cycle: bool) -> None:
    """A table or a column as text, for IPython's printer."""
    shown = known(table)
    if shown is table:
        printer.text(repr(table))
    elif table.ndim == 1:
        printer.text(shown.to_string(na_rep=NOT_MEASURED, name=True, dtype=True))
    else:
        printer.text(shown.to_string(na_rep=NOT_MEASURED, **_limits(table)))


def _limits(table: pd.DataFrame) -> dict[str, Any]:
    """How much of a table is shown, as pandas is set."""
    from pandas import get_option

    rows = get_option("display.max_rows")
    if rows and len(table) > rows:
        rows = min(rows, get_option("display.min_rows") or rows)
    columns, sizes = get_option("display.max_columns"), get_option("display.show_dimensions")
    return {"max_rows": rows, "max_cols": columns, "show_dimensions": sizes}
