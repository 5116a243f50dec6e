"""Widgets that compute memory before anything is loaded. (Lessons 04 and 05.)"""

from __future__ import annotations

import html

import ipywidgets as widgets

from helpers import memory
from helpers.errors import ParameterError


class MemoryCalculator(widgets.VBox):
    """Choose model, format, length and batch: the parts of the memory, and the cards they fit.

    Attributes:
        model, precision: what to load, and in which number format.
        tokens: tokens of each sequence, half of them the prompt's.
        batch: sequences at once.
        shown: the parts as HTML bars.
    """

    CARDS_GB = (8, 16, 24, 48, 80)

    def __init__(self, models: list[str], precision: str = "fp16") -> None:
        """Show the first model's memory.

        Args:
            models: names as `memory.shape` takes them.
            precision: one of `memory.PRECISIONS`, at first.

        Raises:
            ParameterError: no models, or an unknown name or format.
        """
        if not models:
            raise ParameterError("models", models, "a list of at least one name")
        self._shapes = {name: memory.shape(name) for name in models}
        if precision not in memory.PRECISIONS:
            raise ParameterError("precision", precision, f"one of {', '.join(memory.PRECISIONS)}")
        self.model = widgets.Dropdown(options=list(self._shapes), description="model")
        self.precision = widgets.Dropdown(
            options=list(memory.PRECISIONS), value=precision, description="format"
        )
        self.tokens = widgets.IntSlider(512, 2, 4096, description="tokens")
        self.batch = widgets.IntSlider(1, 1, 64, description="batch")
        self.shown = widgets.HTML()
        for control in (self.model, self.precision, self.tokens, self.batch):
            control.observe(self._changed, names="value")
        super().__init__([self.model, self.precision, self.tokens, self.batch, self.shown])
        self._changed()

    def __repr__(self) -> str:
        return "Memory calculator: run this cell in Jupyter to move its sliders."

    def _changed(self, _: object = None) -> None:
        of = self._shapes[self.model.value]
        tokens = min(self.tokens.value, of.context)
        needs = memory.estimate(
            of, tokens - tokens // 2, tokens // 2, self.batch.value, self.precision.value
        )
        parts = {
            "weights": needs.weights_mb,
            "KV cache": needs.kv_cache_mb,
            "activations": needs.activations_mb,
        }
        rows = "".join(
            f"<tr><td>{name}</td><td style='text-align:right'>{_size(mb)}</td>"
            f"<td style='width:60%'><div style='background:#0072B2;height:0.8em;"
            f"width:{100 * mb / needs.running_mb:.1f}%'></div></td></tr>"
            for name, mb in parts.items()
        )
        fits = [f"{gb} GB" for gb in self.CARDS_GB if needs.running_mb <= 1000 * gb]
        short = "" if tokens == self.tokens.value else f" The context ends at {tokens:,} tokens."
        self.shown.value = (
            f"<table role='status' style='width:95%'>{rows}</table>"
            f"<b>{html.escape(self.model.value)}: {_size(needs.running_mb)}</b> and the framework. "
            f"{'Smallest card: ' + fits[0] if fits else 'No single card here holds it'}.{short}"
        )


def _size(mb: float) -> str:
    """Megabytes as people read them."""
    return f"{mb / 1000:,.2f} GB" if mb >= 1000 else f"{mb:,.1f} MB"
