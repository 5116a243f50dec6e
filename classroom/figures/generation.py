"""Probabilities of tokens, and the loop that chooses among them. (Lessons 02 and 03.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from classroom.figures.basics import lines
from classroom.figures.style import (
    COLOURS,
    ORANGE,
    PURPLE,
    SKY,
    label,
    new_figure,
    show,
    token_label,
)

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def logits_and_probabilities(table: pd.DataFrame) -> Figure:
    """The same tokens twice: logits on the left, probabilities on the right.

    Args:
        table: columns token, logit and probability (%), the best token first.
    """
    figure, (left, right) = new_figure(columns=2)
    bars_by_token(left, table, ["logit"], "logit (no unit)")
    bars_by_token(right, table, ["probability (%)"], "probability (%)")
    return figure


def reading_and_writing(times: pd.DataFrame) -> Figure:
    """A prefill pass against a decode pass: as a whole on the left, per token on the right.

    Args:
        times: milliseconds in the columns read the prompt, write one token and read, per
            token; the index is the prompt's length in tokens.
    """
    figure, (left, right) = new_figure(columns=2)
    x = "prompt length (tokens)"
    lines(left, times[["read the prompt", "write one token"]], x, "time of one pass (ms)")
    lines(right, times[["read, per token", "write one token"]], x, "time per token (ms)")
    return figure


def time_over_length(times: pd.DataFrame) -> Figure:
    """Seconds for a whole text over its length, one line a column.

    Args:
        times: seconds; the index is the number of new tokens.
    """
    figure, (axes,) = new_figure()
    lines(axes, times, "new tokens", "time for the whole text (s)")
    return figure


def candidates_by_step(table: pd.DataFrame) -> Figure:
    """One bar a step of the loop, made of the most probable candidates of that step.

    Args:
        table: columns step, rank (from 1), token and probability (%).
    """
    figure, (axes,) = new_figure(height=3.8)
    top = dict.fromkeys(table["step"], 0.0)
    for rank in sorted(set(table["rank"])):
        group = table[table["rank"] == rank]
        axes.bar(group["step"], group["probability (%)"], label=f"candidate {rank}",
                 bottom=[top[step] for step in group["step"]], edgecolor="white",
                 color=(SKY, ORANGE, PURPLE)[(rank - 1) % 3])  # fmt: skip
        for step, token, size in zip(
            group["step"], group["token"], group["probability (%)"], strict=True
        ):
            if size >= 4:  # a label needs room
                axes.text(step, top[step] + size / 2, token_label(token), ha="center",
                          va="center", fontsize=8)  # fmt: skip
            top[step] += size
    axes.set_xlabel("step of the loop")
    axes.set_ylabel("probability (%)")
    axes.set_ylim(0, max(top.values()) * 1.25)  # the legend stands above the bars
    axes.set_yticks([tick for tick in axes.get_yticks() if tick <= 100])  # and no step reaches more
    axes.set_xticks(sorted(top))
    axes.legend(ncols=3, loc="upper left")
    return figure


def distributions(table: pd.DataFrame, alt: str) -> HTML:
    """Next-token distributions side by side, one colour a setting.

    Args:
        table: a column `token`, then one column (%) a setting, named in the legend.
        alt: what the figure shows.
    """
    settings = [str(column) for column in table.columns if column != "token"]
    figure, (axes,) = new_figure(height=0.9 + 0.42 * len(table))
    bars_by_token(axes, table, settings, "probability (%)")
    axes.legend(loc="lower right")  # the bars there are the shortest
    return show(figure, alt)


def bars_by_token(axes: Axes, table: pd.DataFrame, columns: list[str], x_label: str) -> None:
    """Lying bars, one group a token, the first row on top. (Lessons 02 and 03.)

    Args:
        axes: where to draw.
        table: a column token and the columns to draw.
        columns: one colour each; named in a legend if there are several.
        x_label: with its unit.
    """
    height = 0.8 / len(columns)
    for n, column in enumerate(columns):
        places = [row + n * height for row in range(len(table))]
        axes.barh(places, table[column], height * 0.95, color=COLOURS[n], label=label(column))
    middles = [row + height * (len(columns) - 1) / 2 for row in range(len(table))]
    axes.set_yticks(middles, [token_label(token) for token in table["token"]])
    axes.invert_yaxis()
    axes.set_xlabel(x_label)
    axes.grid(False, axis="y")
    if len(columns) > 1:
        axes.legend()
