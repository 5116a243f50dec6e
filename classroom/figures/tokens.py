"""Text and tokens: merges, vocabularies, padding, the context. (Lesson 01.)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from classroom.figures.style import (
    BLUE,
    GREEN,
    MONOSPACE,
    ORANGE,
    RED,
    SKY,
    label,
    new_figure,
    token_label,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def merge_steps(steps: Sequence[Sequence[str]], names: Sequence[str] = ()) -> Figure:
    """A word on its way from bytes to tokens, one row a merge (lesson 01).

    Args:
        steps: the pieces after each merge, the single bytes first; all rows spell the
            same word. The piece that a row adds is drawn in orange.
        names: what each row is called; left out, rows are counted from 0.

    Raises:
        ValueError: no row, or an empty one.
    """
    if not steps or not all(steps):
        raise ValueError("steps: at least one row of at least one piece is needed")
    letters = len("".join(steps[0]))
    figure, (axes,) = new_figure(min(9.0, 1.0 + 0.42 * letters), 0.5 + 0.34 * len(steps))
    before: list[tuple[int, str]] = []
    for row, pieces in enumerate(steps):
        starts = [len("".join(pieces[:n])) for n in range(len(pieces))]
        placed = list(zip(starts, pieces, strict=True))
        for start, piece in placed:
            new = row > 0 and (start, piece) not in before
            axes.barh(row, len(piece) - 0.12, left=start + 0.06, height=0.74,
                      color=ORANGE if new else SKY, alpha=0.9 if new else 0.45)  # fmt: skip
            axes.text(start + len(piece) / 2, row, label(piece), ha="center", va="center",
                      family=MONOSPACE, color="black")  # fmt: skip
        before = placed
    axes.set_yticks(range(len(steps)), [label(name) for name in names] or None)
    axes.set_ylabel("merges done")
    axes.set_xticks([])
    axes.set_xlim(0, letters)
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines[["bottom", "left"]].set_visible(False)
    return figure


def vocabulary_sizes(table: pd.DataFrame) -> Figure:
    """What a larger vocabulary saves in tokens, and costs in parameters (lesson 01).

    Args:
        table: index the vocabulary size; columns "seen" and "unseen" (tokens for 100
            bytes of text) and "embedding" (parameters).
    """
    figure, (left, right) = new_figure(8.4, 3.2, columns=2)
    sizes = list(table.index)
    for axes in (left, right):
        axes.set_xticks(sizes, [f"{n:,}" for n in sizes], rotation=30)
        axes.set_xlabel("vocabulary (tokens)")
    for column, marker, colour in (("seen", "o", BLUE), ("unseen", "s", ORANGE)):
        left.plot(sizes, table[column], marker=marker, color=colour, label=f"{column} text")
    left.set(ylabel="tokens for 100 bytes", ylim=(0, 105))
    left.legend(frameon=False)
    right.plot(sizes, table["embedding"] / 1e6, marker="o", color=GREEN)
    right.set(ylabel="embedding (million parameters)", ylim=(0, None))
    return figure


def padding_grid(pieces: Sequence[Sequence[str]], mask: Sequence[Sequence[int]]) -> Figure:
    """A padded batch, token by token; what the mask hides is grey (lesson 01).

    Args:
        pieces: the tokens' texts, shape (rows, columns).
        mask: 1 for a token that counts, 0 for padding, the same shape.

    Raises:
        ValueError: shapes that differ.
    """
    if [len(row) for row in pieces] != [len(row) for row in mask]:
        raise ValueError("mask: one number a token is needed, got another shape")
    columns = max(len(row) for row in pieces)
    pairs = (pair for both in zip(pieces, mask, strict=True) for pair in zip(*both, strict=True))
    drawn = [text for text, counts in pairs if counts]
    longest = max((len(token_label(text)) for text in drawn), default=0)
    wide = 0.95 * max(1.0, longest / 11)  # inches of a column; a name needs more than most tokens
    figure, (axes,) = new_figure(
        min(9.0 * max(1.0, longest / 11), 1.0 + wide * columns), 0.7 + 0.42 * len(pieces)
    )
    for row, (texts, flags) in enumerate(zip(pieces, mask, strict=True)):
        for column, (text, counts) in enumerate(zip(texts, flags, strict=True)):
            axes.barh(row, 0.94, left=column, height=0.8, color=SKY if counts else "#dddddd")
            axes.text(column + 0.47, row, token_label(text) if counts else "pad",
                      ha="center", va="center", family=MONOSPACE, fontsize=9,
                      color="black" if counts else "#555555")  # fmt: skip
    axes.set_yticks(range(len(pieces)))
    axes.set_ylabel("row")
    axes.set_xticks([n + 0.47 for n in range(columns)], [str(n) for n in range(columns)])
    axes.set_xlabel("position (tokens)")
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines[["bottom", "left"]].set_visible(False)
    return figure


def context_use(requests: dict[str, tuple[int, int]], context: int) -> Figure:
    """How much of the context each request fills, prompt and new tokens (lesson 01).

    Args:
        requests: name → (prompt tokens, new tokens).
        context: the most tokens that the model holds.
    """
    figure, (axes,) = new_figure(height=1.1 + 0.42 * len(requests))
    prompts = [prompt for prompt, _ in requests.values()]
    new = [tokens for _, tokens in requests.values()]
    rows = range(len(requests))
    axes.barh(rows, prompts, color=BLUE, height=0.6, label="prompt")
    axes.barh(rows, new, left=prompts, color=ORANGE, height=0.6, label="new")
    axes.axvline(context, color=RED, linestyle="--", label=f"context: {context:,}")
    axes.set_yticks(rows, [label(name) for name in requests])
    axes.invert_yaxis()
    axes.set_xlabel("tokens")
    axes.grid(visible=False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    return figure
