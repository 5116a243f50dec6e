"""Figures draw what their axes say: data read back, in the unit of the label.

Every case starts from quantities in base units (bytes, seconds, shares of 1, tokens, tokens a
second). What a figure drew, times the unit that stands on its axis, must be these again: a
factor of 1000 too much or too little, or two columns exchanged, cannot hide.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from transformers import GPT2Config

from classroom import figures
from classroom.figures.style import label, token_label
from classroom.queueing import mean_wait
from helpers.monitor import ResourceMonitor, get_memory_usage

UNITS = {
    "MB": 1e6, "GB": 1e9, "ms": 1e-3, "s": 1.0, "%": 1e-2, "tokens/s": 1.0, "tokens": 1.0,
    "tokens per second": 1.0, "new tokens": 1.0, "million parameters": 1e6, "no unit": 1.0,
    "clients": 1.0, "call": 1.0, "step": 1.0, "% of one core": 1e-2, "tokens for 100 bytes": 1e-2,
}  # fmt: skip
ALT = "What the figure says"


def per_unit(axis_label: str) -> float:
    """One unit of the label in base units; the unit stands in brackets, else it is the label."""
    words = re.search(r"\(([^,)]*)", axis_label)
    name = words[1] if words and words[1] in UNITS else axis_label
    found = [unit for unit in UNITS if name == unit] or [u for u in UNITS if u in name]
    assert found, f"no unit on the axis: {axis_label!r}"
    return UNITS[max(found, key=len)]


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Figure]:
    """Call a function of `figures`, and get the figure that became the picture (or is given)."""
    saved: list[Figure] = []
    save = Figure.savefig

    def remember(figure: Figure, *args: Any, **options: Any) -> None:
        saved.append(figure)
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", remember)

    def drawn(function: Callable[..., Any], *args: Any, **options: Any) -> Figure:
        result = function(*args, **options)
        if isinstance(result, Figure):
            result = figures.show(result, ALT)
        assert 'src="data:image/png;base64,' in result.data and "alt=" in result.data
        return saved[-1]

    return drawn


def lying(axes: Any) -> list[float]:
    """Lengths of lying bars, in base units."""
    return [bar.get_width() * per_unit(axes.get_xlabel()) for bar in axes.patches]


def standing(axes: Any) -> list[float]:
    """Heights of standing bars, in base units."""
    return [bar.get_height() * per_unit(axes.get_ylabel()) for bar in axes.patches]


def curve(axes: Any, number: int = 0) -> tuple[list[float], list[float]]:
    """x and y of one curve, in base units."""
    line = axes.lines[number]
    across, up = (np.asarray(data, dtype=float) for data in line.get_data())
    return (
        list(across * per_unit(axes.get_xlabel())),
        list(up * per_unit(axes.get_ylabel())),
    )


def near(values: Sequence[float]) -> Any:
    return pytest.approx(list(values), rel=1e-9)


def test_bar_list(draw: Callable[..., Any]) -> None:
    held = [300e6, 25e6]  # bytes
    figure = draw(
        figures.bar_list, ["a", "b"], [b / 1e6 for b in held], "memory (MB)", highlight="b"
    )
    assert lying(figure.axes[0]) == near(held)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["a", "b"]
    assert [t.get_text() for t in figure.axes[0].texts] == ["300.0", "25.0"]
    assert figure.axes[0].patches[1].get_facecolor()[:3] == pytest.approx(to_rgb(figures.ORANGE))
    with pytest.raises(ValueError, match="values"):
        figures.bar_list(["a"], [1, 2], "x")


def test_line_figure(draw: Callable[..., Any]) -> None:
    table = pd.DataFrame({"a": [0.2, 0.4], "b": [0.1, 0.9]}, index=[10, 20])
    axes = draw(figures.line_figure, table, "new tokens", "time (s)", ALT).axes[0]
    assert curve(axes, 0) == (near([10, 20]), near([0.2, 0.4]))
    assert curve(axes, 1) == (near([10, 20]), near([0.1, 0.9]))
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["a", "b"]
    assert axes.get_xlim()[0] == axes.get_ylim()[0] == 0
    log = draw(figures.line_figure, table, "new tokens", "time (s)", ALT, log=True).axes[0]
    assert log.get_yscale() == "log" and 0 < log.get_ylim()[0] <= 0.1


def test_stacked_bars_add_up(draw: Callable[..., Any]) -> None:
    table = pd.DataFrame({"weights": [20.0, 40], "cache": [5.0, 10]}, index=["a", "b"])
    points = pd.Series([26.0, 49], name="measured")
    axes = draw(figures.stacked_bars, table, "memory (MB)", ALT, points=points).axes[0]
    ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
    assert ends == [(0, 20), (0, 40), (20, 25), (40, 50)]
    assert list(np.asarray(axes.lines[0].get_xdata())) == [26, 49]
    assert per_unit(axes.get_xlabel()) == 1e6


def test_roofline(draw: Callable[..., Any]) -> None:
    """Points in billions of operations; each roof is a slope of the bandwidth up to its level."""
    points = pd.DataFrame({"technique": ["a", "b"], "model": ["m", "m"],
                           "intensity": [0.5, 16.0], "speed": [4e9, 1e11]})  # fmt: skip
    axes = draw(figures.roofline, points, 20e9, {"peak": 2e11}, ALT).axes[0]
    x, y = curve(axes, 0)
    assert x[1] == pytest.approx(10) and y[1] == y[2] == pytest.approx(200)
    assert y[0] / x[0] == pytest.approx(20)
    assert curve(axes, 1) == (near([0.5]), near([4])) and curve(axes, 2) == (
        near([16]),
        near([100]),
    )
    assert axes.get_xscale() == axes.get_yscale() == "log"


def test_merge_steps(draw: Callable[..., Any]) -> None:
    axes = draw(figures.merge_steps, [["a", "b", "c"], ["ab", "c"], ["abc"]]).axes[0]
    assert [t.get_text() for t in axes.texts] == ["a", "b", "c", "ab", "c", "abc"]
    new = [bar.get_facecolor()[:3] == pytest.approx(to_rgb(figures.ORANGE)) for bar in axes.patches]
    assert new == [False, False, False, True, False, True]


def test_vocabulary_sizes(draw: Callable[..., Any]) -> None:
    rows = {"seen": [40.0, 30], "unseen": [50.0, 45], "embedding": [1.5e6, 6e6]}
    left, right = draw(figures.vocabulary_sizes, pd.DataFrame(rows, index=[1000, 4000])).axes
    assert curve(left, 0) == (near([1000, 4000]), near([0.4, 0.3]))  # tokens for one byte
    assert curve(left, 1)[1] == near([0.5, 0.45])
    assert curve(right)[1] == near([1.5e6, 6e6])


def test_padding_grid(draw: Callable[..., Any]) -> None:
    axes = draw(figures.padding_grid, [["pad", "a"], ["b c", "\n"]], [[0, 1], [1, 1]]).axes[0]
    assert [t.get_text() for t in axes.texts] == ["pad", "a", "b·c", "⏎"]
    grey = [bar.get_facecolor()[:3] == pytest.approx(to_rgb("#dddddd")) for bar in axes.patches]
    assert grey == [True, False, False, False]
    with pytest.raises(ValueError, match="mask"):
        figures.padding_grid([["a"]], [[1, 1]])


def test_context_use(draw: Callable[..., Any]) -> None:
    axes = draw(figures.context_use, {"short": (7, 40), "long": (600, 50)}, 512).axes[0]
    assert lying(axes) == near([7, 600, 40, 50])
    assert [bar.get_x() for bar in axes.patches] == [0, 0, 7, 600]
    assert axes.lines[0].get_xdata()[0] == 512


def test_probabilities_are_in_percent(draw: Callable[..., Any]) -> None:
    share, drawn = [0.6, 0.1], [0.58, 0.12]
    table = pd.DataFrame(
        {"token": ["a", " b"], "logit": [9.5, 7.0], "probability (%)": [100 * p for p in share],
         "drawn (%)": [100 * p for p in drawn]}
    )  # fmt: skip
    left, right = draw(figures.logits_and_probabilities, table).axes
    assert lying(left) == near([9.5, 7.0]) and lying(right) == near(share)
    assert [t.get_text() for t in right.get_yticklabels()] == ["a", "·b"]
    axes = draw(figures.distributions, table.drop(columns="logit"), ALT).axes[0]
    assert lying(axes) == near([*share, *drawn])
    steps = pd.DataFrame(
        {"step": [1, 1, 2, 2], "rank": [1, 2, 1, 2], "token": list("abcd"),
         "probability (%)": [60.0, 10, 30, 20]}
    )  # fmt: skip
    axes = draw(figures.candidates_by_step, steps).axes[0]
    assert standing(axes) == near([0.6, 0.3, 0.1, 0.2])
    assert [bar.get_y() for bar in axes.patches] == [0, 0, 60, 30]


def test_reading_and_writing(draw: Callable[..., Any]) -> None:
    read, write = np.array([0.004, 0.012]), np.array([0.0021, 0.0023])  # seconds
    lengths = np.array([20, 200])
    table = pd.DataFrame(
        {"read the prompt": 1e3 * read, "write one token": 1e3 * write,
         "read, per token": 1e3 * read / lengths}, index=lengths
    )  # fmt: skip
    left, right = draw(figures.reading_and_writing, table).axes
    assert curve(left, 0) == (near([20, 200]), near(list(read)))
    assert curve(left, 1)[1] == near(list(write)) == curve(right, 1)[1]
    assert curve(right, 0)[1] == near(read / lengths)


def test_time_over_length(draw: Callable[..., Any]) -> None:
    table = pd.DataFrame({"with": [0.1, 0.2], "without": [0.3, 1.1]}, index=[25, 50])
    axes = draw(figures.time_over_length, table).axes[0]
    assert curve(axes, 1) == (near([25, 50]), near([0.3, 1.1]))


def test_timeline(draw: Callable[..., Any]) -> None:
    """Memory in bytes, GPU memory too, processor as a share of one core."""
    memory, gpu, busy, seconds = [400e6, 420e6], [1e6, 9e6], [0.5, 1.9], [0.0, 0.25]
    table = pd.DataFrame(
        {"seconds": seconds, "rss_mb": [b / 1e6 for b in memory],
         "cpu_percent": [100 * b for b in busy], "gpu_mb": [b / 1e6 for b in gpu]}
    )  # fmt: skip
    left, right = draw(figures.timeline, table, [("load", 0.05, 0.2)]).axes
    assert curve(left, 0) == (near(seconds), near(memory))
    assert curve(left, 1)[1] == near(gpu)
    assert curve(right) == (near(seconds), near(busy))
    shaded = left.patches[0]
    assert (shaded.get_x(), shaded.get_width()) == pytest.approx((0.05, 0.15))


def test_a_monitored_block_is_drawn_in_its_unit(draw: Callable[..., Any]) -> None:
    """The whole way from this process's memory to the axis, measured a second time here."""
    with ResourceMonitor(interval=0.02) as monitor, monitor.phase("work"):
        sum(n * n for n in range(2_000_000))
    left, right = draw(figures.monitored, monitor).axes
    held = get_memory_usage() * 1e6
    assert max(curve(left)[1]) == pytest.approx(held, rel=0.3)
    ends = curve(left)[0][-1]
    assert ends == pytest.approx(max(s.get_x() + s.get_width() for s in left.patches), rel=0.5)
    assert 0.05 < ends < 60


def test_latency_spread(draw: Callable[..., Any]) -> None:
    taken = [0.9, 0.2, 0.21, 0.25]  # seconds
    table = pd.DataFrame({"call": [1, 2, 3, 4], "seconds": taken})
    axes = draw(figures.latency_spread, table, ALT).axes[0]
    assert curve(axes) == (near([1, 2, 3, 4]), near(taken))
    assert curve(axes, 1)[1][0] == pytest.approx(0.21)
    assert curve(axes, 2)[1][0] == pytest.approx(np.quantile(taken[1:], 0.95))
    names = [t.get_text() for t in axes.get_legend().get_texts()]
    assert names == ["one call", "median of the later calls", "their 95th percentile"]


def test_grouped_bars(draw: Callable[..., Any]) -> None:
    table = pd.DataFrame({"ours": [10.0, 30.0], "theirs": [20.0, 40.0]}, index=["English", "Thai"])
    axes = draw(figures.grouped_bars, table, "tokens of one message", 50).axes[0]
    assert lying(axes) == near([10, 30, 20, 40])
    assert [t.get_text() for t in axes.get_yticklabels()] == ["English", "Thai"]
    assert axes.get_xlim() == (0, pytest.approx(54))
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["ours", "theirs"]


def test_size_lines(draw: Callable[..., Any]) -> None:
    held = {"fp32": [28e9, 0.5e9], "int4": [3.5e9, 0.07e9]}  # bytes
    table = pd.DataFrame(
        {f"{n}_gb": [b / 1e9 for b in s] for n, s in held.items()}, index=["7B", "gpt2"]
    )
    axes = draw(figures.size_lines, table, ALT).axes[0]
    for number, (name, sizes) in enumerate(held.items()):
        line = axes.lines[number]
        drawn = np.asarray(line.get_xdata(), dtype=float) * per_unit(axes.get_xlabel())
        assert list(drawn) == near(sizes) and line.get_label() == name
        assert list(np.asarray(line.get_ydata())) == [0, 1]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["7B", "gpt2"]


def test_frontier(draw: Callable[..., Any]) -> None:
    table = pd.DataFrame(
        {"model": ["small", "large"], "tokens_per_s": [400.0, 90.0], "tokens_low": [380.0, 80.0],
         "tokens_high": [410.0, 95.0], "bits_per_byte": [1.5, 1.3], "peak_mb": [350.0, 600.0],
         "parameters_m": [4.0, 16.0]}
    )  # fmt: skip
    axes = draw(figures.frontier, table, ALT, beaten=["large"]).axes[0]
    points = [dots.get_offsets()[0].tolist() for dots in axes.collections
              if len(dots.get_offsets()) and hasattr(dots, "get_sizes")]  # fmt: skip
    assert points == [[400.0, 1.5], [90.0, 1.3]]
    assert per_unit(axes.get_xlabel()) == UNITS["tokens/s"] and "bits per byte" in axes.get_ylabel()
    areas = [dots.get_sizes()[0] for dots in axes.collections if hasattr(dots, "get_sizes")]
    assert areas[1] / areas[0] == pytest.approx(16 / 4)
    filled = [to_hex(dots.get_facecolor()[0]) for dots in axes.collections
              if hasattr(dots, "get_sizes")]  # fmt: skip
    assert filled[1] == "#ffffff" != filled[0], "what is beaten is hollow"
    notes = [t.get_text() for t in axes.texts]
    assert any("small" in n and "350 MB" in n and "4M" in n for n in notes)
    assert any("large" in n and "600 MB" in n for n in notes)


def test_compare_bars(draw: Callable[..., Any]) -> None:
    load, peak, first = [0.4, 0.9], [350e6, 600e6], [0.004, 0.011]  # seconds, bytes, seconds
    table = pd.DataFrame(
        {"model": ["a", "b"], "load_s": load, "peak_mb": [b / 1e6 for b in peak],
         "ttft_ms": [1e3 * s for s in first]}
    )  # fmt: skip
    columns = {
        "load_s": "load time (s)",
        "peak_mb": "peak memory (MB)",
        "ttft_ms": "first token (ms)",
    }
    panels = draw(figures.compare_bars, table, columns, ALT).axes
    assert [lying(panel) for panel in panels] == [near(load), near(peak), near(first)]


def test_load_bars(draw: Callable[..., Any]) -> None:
    """Latency and throughput each on its own axis, the p95 as a dot over its bar."""
    index = pd.MultiIndex.from_product([["step", "static"], [1, 8]], names=["batching", "clients"])
    half, late, speed = [0.2, 0.4, 0.3, 0.9], [0.25, 0.6, 0.5, 1.5], [80.0, 300, 70, 200]
    table = pd.DataFrame(
        {"latency_ms": [1e3 * s for s in half], "p95_ms": [1e3 * s for s in late],
         "tokens_per_s": speed}, index=index
    )  # fmt: skip
    left, right = draw(figures.load_bars, table, ALT).axes
    assert standing(left) == near(half) and standing(right) == near(speed)
    dots = [value for line in left.lines for value in np.asarray(line.get_ydata(), dtype=float)]
    assert [per_unit(left.get_ylabel()) * value for value in dots] == near(late)
    assert "latency" in left.get_ylabel() and "tokens" in right.get_ylabel()
    assert [t.get_text() for t in left.get_xticklabels()] == ["1", "8"]


def test_slots_over_time(draw: Callable[..., Any]) -> None:
    """Bars are as long as a text sat there, from the step before; hatched where it had ended."""
    rows = [(1, 1, 1, True), (2, 1, 1, True), (3, 1, 1, False), (1, 2, 2, True)]
    table = pd.DataFrame(rows, columns=["step", "slot", "request", "works"])
    axes = draw(figures.slot_timeline, {"one": table, "other": table}, ALT).axes
    assert [axis.get_title() for axis in axes] == ["one", "other"]
    bars = {(b.get_x(), b.get_width(), b.get_hatch() or "") for b in axes[1].patches}
    assert bars == {(0, 2, ""), (2, 1, "////"), (0, 1, "")}
    assert {t.get_text() for t in axes[0].texts} == {"1", "2"}


def test_the_knee_is_marked(draw: Callable[..., Any]) -> None:
    speed, half, late = [50.0, 80, 85], [0.1, 0.2, 0.4], [0.2, 0.3, 0.7]
    milliseconds = {"p50_ms": [1e3 * s for s in half], "p95_ms": [1e3 * s for s in late]}
    table = pd.DataFrame({"tokens_per_s": speed, **milliseconds}, index=[1, 4, 16])
    left, right = draw(figures.knee_figure, table, 4, ALT).axes
    assert curve(left, 0) == (near([1, 4, 16]), near(speed))
    assert curve(right, 0)[1] == near(half) and curve(right, 1)[1] == near(late)
    assert list(left.lines[-1].get_xdata()) == [4, 4]


def test_four_kinds_of_metrics(draw: Callable[..., Any]) -> None:
    """Of two loads, one after the other; what came between, and what was before, is left out."""
    names = ["p50_ms", "p95_ms", "p99_ms", "ttft_ms", "tokens_per_s", "rows_per_step", "rss_mb"]
    seconds = pd.Index([0.5, 1.0, 1.5, 2.5], name="seconds")
    table = pd.DataFrame(
        {name: [9.0, 1 + n, 2 + n, 3 + n] for n, name in enumerate(names)}, seconds
    )
    table["cpu_cores"] = [0.1, 0.5, 0.75, 1.0]
    table["phase"] = pd.Series([None, 1, 1, 8], seconds, dtype=object)
    table["errors"] = [{}, {}, {"timeout": 1}, {"timeout": 1, "queue_full": 3}]
    drawn = draw(figures.four_kinds, [table, table], ALT)
    latency, throughput, resources, failed, rows, cores = drawn.axes
    for n in range(4):
        times, found = curve(latency, n)
        assert times == near([0, 0.5, 1.5, 1.5, 2, 3])
        assert found == near([0.001 * (k + n) for k in (1, 2, 3)] * 2)
    assert curve(throughput, 0)[1] == near([5, 6, 7] * 2)
    assert curve(resources, 0)[1] == near([7e6, 8e6, 9e6] * 2)
    assert list(rows.lines[0].get_ydata()) == [6, 7, 8] * 2
    assert list(cores.lines[0].get_ydata()) == [0.5, 0.75, 1] * 2
    counts = {line.get_label(): list(line.get_ydata()) for line in failed.lines}
    assert counts == {"timeout": [0, 1, 1, 1, 2, 2], "queue_full": [0, 0, 3, 3, 3, 6]}
    assert [text.get_text() for text in latency.texts] == ["1", "8", "1", "8"]
    table["errors"] = [{}] * 4
    draw(figures.four_kinds, [table], ALT)  # no error is no failure of the figure


def test_waiting_over_use(draw: Callable[..., Any]) -> None:
    table = pd.DataFrame({"slots: 1": [0.5, 2.0]}, index=[50, 90])
    (axes,) = draw(figures.waiting_curve, table, ALT).axes
    assert curve(axes, 0) == (near([0.5, 0.9]), near([0.5, 2.0]))


def test_service_path_names_every_station(draw: Callable[..., Any]) -> None:
    words = {t.get_text() for t in draw(figures.service_path, ALT).axes[0].texts}
    assert {"client", "validation", "queue", "engine", "model"} <= words


def test_a_model_is_drawn_from_its_configuration(draw: Callable[..., Any]) -> None:
    config = GPT2Config(n_layer=3, n_head=4, n_embd=256, vocab_size=8192)
    (axes,) = draw(figures.inside, config).axes
    said = "\n".join(text.get_text() for text in axes.texts)
    assert "8,192 rows\nof 256 numbers" in said and "layer, 3 times" in said


def test_attention_is_in_percent(draw: Callable[..., Any]) -> None:
    shares = np.array([[1.0, 0.0], [0.25, 0.75]])
    axes, bar = draw(figures.attention_map, shares, ["a", " b"]).axes
    drawn = np.asarray(axes.images[0].get_array()) * per_unit(bar.get_ylabel())
    assert drawn == pytest.approx(shares)
    assert [t.get_text() for t in axes.get_yticklabels()] == ["a", "·b"]


def test_intervals_reach_from_low_to_high(draw: Callable[..., Any]) -> None:
    shares = {
        "first": {"value": [0.5, 0.7], "low": [0.4, 0.65], "high": [0.55, 0.8]},
        "second": {"value": [0.2, 0.3], "low": [0.1, 0.2], "high": [0.25, 0.6]},
    }
    kinds = ["zero-shot", "few-shot"]
    tables = {name: 100 * pd.DataFrame(share, index=kinds) for name, share in shares.items()}
    (axes,) = draw(figures.intervals, tables, "accuracy (%)", ALT, chance=25).axes
    unit = per_unit(axes.get_xlabel())
    assert [c.get_label() for c in axes.containers] == ["first", "second"]
    for drawn, share in zip(axes.containers, shares.values(), strict=True):
        points, _, (reach,) = drawn
        assert points.get_xdata() * unit == pytest.approx(share["value"])
        rows = np.round(np.asarray(points.get_ydata(), float))
        assert rows == pytest.approx([0, 1]), "beside their names"
        ends = np.array([line[:, 0] for line in reach.get_segments()]) * unit
        assert ends[:, 0] == pytest.approx(share["low"])
        assert ends[:, 1] == pytest.approx(share["high"])
    first, second = (drawn[0].get_ydata() for drawn in axes.containers)
    assert not set(first) & set(second), "no table hides another"
    guessing = next(line for line in axes.lines if line.get_label() == "guessing")
    assert guessing.get_xdata()[0] * unit == pytest.approx(0.25)


def test_calibration_sets_accuracy_over_confidence(draw: Callable[..., Any]) -> None:
    confidence, right = [30, 34, 90, 92, 94, 96, 98, 100], [0, 100, 0, 0, 100, 100, 100, 100]
    judged = pd.DataFrame({"confidence": confidence, "right": right})
    (axes,) = draw(figures.calibration, judged, ALT).axes
    drawn = np.asarray(axes.collections[0].get_offsets())
    assert drawn[:, 0] * per_unit(axes.get_xlabel()) == pytest.approx([0.32, 0.95])
    assert drawn[:, 1] * per_unit(axes.get_ylabel()) == pytest.approx([0.5, 4 / 6])
    few, many = axes.collections[0].get_sizes()
    assert many / few == pytest.approx(3), "areas count the items"


def test_a_strip_says_each_tokens_probability() -> None:
    page = figures.probability_strip(["a", " <b>"], [0.9, 0.004]).data
    assert "title='90.0%'" in page and "title='0.4%'" in page
    assert "<b>" not in page and "a 90%" in page
    shades = [float(shade) for shade in re.findall(r"rgba\(213,94,0,([\d.]+)\)", page)]
    assert shades[0] < shades[1], "the unexpected is darker"


def test_waits_over_use(draw: Callable[..., Any]) -> None:
    """The curve is the formula's, the points are the table's."""
    table = pd.DataFrame({"measured": [90.0, 300.0], "played": [80.0, 310.0]}, index=[0.5, 0.9])
    axes = draw(figures.waits_over_use, table, 4, 0.5, ALT).axes[0]
    across, up = curve(axes)
    assert up == near([mean_wait(4, use * 4 / 0.5, 0.5) for use in across])
    assert curve(axes, 1) == (near([0.5, 0.9]), near([0.08, 0.31]))
    assert curve(axes, 2) == (near([0.5, 0.9]), near([0.09, 0.3]))


def test_every_figure_of_the_package_is_tested_here() -> None:
    """A new figure needs its data read back, too."""
    own = {name for name in figures.__all__ if inspect.isfunction(getattr(figures, name))}
    source = inspect.getsource(inspect.getmodule(per_unit))  # type: ignore[arg-type]
    tested = set(re.findall(r"figures\.(\w+)", source))
    inside = {"new_figure", "lines", "bars_by_token", "left_aligned"}  # parts of others, a table
    assert own - tested - inside == set()


def test_a_figure_needs_its_description() -> None:
    figure, _ = figures.new_figure()
    with pytest.raises(ValueError, match="alt"):
        figures.show(figure, " ")
    assert 'alt="&quot;a&quot; &lt; b"' in figures.show(figure, '"a" < b').data


# --- any text can stand in a figure

ODD = ["👍🏽🚀 costs $5 & $6", "日本語のテキスト العربية 𝔘", r"\frac{1}{2}$ 👩\u200d🚀 a\u200b"]
ODD += ["\ud83d 😀 ✓ ❤\ufe0f"]


@pytest.mark.parametrize("text", ODD)
def test_every_figure_draws_any_text_without_a_warning(draw: Callable[..., Any], text: str) -> None:
    """Emoji and other scripts: no box for a missing glyph, no formula, nothing on stderr."""
    frame = pd.DataFrame({text: [1.0, 2.0]}, index=[text, "b"])
    numbers = {
        c: [1.0, 2.0] for c in ("tokens_per_s", "tokens_low", "tokens_high", "bits_per_byte")
    }
    models = pd.DataFrame(
        {"model": [text, "b"], "peak_mb": [1.0, 2.0], "parameters_m": [1, 2], **numbers}
    )
    tokens = pd.DataFrame({"token": [text, "b"], text: [60.0, 10.0], "probability (%)": [60.0, 10]})
    steps = tokens.assign(step=[1, 1], rank=[1, 2])
    samples = pd.DataFrame({"seconds": [0.0, 1], "rss_mb": [1.0, 2], "cpu_percent": [1.0, 2]})
    series = pd.Series([1.0, 2.0], name=text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = [
            draw(figures.bar_list, [text, "b"], [1, 2], "size (MB)"),
            draw(figures.stacked_bars, frame, "size (MB)", ALT, points=series),
            draw(figures.line_figure, frame.assign(b=1.0).reset_index(drop=True), "x", "y", ALT),
            draw(figures.merge_steps, [[text, "b"]]),
            draw(
                figures.roofline,
                pd.DataFrame(
                    {"technique": [text], "model": [text], "intensity": [1.0], "speed": [1e9]}
                ),
                1e9,
                {text: 1e10},
                ALT,
            ),
            draw(figures.padding_grid, [[text, "b"]], [[1, 1]]),
            draw(figures.context_use, {text: (1, 2)}, 512),
            draw(figures.distributions, tokens, ALT),
            draw(figures.candidates_by_step, steps),
            draw(figures.timeline, samples, [(text, 0.1, 0.5)]),
            draw(figures.size_lines, frame.set_axis([f"{text}_gb"], axis=1), ALT),
            draw(figures.frontier, models, ALT),
            draw(figures.compare_bars, models, {"peak_mb": "memory (MB)"}, ALT),
        ]
    for figure in drawn:
        texts = {t.get_text() for t in figure.findobj(Text)}
        assert any(label(text) in t or token_label(text) in t for t in texts)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("👍", "⟨thumbs up sign⟩"),
        ("naïve café", "naïve café"),
        ("é✓😀", "é✓😀"),  # the font has these
        ("日", "⟨U+65E5⟩"),
        ("日本語", "⟨3 characters from U+65E5⟩"),
        ("$1", r"\$1"),
        ("a\u200bb", "a⟨U+200B⟩b"),
    ],
)
def test_what_no_font_has_is_named(text: str, expected: str) -> None:
    assert label(text) == expected
