"""Widgets that compute before anything runs: tokens, prices, memory. (Lessons 01, 04, 05.)"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import ipywidgets as widgets

from classroom.widgets.pieces import facts_table, panel, parts_table
from helpers import memory
from helpers.tokens import strip_html, token_text
from system.errors import ParameterError
from system.markup import safe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


CARDS_GB = (8, 16, 24, 48, 80)  # memory of graphics cards, the smallest first
LONGEST = 4096  # tokens on the memory calculator's slider


class TokenCalculator(widgets.VBox):
    """A text box that counts tokens as one types, and says what a request costs. (Lesson 01.)

    Attributes:
        prompt: the text box.
        new_tokens: the slider for the tokens that the model is to write.
        shown: the coloured strip, the costs and, where it applies, a warning, as HTML.
    """

    STRIP_TOKENS = 200  # a longer prompt is counted whole, but only its beginning is drawn

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        cost: Callable[[int, int], dict[str, float]],
        text: str,
        new_tokens: int = 40,
        context: int = 512,
    ) -> None:
        """Show the costs of a first request.

        Args:
            tokenizer: cuts the text up.
            cost: prompt tokens, new tokens → name (with its unit) → value of one request.
            text: the prompt at first.
            new_tokens: tokens to write, at first.
            context: the most tokens, prompt and new ones, that the model holds; from 2.
        """
        self._tokenizer, self._cost, self._context = tokenizer, cost, context
        self.prompt = widgets.Textarea(text, description="prompt", rows=3, layout={"width": "95%"})
        self.new_tokens = widgets.IntSlider(
            min(new_tokens, context - 1), 1, context - 1, description="new tokens"
        )
        self.shown = widgets.HTML()
        for control in (self.prompt, self.new_tokens):
            control.observe(self._changed, names="value")
        super().__init__([self.prompt, self.new_tokens, self.shown])
        self._changed()

    def __repr__(self) -> str:
        return "Token calculator: run this cell in Jupyter to type a prompt."

    def _changed(self, _: object = None) -> None:
        ids = self._tokenizer(self.prompt.value, verbose=False, split_special_tokens=True)[
            "input_ids"
        ]
        drawn = [(i, token_text(self._tokenizer, i)) for i in ids[: self.STRIP_TOKENS]]
        hidden = len(ids) - len(drawn)
        more = f"<small>… and {hidden:,} more tokens</small>" if hidden else ""
        cost = self._cost(len(ids), self.new_tokens.value)
        past = len(ids) + self.new_tokens.value > self._context
        warning = f"<b>Past the context of {self._context:,} tokens: refused.</b>" if past else ""
        table = facts_table({name: f"{value:,}" for name, value in cost.items()}) + warning
        self.shown.value = panel("calculator", table + strip_html(drawn) + more)


class MemoryCalculator(widgets.VBox):
    """Choose model, format, length and batch: the parts of the memory, and the cards they fit.

    Attributes:
        model, precision: what to load, and in which number format.
        tokens: tokens of each sequence, half of them the prompt's.
        batch: sequences at once.
        shown: the parts as HTML bars.
    """

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
        self.tokens = widgets.IntSlider(512, 2, LONGEST, description="tokens")
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
        self.tokens.max = min(LONGEST, of.context)  # a longer value becomes the longest
        tokens = self.tokens.value
        needs = memory.estimate(
            of, tokens - tokens // 2, tokens // 2, self.batch.value, self.precision.value
        )
        parts = {
            "weights": needs.weights_mb,
            "KV cache": needs.kv_cache_mb,
            "activations": needs.activations_mb,
        }
        bars = {name: (_size(mb), 100 * mb / needs.running_mb) for name, mb in parts.items()}
        card = smallest_card(needs.running_mb)
        fits = f"Smallest card: {card} GB" if card else "No single card here holds it"
        size = _size(needs.running_mb)
        said = f"<b>{safe(self.model.value)}: {size}</b> and the runtime. {fits}."
        self.shown.value = parts_table(bars) + said


def smallest_card(needed_mb: float) -> int | None:
    """The memory (GB) of the smallest card in `CARDS_GB` that holds so much; None if none does.

    Args:
        needed_mb: weights, KV cache and activations in MB (10⁶ bytes).
    """
    return next((gb for gb in CARDS_GB if needed_mb <= 1000 * gb), None)


def _size(mb: float) -> str:
    """Megabytes as people read them."""
    return f"{mb / 1000:,.2f} GB" if mb >= 1000 else f"{mb:,.1f} MB"
