"""Text as HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML


def left_aligned(table: pd.DataFrame) -> HTML:
    """A table of texts, to be read from the left (notebooks align tables to the right)."""
    from IPython.display import HTML

    markup = table.to_html(border=0).replace("<th>", '<th style="text-align:left">')
    return HTML(markup.replace("<td>", '<td style="text-align:left">'))
