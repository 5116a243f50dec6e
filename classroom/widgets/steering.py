"""Ban, boost and force tokens; see the distribution and the text change. (Lesson 07.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ipywidgets as widgets

from classroom.widgets.pieces import (
    distribution_html,
    flexible,
    panel,
    problem,
    side_by_side,
    texts,
)
from helpers.tokens import token_text

if TYPE_CHECKING:
    from helpers.generator import TextGenerator

SHOWN_TOKENS = 8
BAN = -100.0  # the least that a logit bias may be: nothing is left of the token


class TokenSteering(widgets.VBox):
    """Fields for words to ban, to boost and to begin with.

    A word stands for its first token, with a blank before it and without. Several are
    parted by commas.

    Attributes:
        prompt: the text to continue.
        ban: words whose tokens cannot come.
        boost: words whose tokens get `strength` added to their logits.
        strength: that number.
        force: how the new text must begin.
        chart: the next-token distribution, before and after, as HTML.
        text: the greedy text, or what is wrong, as HTML.
    """

    def __init__(
        self, generator: TextGenerator, prompt: str, max_new_tokens: int = 16, boost: str = ""
    ) -> None:
        """Draw the fields and the first text.

        Args:
            generator: a loaded model.
            prompt: the text to continue, to begin with.
            max_new_tokens: length of the text.
            boost: words that are boosted from the start, so that the slider does something.
        """
        self.generator, self.max_new_tokens = generator, max_new_tokens
        wide = {"layout": flexible("220px")}
        self.prompt = widgets.Text(prompt, description="prompt", **wide)
        self.ban = widgets.Text("", description="ban", placeholder="words, commas", **wide)
        self.boost = widgets.Text(boost, description="boost", placeholder="words, commas", **wide)
        self.strength = widgets.FloatSlider(
            5.0, min=0, max=20, step=0.5, description="by", continuous_update=False, **wide
        )
        self.force = widgets.Text("", description="begin with", **wide)
        self.chart = widgets.HTML(layout=flexible("380px"))
        self.text = widgets.HTML(layout=flexible("300px"))
        controls = [self.prompt, self.ban, self.boost, self.strength, self.force]
        for control in controls:
            if isinstance(control, widgets.Text):
                control.continuous_update = False  # when Enter is pressed, or the field left
            control.observe(lambda _: self.redraw(), names="value")
        boxes = [
            widgets.Box(part, layout=side_by_side()) for part in (controls, [self.chart, self.text])
        ]
        super().__init__(boxes)
        self.redraw()

    def __repr__(self) -> str:
        return f"Fields for {self.generator.name}: run this cell in Jupyter to type into them."

    def bias(self) -> dict[int, float]:
        """Token id → what is added to its logit; a ban wins over a boost."""
        boosted = dict.fromkeys(self._tokens(self.boost.value), self.strength.value)
        return boosted | dict.fromkeys(self._tokens(self.ban.value), BAN)

    def _tokens(self, words: str) -> list[int]:
        parts = [word.strip() for word in words.split(",") if word.strip()]
        return [self.generator.encode(blank + word)[0] for word in parts for blank in (" ", "")]

    def redraw(self) -> None:
        """Distribution and text for what the fields say."""
        try:
            prompt = self.prompt.value + self.force.value
            bias = self.bias()
            before, after = self.generator.next_token_distributions(
                prompt, temperature=1.0, top_k=0, top_p=1.0, logit_bias=bias
            )
            best = (before + after).topk(SHOWN_TOKENS).indices.tolist()
            name = self.generator.tokenizer
            rows = [(token_text(name, i), before[i].item(), after[i].item()) for i in best]
            self.chart.value = distribution_html(rows, int((after > 0).sum()), len(before))
            self.text.value = texts(
                self.generator.generate(
                    prompt, max_new_tokens=self.max_new_tokens, temperature=0, logit_bias=bias
                )
            )
        except Exception as error:  # a widget's callback has nobody above it to catch
            self.chart.value, self.text.value = panel("chart", ""), problem(error)
