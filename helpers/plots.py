"""The figures of the course: one style, units on the axes, a description for each.

`show(figure, alt)` returns the figure as an HTML image with its description, because
JupyterLab drops the descriptions of plain images. Colours are Okabe and Ito's, told
apart by colour-blind readers (https://jfly.uni-koeln.de/color/).
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, SKY, RED = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00",
)  # fmt: skip
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)

_STYLE: Any = {
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.prop_cycle": f"cycler('color', {list(COLOURS)!r})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",  # a white card stays readable on a dark page
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.dpi": 130,
}


def new_figure(
    width: float = 7.0, height: float = 3.4, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """An empty figure in the course's style, with `columns` plots side by side.

    It is not registered with pyplot, so that no notebook shows it twice.

    Args:
        width: inches; 7 fills a laptop's notebook column.
        height: inches.
        columns: plots side by side.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def show(figure: Figure, alt: str) -> HTML:
    """The figure as an HTML image that carries its description.

    Args:
        figure: from `new_figure`.
        alt: what the figure shows, for those who do not see it: the message, not the look.

    Raises:
        ValueError: an empty description.
    """
    import matplotlib
    from IPython.display import HTML

    if not alt.strip():
        raise ValueError("alt: describe what the figure shows (got an empty description)")
    image = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(image, format="png", metadata={"Software": None})
    data = base64.b64encode(image.getvalue()).decode("ascii")
    width = int(figure.get_figwidth() * 100)
    return HTML(
        f'<img alt="{html.escape(alt, quote=True)}" '
        f'style="width:{width}px;max-width:100%;border-radius:6px" '
        f'src="data:image/png;base64,{data}">'
    )


def bar_list(
    labels: Sequence[str],
    values: Sequence[float],
    axis_label: str,
    number: str = "{:,.1f}",
    log: bool = False,
    highlight: str = "",
) -> Figure:
    """Horizontal bars with their values written beside them (lesson 00).

    Args:
        labels: one a bar, from top to bottom.
        values: their lengths, in the unit that `axis_label` names.
        axis_label: quantity and unit, "size on disk (MB)".
        number: how a value is written.
        log: a logarithmic axis, for values of very different size (all above 0).
        highlight: the label of the bar that is drawn in orange.

    Raises:
        ValueError: not one value a label, or none at all.
    """
    if not labels or len(labels) != len(values):
        raise ValueError(f"values: one a label is needed, got {len(values)} for {len(labels)}")
    figure, (axes,) = new_figure(height=0.8 + 0.38 * len(labels))
    colours = [ORANGE if label == highlight else BLUE for label in labels]
    bars = axes.barh(range(len(labels)), list(values), color=colours, height=0.7)
    axes.bar_label(bars, [number.format(v) for v in values], padding=4)
    axes.set_yticks(range(len(labels)), [label.replace("$", r"\$") for label in labels])
    axes.invert_yaxis()
    axes.set_xlabel(axis_label)
    axes.grid(visible=False)
    if log:
        axes.set_xscale("log")
    axes.margins(x=0.14)
    return figure


def merge_steps(steps: Sequence[Sequence[str]]) -> Figure:
    """A word on its way from bytes to tokens, one row a merge (lesson 01).

    Args:
        steps: the pieces after each merge, the single bytes first; all rows spell the
            same word. The piece that a row adds is drawn in orange.

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
            axes.text(start + len(piece) / 2, row, piece, ha="center", va="center",
                      family="monospace", color="black")  # fmt: skip
        before = placed
    axes.set_yticks(range(len(steps)))
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
    figure, (axes,) = new_figure(min(9.0, 1.0 + 0.95 * columns), 0.7 + 0.42 * len(pieces))
    for row, (texts, flags) in enumerate(zip(pieces, mask, strict=True)):
        for column, (text, counts) in enumerate(zip(texts, flags, strict=True)):
            axes.barh(row, 0.94, left=column, height=0.8, color=SKY if counts else "#dddddd")
            axes.text(column + 0.47, row, text.replace(" ", "·") if counts else "pad",
                      ha="center", va="center", family="monospace", fontsize=9,
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
    axes.set_yticks(rows, list(requests))
    axes.invert_yaxis()
    axes.set_xlabel("tokens")
    axes.grid(visible=False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    return figure


# Lesson 02 ----------------------------------------------------------------------------


def token_label(token: str) -> str:
    """A token as an axis label: blanks visible, no formula, only characters the font has."""
    shown = token.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥")
    drawn = (c if c.isascii() or c in "·⏎⇥" else c.encode("unicode_escape").decode() for c in shown)
    return "".join(drawn).replace("$", r"\$")


def logits_and_probabilities(table: pd.DataFrame) -> Figure:
    """The same tokens twice: logits on the left, probabilities on the right.

    Args:
        table: columns token, logit and probability (%), the best token first.
    """
    figure, (left, right) = new_figure(columns=2)
    bars_by_token(left, table, ["logit"], "logit (no unit)")
    bars_by_token(right, table, ["probability (%)"], "probability (%)")
    return figure


def probabilities_and_draws(table: pd.DataFrame) -> Figure:
    """How probable each token is, and how often it was drawn.

    Args:
        table: columns token, probability (%) and drawn (%), the best token first.
    """
    figure, (axes,) = new_figure()
    bars_by_token(axes, table, ["probability (%)", "drawn (%)"], "share (%)")
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
    axes.set_xticks(sorted(top))
    axes.legend(ncols=3, loc="upper left")
    return figure


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
        axes.barh(places, table[column], height * 0.95, color=COLOURS[n], label=column)
    middles = [row + height * (len(columns) - 1) / 2 for row in range(len(table))]
    axes.set_yticks(middles, [token_label(token) for token in table["token"]])
    axes.invert_yaxis()
    axes.set_xlabel(x_label)
    axes.grid(False, axis="y")
    if len(columns) > 1:
        axes.legend()


def lines(axes: Axes, table: pd.DataFrame, x_label: str, y_label: str) -> None:
    """One line with points a column over the table's index, both axes from 0. (Lessons 02, 03.)

    Args:
        axes: where to draw.
        table: numbers; the column names make the legend.
        x_label: with its unit.
        y_label: with its unit.
    """
    for column in table.columns:
        axes.plot(table.index, table[column], "o-", label=column)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend()


# Lesson 03 ----------------------------------------------------------------------------


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


def left_aligned(table: pd.DataFrame) -> HTML:
    """A table of texts, to be read from the left (notebooks align tables to the right)."""
    from IPython.display import HTML

    markup = table.to_html(border=0).replace("<th>", '<th style="text-align:left">')
    return HTML(markup.replace("<td>", '<td style="text-align:left">'))


def line_figure(
    table: pd.DataFrame, x_label: str, y_label: str, alt: str, log: bool = False
) -> HTML:
    """A figure of lines with points, one a column, over the table's index.

    Args:
        table: numbers; the column names are the legend.
        x_label: with its unit.
        y_label: with its unit.
        alt: what the figure shows.
        log: a logarithmic vertical axis (all values above 0).
    """
    figure, (axes,) = new_figure(height=3.0)
    lines(axes, table, x_label, y_label)
    if len(table.columns) == 1 and (legend := axes.get_legend()):
        legend.remove()  # the axis says it already
    if log:
        axes.set(yscale="log", ylim=(0.8 * float(table.min().min()), None))
    return show(figure, alt)


# Lessons 04 and 05 --------------------------------------------------------------------


def timeline(samples: pd.DataFrame, spans: Sequence[tuple[str, float, float]]) -> Figure:
    """Memory (left) and processor use (right) over time, the named phases shaded.

    Args:
        samples: columns seconds, rss_mb, cpu_percent; gpu_mb is drawn where it is there.
        spans: (name, beginning, end) of each phase in seconds.
    """
    figure, axes = new_figure(width=9.0, height=3.2, columns=2)
    axes[0].plot(samples["seconds"], samples["rss_mb"], color=BLUE, label="memory")
    if "gpu_mb" in samples:
        axes[0].plot(samples["seconds"], samples["gpu_mb"], color=RED, label="GPU tensors")
        axes[0].legend(loc="lower right")
    axes[0].set_ylabel("resident memory (MB)")
    axes[1].plot(samples["seconds"], samples["cpu_percent"], color=ORANGE)
    axes[1].set_ylabel("processor (% of one core)")
    for plot in axes:
        plot.set_xlabel("time (s)")
        plot.set_ylim(bottom=0)
        top = plot.get_ylim()[1]
        plot.set_ylim(0, 1.45 * top)  # room for the names above the curves
        for n, (name, began, ended) in enumerate(spans):
            plot.axvspan(began, ended, color=COLOURS[n % len(COLOURS)], alpha=0.15, lw=0)
            plot.annotate(
                name, ((began + ended) / 2, 1.42 * top), rotation=90, va="top", ha="center",
                fontsize=8,
            )  # fmt: skip
    return figure


def stacked_bars(
    table: pd.DataFrame, x_label: str, alt: str, points: pd.Series | None = None
) -> HTML:
    """Parts that add up: one horizontal bar a row of the table, one colour a column.

    Args:
        table: numbers; the index names the bars, the columns the parts.
        x_label: with its unit.
        alt: what the figure shows.
        points: a value for each bar, drawn as a mark (a measurement, say); its name is
            the legend's.
    """
    figure, (axes,) = new_figure(height=1.4 + 0.45 * len(table))
    rows = list(range(len(table)))
    left = [0.0] * len(table)
    for part in table.columns:
        axes.barh(rows, table[part], left=left, height=0.6, label=str(part))
        left = [start + width for start, width in zip(left, table[part], strict=True)]
    if points is not None:
        axes.plot(points, rows, "D", color="black", markersize=7, label=str(points.name))
    axes.set_yticks(rows, [str(name) for name in table.index])
    axes.invert_yaxis()
    axes.set_xlabel(x_label)
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    figure.legend(loc="outside lower center", ncols=5)
    return show(figure, alt)


def latency_spread(seconds: pd.DataFrame, alt: str) -> HTML:
    """Each call's time in the order of the calls, with median, 95th percentile and mean.

    Args:
        seconds: columns call (1, 2, …) and seconds.
        alt: what the figure shows.
    """
    figure, (axes,) = new_figure()
    axes.plot(seconds["call"], 1000 * seconds["seconds"], "o", color=BLUE, label="one call")
    later = 1000 * seconds["seconds"].iloc[1:]
    for value, name, colour, style in (
        (float(later.median()), "median of the later calls", GREEN, "-"),
        (float(later.quantile(0.95)), "their 95th percentile", ORANGE, "--"),
    ):
        axes.axhline(value, color=colour, linestyle=style, label=name)
    axes.set_xlabel("call")
    axes.set_ylabel("time of one call (ms)")
    axes.set_ylim(bottom=0)
    axes.legend()
    return show(figure, alt)


def frontier(table: pd.DataFrame, alt: str) -> HTML:
    """Quality against speed, one bubble a model, its area the peak memory.

    Args:
        table: columns model, tokens_per_s, tokens_low, tokens_high, bits_per_byte, peak_mb.
        alt: what the figure shows.
    """
    figure, (axes,) = new_figure(height=4.0)
    fastest = float(table["tokens_high"].max())
    for n, row in enumerate(table.to_dict("records")):
        colour = COLOURS[n % len(COLOURS)]
        spread = [
            [row["tokens_per_s"] - row["tokens_low"]],
            [row["tokens_high"] - row["tokens_per_s"]],
        ]
        at = (row["tokens_per_s"], row["bits_per_byte"])
        axes.errorbar(*at, xerr=spread, color=colour, capsize=4, zorder=2)
        axes.scatter(*at, s=row["peak_mb"], color=colour, alpha=0.75, zorder=3)
        axes.annotate(
            f"{row['model']}\n{row['peak_mb']:.0f} MB", at, xytext=(0, 18),
            textcoords="offset points", fontsize=9,
            ha="left" if at[0] < 0.2 * fastest else "center",
        )  # fmt: skip
    axes.set_xlabel("speed (tokens/s), whiskers: slowest and fastest run")
    axes.set_ylabel("held-out bits per byte (lower is better)")
    axes.set_xlim(0, 1.15 * fastest)
    axes.margins(y=0.35)
    axes.invert_yaxis()  # better is up
    return show(figure, alt)


def compare_bars(table: pd.DataFrame, columns: dict[str, str], alt: str) -> HTML:
    """Some measurements of several models, a small plot each.

    Args:
        table: a column model, and the columns to draw.
        columns: column → axis label with its unit.
        alt: what the figure shows.
    """
    figure, axes = new_figure(width=9.0, height=1.0 + 0.4 * len(table), columns=len(columns))
    rows = list(range(len(table)))
    for n, (plot, (column, label)) in enumerate(zip(axes, columns.items(), strict=True)):
        plot.barh(rows, table[column], color=COLOURS[n % len(COLOURS)], height=0.6)
        plot.set_yticks(rows, list(table["model"]) if n == 0 else [""] * len(rows))
        plot.invert_yaxis()
        plot.set_xlabel(label)
        plot.grid(True, axis="x")
        plot.grid(False, axis="y")
    return show(figure, alt)


def size_lines(table: pd.DataFrame, alt: str) -> HTML:
    """Memory of models in several number formats, on a logarithmic scale.

    Args:
        table: the index names the models; columns such as fp16_gb, in GB.
        alt: what the figure shows.
    """
    figure, (axes,) = new_figure(height=1.2 + 0.35 * len(table))
    rows = list(range(len(table)))
    formats = [column for column in table.columns if column.endswith("_gb")]
    for column, mark in zip(formats, "os^D", strict=False):
        axes.plot(table[column], rows, mark, markersize=7, label=column.removesuffix("_gb"))
    for gb in (1, 8, 24, 80):
        axes.axvline(gb, color="gray", linestyle=":", linewidth=1)
        axes.annotate(f"{gb} GB", (gb, -0.8), fontsize=8, ha="center")
    axes.set_xscale("log")
    axes.set_yticks(rows, [str(name) for name in table.index])
    axes.set_ylim(len(table) - 0.5, -1.1)
    axes.set_xlabel("memory for one sequence (GB, logarithmic)")
    axes.grid(True, axis="x")
    axes.legend(loc="lower left")
    return show(figure, alt)


# Lesson 06 ----------------------------------------------------------------------------


def service_path(alt: str) -> HTML:
    """What a request passes on its way through the course's server, as boxes and arrows.

    Args:
        alt: what the figure shows.
    """
    figure, (axes,) = new_figure(height=3.0)
    axes.axis("off")
    axes.set(xlim=(0, 100), ylim=(0, 44))
    boxes = [
        (0, "client", "Python, curl,\nbrowser", SKY),
        (22, "validation", "many threads\n400 if wrong", GREEN),
        (45, "queue", "bounded:\n503 if full", ORANGE),
        (68, "engine", "one thread\none step for\nall slots", BLUE),
        (89, "model", "", PURPLE),
    ]
    width = {"model": 11}
    for x, name, note, colour in boxes:
        wide = width.get(name, 17)
        axes.add_patch(_rounded(x, 16, wide, 20, colour))
        axes.text(x + wide / 2, 32 if note else 26, name, ha="center", va="center", weight="bold")
        axes.text(x + wide / 2, 24, note, ha="center", va="center", fontsize=8.5)
    arrow: dict[str, Any] = {"arrowstyle": "->", "color": "#333333", "lw": 1.3}
    for start, end in ((17, 22), (39, 45), (62, 68)):
        axes.annotate("", (end, 26), (start, 26), arrowprops=arrow)
    axes.annotate("", (89, 26), (85, 26), arrowprops=arrow | {"arrowstyle": "<->"})
    axes.plot([76.5, 76.5, 8.5, 8.5], [16, 6, 6, 12], color="#333333", lw=1.3)
    axes.annotate("", (8.5, 16), (8.5, 8), arrowprops=arrow)
    axes.text(42.5, 8, "answer: whole, or piece by piece", ha="center", fontsize=9)
    return show(figure, alt)


def _rounded(x: float, y: float, width: float, height: float, colour: str) -> Any:
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=2",
        facecolor=f"{colour}33", edgecolor=colour, linewidth=1.4,
    )  # fmt: skip


def load_bars(loads: pd.DataFrame, alt: str) -> HTML:
    """Median latency and throughput, a group of bars a number of clients.

    Args:
        loads: index (batching, clients); columns latency_ms, p95_ms, tokens_per_s.
        alt: what the figure shows.
    """
    figure, axes = new_figure(columns=2, height=3.0)
    labels = {"latency_ms": "latency (ms): bar p50, dot p95", "tokens_per_s": "tokens per second"}
    clients = list(dict.fromkeys(loads.index.get_level_values("clients")))
    for axis, (column, label) in zip(axes, labels.items(), strict=True):
        for n, (batching, rows) in enumerate(loads.groupby(level="batching", sort=False)):
            at = [clients.index(c) + 0.4 * n - 0.2 for c in rows.index.get_level_values("clients")]
            axis.bar(at, rows[column], width=0.36, color=COLOURS[n], label=str(batching))
            if column == "latency_ms":
                axis.plot(at, rows["p95_ms"], "o", color="#333333", markersize=4)
        axis.set_xticks(range(len(clients)), [str(c) for c in clients])
        axis.set_xlabel("clients at the same time")
        axis.set_ylabel(label)
    axes[1].set_ylim(top=1.25 * float(loads["tokens_per_s"].max()))
    axes[1].legend(title="batching", loc="upper left", ncols=2)
    return show(figure, alt)
