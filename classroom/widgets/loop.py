"""The autoregressive loop, step by step. (Lesson 02.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ipywidgets as widgets

from classroom.widgets.pieces import loop_html, side_by_side, zoom_box
from helpers.settings import GenerationSettings, check_prompt
from helpers.tokens import token_text
from system.markup import visible

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from helpers.generator import TextGenerator


class LoopExplorer(widgets.VBox):
    """The autoregressive loop, one token at a time, with the learner as the chooser. (Lesson 02.)

    The slider says how many tokens are appended; where nobody chose, the most probable
    one is taken. A button appends its candidate, or one drawn by chance, instead.

    Attributes:
        step: the slider: tokens appended to the prompt.
        picks: a button for each candidate, the most probable first.
        values: the candidates' probabilities, from 0 to 1.
        zoom: the box that stretches the bars; without it a full bar is 100 %.
        draw: the button that lets chance choose among all tokens, by their probabilities.
        picture: the text so far and the next token's candidates, as HTML.
        added: ids of the tokens chosen so far.
    """

    def __init__(
        self, generator: TextGenerator, prompt: str, steps: int = 12, seed: int = 0, top: int = 5
    ) -> None:
        import torch

        check_prompt(prompt)
        settings = GenerationSettings(max_new_tokens=steps)
        self.generator, self.prompt, self.added = generator, prompt, list[int]()
        self._start = generator.encode(prompt)
        settings.new_tokens(len(self._start), generator.context)  # says if it does not fit
        self._dice = torch.Generator().manual_seed(seed)
        self.step = widgets.IntSlider(
            0, 0, steps, description="tokens added", style={"description_width": "initial"}
        )
        self.picks = [widgets.Button(layout={"width": "auto"}) for _ in range(top)]
        self.draw = widgets.Button(description="draw by chance", layout={"width": "auto"})
        self.zoom = zoom_box()
        self.picture = widgets.HTML()
        for rank, pick in enumerate(self.picks):
            pick.on_click(lambda _, rank=rank: self.append(self._candidates[rank]))
        self.draw.on_click(
            lambda _: self.append(int(torch.multinomial(self._next, 1, generator=self._dice)))
        )
        for control in (self.step, self.zoom):
            control.observe(lambda _: self.redraw(), names="value")
        choices = [widgets.Label("append"), *self.picks, self.draw, self.zoom]
        buttons = widgets.Box(choices, layout=side_by_side())
        super().__init__([self.step, buttons, self.picture])
        self.redraw()

    def __repr__(self) -> str:
        return f"The loop of {self.generator.name}: run this cell in Jupyter to walk through it."

    def append(self, token: int) -> None:
        """Choose the next token; what was chosen after this step before is forgotten."""
        if self.step.value < self.step.max:
            self.added[self.step.value :] = [token]
            self.step.value += 1  # its observer draws

    def redraw(self) -> None:
        """Text and candidates for the current step."""
        while len(self.added) < self.step.value:
            self.added.append(int(self._probabilities(self.added).argmax()))
        shown = self.added[: self.step.value]
        self._next = self._probabilities(shown)
        best = self._next.topk(len(self.picks))
        self._candidates = best.indices.tolist()
        labels = [visible(token_text(self.generator.tokenizer, i)) for i in self._candidates]
        for pick, label in zip(self.picks, labels, strict=True):
            pick.description = label
        for button in (*self.picks, self.draw):
            button.disabled = self.step.value == self.step.max
        self.values = best.values.tolist()
        tokens = [(i, token_text(self.generator.tokenizer, i)) for i in shown]
        self.picture.value = loop_html(self.prompt, tokens, labels, self.values, self.zoom.value)

    def _probabilities(self, added: list[int]) -> torch.Tensor:
        """The next token's probabilities, of shape (vocabulary,), on the CPU."""
        import torch

        ids = torch.tensor([self._start + added], device=self.generator.model.device)
        with torch.inference_mode():
            return self.generator.model(input_ids=ids).logits[0, -1].float().softmax(-1).cpu()


def greedy_walk(generator: TextGenerator, prompt: str, steps: int, top: int = 3) -> pd.DataFrame:
    """The explorer's first path as a table, its static twin. (Lesson 02.)

    Args:
        generator: a loaded model.
        prompt: the text to continue.
        steps: how many tokens are appended, the most probable one each time.
        top: how many candidates are listed at each step.

    Returns:
        columns step and rank (both from 1), token and probability (%).

    Raises:
        ParameterError: prompt and steps do not fit in the context.
    """
    import pandas as pd

    explorer = LoopExplorer(generator, prompt, steps, top=top)
    rows = []
    for step in range(1, steps + 1):
        for rank, (pick, value) in enumerate(
            zip(explorer.picks, explorer.values, strict=True), start=1
        ):
            rows.append((step, rank, pick.description, 100 * value))
        explorer.step.value = step
    return pd.DataFrame(rows, columns=["step", "rank", "token", "probability (%)"])
