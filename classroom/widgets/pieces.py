"""Pieces of the widgets: boxes, bars and texts as HTML, and layouts.

The pictures are plain HTML, because a matplotlib figure for every move would take longer
than the model does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import ipywidgets as widgets

from helpers.tokens import strip_html
from system.markup import direction, safe, visible

if TYPE_CHECKING:
    from helpers.generator import Generation

SCALES = (0.05, 0.1, 0.25, 0.5, 1.0)  # what a full bar may mean where a zoom is asked for

# Colours by JupyterLab's theme where there is one; blue and vermilion (Okabe and Ito) have a
# contrast of at least 3:1 on white and on JupyterLab's dark background.
_STYLE = """<style>
.llm-panel { box-sizing: border-box; color: var(--jp-ui-font-color1, inherit);
  font: 13px/1.5 var(--jp-ui-font-family, sans-serif); white-space: normal; }
.llm-chart { height: 336px; overflow: hidden auto; }
.llm-text { height: 180px; overflow: hidden auto; padding: 0 12px 8px;
  border: 1px solid var(--jp-border-color2, #9e9e9e); border-radius: 4px; }
.llm-panel p { margin: 8px 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 14px; }
.llm-panel .llm-small { color: var(--jp-ui-font-color2, inherit); font-size: 12px; }
.llm-panel mark { color: inherit; background: rgba(86,180,233,.30); border-radius: 3px; }
.llm-chart table { width: 100%; table-layout: fixed; border-collapse: collapse; }
.llm-chart caption { text-align: left; padding-bottom: 4px; }
.llm-chart th, .llm-chart td { height: 24px; padding: 0 4px; text-align: right; font-weight: 400;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.llm-chart th:first-child { text-align: left; overflow: hidden; text-overflow: ellipsis;
  font-family: var(--jp-code-font-family, monospace); }
.llm-chart thead th { border-bottom: 1px solid var(--jp-border-color2, #9e9e9e); }
.llm-chart td.llm-bars { border-left: 1px solid var(--jp-border-color2, #9e9e9e); padding: 0; }
.llm-bar, .llm-key { display: block; height: 8px; margin: 1px 0; border-radius: 0 2px 2px 0; }
.llm-key { display: inline-block; width: 12px; margin: 0 4px 0 0; }
.llm-before { background: #0072b2; } .llm-after { background: #d55e00; }
.llm-error { color: var(--jp-error-color1, #b3261e); }
</style>"""


class Panel(widgets.VBox):
    """A lesson's own widgets, below each other, with words for readers without a kernel.

    Args:
        children: the widgets.
        static: what a static view (GitHub, the site) shows in their place.
    """

    def __init__(self, children: list[widgets.Widget], static: str) -> None:
        self.static = static
        super().__init__(children)

    def __repr__(self) -> str:
        return self.static


def flexible(width: str) -> dict[str, str]:
    """At least `width` where the page has it, then a fair share of what is left."""
    return {"flex": f"1 1 {width}", "width": "auto", "min_width": "0", "max_width": "100%"}


def side_by_side() -> dict[str, str]:
    """Side by side; below each other where the page is narrow."""
    return {"flex_flow": "row wrap", "width": "100%", "grid_gap": "0 12px"}


def columns(width: str) -> dict[str, str]:
    """As many columns of equal width as fit, each at least `width` wide."""
    columns = f"repeat(auto-fill, minmax(min({width}, 100%), 1fr))"
    return {"grid_template_columns": columns, "grid_gap": "0 12px", "width": "100%"}


def zoom_box() -> widgets.Checkbox:
    """The box beside a chart that asks for longer bars."""
    return widgets.Checkbox(
        False,
        description="zoom in",
        tooltip="Stretch the bars; without it a full bar is 100 %",
        indent=False,
        layout={"width": "90px"},
    )


def panel(kind: str, inside: str) -> str:
    """A box of fixed height, so that nothing on the page jumps."""
    # tabindex: what may scroll can be reached by keyboard
    return f'{_STYLE}<div class="llm-panel llm-{kind}" tabindex="0">{inside}</div>'


def facts_table(facts: Mapping[str, str]) -> str:
    """A table of two columns that is read out when it changes: what, and how much."""
    rows = "".join(
        f'<tr><th scope="row" style="text-align:left;font-weight:400">{safe(name)}</th>'
        f'<td style="text-align:right;padding-left:1em">{safe(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f'<table role="status">{rows}</table>'


def parts_table(parts: Mapping[str, tuple[str, float]]) -> str:
    """A table with bars: part → (how much, in words; per cent of a full bar)."""
    rows = "".join(
        f"<tr><td>{name}</td><td style='text-align:right'>{words}</td>"
        f"<td style='width:60%'><div style='background:#0072B2;height:0.8em;"
        f"width:{percent:.1f}%'></div></td></tr>"
        for name, (words, percent) in parts.items()
    )
    return f"<table role='status' style='width:95%'>{rows}</table>"


def problem(error: Exception) -> str:
    """What is wrong, in the place of the text."""
    known = isinstance(error, ValueError)
    words = str(error) if known else f"{type(error).__name__}: {error}"
    return panel("text", f'<p role="alert" class="llm-error">{safe(words)}</p>')


def texts(result: Generation) -> str:
    """Prompt and new text of every sequence, the new part marked, and what it took."""
    shown = "".join(
        f'<p dir="{direction(result.prompt + text)}">'
        f"{safe(result.prompt)}<mark>{safe(text)}</mark></p>"
        for text in result.new_texts
    )
    counts = ", ".join(str(len(ids)) for ids in result.new_ids)
    ends = " and ".join(sorted({r.replace("_", "-") for r in result.finish_reasons}))
    facts = f"{counts} new tokens in {result.seconds:.2f} s; ended by {ends}"
    return panel("text", f'<div role="status">{shown}<p class="llm-small">{facts}</p></div>')


def full_bar(largest: float, zoom: bool) -> float:
    """The probability that a full bar means: always 1, so that bars can be compared.

    Args:
        largest: probability that is shown, 0 to 1.
        zoom: the smallest of `SCALES` that holds it instead.
    """
    return next(s for s in SCALES if s >= min(largest, 1.0)) if zoom else 1.0


def distribution_html(
    tokens: list[tuple[str, float, float]], left: int, vocabulary: int, zoom: bool = False
) -> str:
    """A table with bars: token, probability before, probability after, and all other tokens.

    Args:
        tokens: (text, probability before, probability after), 0 to 1.
        left: tokens that can still be drawn.
        vocabulary: tokens in all.
        zoom: let the longest bar fill its place (nearly), for distributions without a peak.
    """
    others_before = max(0.0, 1 - sum(before for _, before, _ in tokens))
    others_after = max(0.0, 1 - sum(after for _, _, after in tokens))
    scale = full_bar(max(max(before, after) for _, before, after in tokens), zoom)
    rows = "".join(_row_html(visible(t), b, a, scale) for t, b, a in tokens)
    rows += (
        f'<tr><th scope="row"><i>all others</i></th><td></td>'
        f"<td>{others_before:.1%}</td><td>{others_after:.1%}</td></tr>"
    )
    return panel(
        "chart",
        f"<table><caption>Next token: sampling draws from {left:,} of {vocabulary:,}</caption>"
        '<colgroup><col style="width:112px"><col><col style="width:72px"><col style="width:64px">'
        '</colgroup><thead><tr><th scope="col">token</th>'
        f'<th scope="col">full bar = {scale:.0%}</th>'
        '<th scope="col"><span class="llm-key llm-before"></span>before</th>'
        '<th scope="col"><span class="llm-key llm-after"></span>after</th>'
        f"</tr></thead><tbody>{rows}</tbody></table>",
    )


def _row_html(token: str, before: float, after: float, scale: float) -> str:
    bars = "".join(
        f'<span class="llm-bar llm-{kind}" style="width:{min(value / scale, 1):.1%}"></span>'
        for kind, value in (("before", before), ("after", after))
    )
    return (
        f'<tr><th scope="row">{safe(token)}</th><td class="llm-bars" aria-hidden="true">'
        f"{bars}</td><td>{before:.1%}</td><td>{after:.1%}</td></tr>"
    )


def loop_html(
    prompt: str,
    added: list[tuple[int, str]],
    labels: list[str],
    values: list[float],
    zoom: bool = False,
) -> str:
    """The text so far, and a bar for each candidate.

    Args:
        prompt: the text at the beginning.
        added: (id, text) of each token chosen since.
        labels: the candidates.
        values: their probabilities, 0 to 1.
        zoom: let the longest bar fill its place (nearly).
    """
    scale = full_bar(max(values), zoom)
    rows = "".join(
        f'<tr><th scope="row">{safe(label)}</th><td class="llm-bars" aria-hidden="true">'
        f'<span class="llm-bar llm-before" style="width:{p / scale:.1%}"></span></td>'
        f"<td>{p:.1%}</td></tr>"
        for label, p in zip(labels, values, strict=True)
    )
    strip = strip_html(added) if added else ""
    return panel(
        "chart",
        f'<div role="status"><p dir="{direction(prompt)}">{safe(prompt)}</p>{strip}</div>'
        '<table style="table-layout:fixed;width:100%;max-width:520px"><caption>Candidates for '
        'the next token</caption><colgroup><col style="width:30%"><col>'
        '<col style="width:64px"></colgroup><thead><tr><th scope="col">token</th>'
        f'<th scope="col">full bar = {scale:.0%}</th><th scope="col"></th></tr></thead>{rows}'
        f'<tr><th scope="row"><i>all others</i></th><td></td><td>{max(0.0, 1 - sum(values)):.1%}'
        "</td></tr></table>",
    )
