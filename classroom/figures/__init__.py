"""The figures of the course: one style, units on the axes, a description for each.

`style` makes and shows figures; the other modules draw, one a topic. matplotlib is
imported by the first figure.
"""

from classroom.figures.basics import bar_list, grouped_bars, line_figure, lines, stacked_bars
from classroom.figures.comparison import compare_bars, frontier
from classroom.figures.generation import (
    bars_by_token,
    candidates_by_step,
    distributions,
    logits_and_probabilities,
    reading_and_writing,
    time_over_length,
)
from classroom.figures.inference import roofline
from classroom.figures.inside import attention_map, inside
from classroom.figures.operating import four_kinds, knee_figure, slot_timeline, waiting_curve
from classroom.figures.prompts import calibration, intervals, probability_strip
from classroom.figures.resources import latency_spread, monitored, size_lines, timeline
from classroom.figures.scaling import waits_over_use
from classroom.figures.serving import load_bars, service_path
from classroom.figures.style import BLUE, COLOURS, GREEN, ORANGE, PURPLE, RED, SKY, new_figure, show
from classroom.figures.tokens import context_use, merge_steps, padding_grid, vocabulary_sizes
from system.markup import left_aligned

__all__ = [
    "BLUE", "COLOURS", "GREEN", "ORANGE", "PURPLE", "RED", "SKY", "attention_map",
    "bar_list", "bars_by_token",
    "calibration", "candidates_by_step", "compare_bars", "context_use", "distributions",
    "four_kinds", "frontier", "grouped_bars",
    "inside", "intervals", "knee_figure",
    "latency_spread", "left_aligned", "line_figure", "lines", "load_bars",
    "logits_and_probabilities", "merge_steps", "monitored", "new_figure", "padding_grid",
    "probability_strip", "reading_and_writing", "roofline", "service_path", "show",
    "size_lines", "slot_timeline", "stacked_bars", "time_over_length", "timeline",
    "vocabulary_sizes", "waiting_curve", "waits_over_use",
]  # fmt: skip
