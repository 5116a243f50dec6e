"""The roofline calculator: batch, bits, a machine, and the speed they allow. (Lesson 08.)"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets

from classroom import roofline
from classroom.widgets.pieces import parts_table
from system.errors import ParameterError
from system.markup import safe

BITS = (4, 5, 8, 16, 32)  # of a weight; 5 are Q4_1's, with its scales


class RooflineCalculator(widgets.VBox):
    """Move batch, format, bandwidth and peak: the most tokens a second, and what limits them.

    Attributes:
        model: whose weights are read.
        rows, bits: texts in the batch; bits of a weight.
        bandwidth: GB/s (10⁹ bytes).
        peak: billion operations/s.
        shown: the bounds as HTML.
    """

    def __init__(self, models: Mapping[str, float], bandwidth: float, peak: float) -> None:
        """Show the first model's bounds on this machine.

        Args:
            models: name → number of parameters.
            bandwidth: measured, bytes/s.
            peak: measured, operations/s.

        Raises:
            ParameterError: no models, or a number that is not above 0.
        """
        if not models:
            raise ParameterError("models", models, "at least one name with its parameters")
        for name, value in {"bandwidth": bandwidth, "peak": peak}.items():
            if not value > 0:
                raise ParameterError(name, value, "above 0")
        self._models = dict(models)
        wide: dict[str, Any] = {
            "style": {"description_width": "160px"},
            "layout": {"width": "min(460px, 96%)"},
        }
        self.model = widgets.Dropdown(options=list(models), description="model", **wide)
        powers = [2**n for n in range(11)]
        self.rows = widgets.SelectionSlider(options=powers, value=1, description="batch", **wide)
        self.bits = widgets.SelectionSlider(
            options=BITS, value=32, description="bits of a weight", **wide
        )
        self.bandwidth = _log_slider(bandwidth / 1e9, "bandwidth (GB/s)", wide)
        self.peak = _log_slider(peak / 1e9, "peak (10⁹ operations/s)", wide)
        self.shown = widgets.HTML()
        controls = [self.model, self.rows, self.bits, self.bandwidth, self.peak]
        for control in controls:
            control.observe(self._changed, names="value")
        super().__init__([*controls, self.shown])
        self._changed()

    def __repr__(self) -> str:
        return "Roofline calculator: run this cell in Jupyter to move its sliders."

    def _changed(self, _: object = None) -> None:
        bandwidth, peak = 1e9 * self.bandwidth.value, 1e9 * self.peak.value
        numbers = self._models[self.model.value]
        found = roofline.step(numbers, self.bits.value, self.rows.value, bandwidth, peak)
        longest = max(found.reading_s, found.computing_s)
        parts = {"reading the weights": found.reading_s, "computing": found.computing_s}
        bars = {name: (f"{1000 * s:,.3g} ms", 100 * s / longest) for name, s in parts.items()}
        turn = roofline.ridge(self.bits.value, bandwidth, peak)
        self.shown.value = parts_table(bars) + (
            f"<b>{safe(self.model.value)}: at most {found.tokens_per_s:,.4g} tokens/s.</b> "
            f"The limit is {found.bound}. Arithmetic becomes the limit "
            + (f"from a batch of {math.ceil(turn):,} on." if turn > 1 else "at every batch.")
        )


def _log_slider(value: float, description: str, wide: Mapping[str, Any]) -> widgets.FloatLogSlider:
    """A slider from a tenth of the machine's value to a thousand times as much."""
    return widgets.FloatLogSlider(
        value, base=10, min=_power(value) - 1, max=_power(value) + 3, step=0.05,
        description=description, readout_format=".3s", **wide,
    )  # fmt: skip


def _power(value: float) -> float:
    """The power of ten below a number."""
    return math.floor(math.log10(value))
