"""Explorers: sliders that call the model, and pictures of what they changed. (Lessons 01 to 03.)

The pictures are plain HTML, because a matplotlib figure for every move would take longer
than the model does.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from helpers.errors import ParameterError
from helpers.settings import GenerationSettings, parameter_ranges
from helpers.tokens import strip_html, token_text

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from transformers import PreTrainedTokenizerBase

    from helpers.generator import Generation, TextGenerator

SHOWN_TOKENS = 10
SCALES = (0.05, 0.1, 0.25, 0.5, 1.0)  # what a full bar may mean: few steps, so it seldom changes
LARGEST_SEED = 2**53 - 1  # a browser counts exactly up to here
STEP = 0.05  # of sliders for fractions; whole numbers move by 1
# Not sliders: the total length (max_new_tokens says the same without counting the prompt),
# and the seed, which has a field to type in.
_NO_SLIDER = ("max_length", "seed")

# Colours by JupyterLab's theme where there is one; blue and vermilion (Okabe and Ito) have a
# contrast of at least 3:1 on white and on JupyterLab's dark background.
_STYLE = """<style>
.llm-panel { box-sizing: border-box; color: var(--jp-ui-font-color1, inherit);
  font: 13px/1.5 var(--jp-ui-font-family, sans-serif); white-space: normal; }
.llm-chart { height: 336px; overflow: hidden auto; }
.llm-text { height: 180px; overflow: hidden auto; padding: 0 12px 8px;
  border: 1px solid var(--jp-border-color2, #9e9e9e); border-radius: 4px; }
.llm-panel p { margin: 8px 0; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 14px; }
.llm-panel .llm-small { color: var(--jp-ui-font-color2, inherit); font-size: 12px; }
.llm-panel mark { color: inherit; background: rgba(86,180,233,.30); border-radius: 3px; }
.llm-chart table { width: 100%; table-layout: fixed; border-collapse: collapse; }
.llm-chart caption { text-align: left; padding-bottom: 4px; }
.llm-chart th, .llm-chart td { height: 24px; padding: 0 4px; text-align: right; font-weight: 400;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.llm-chart th:first-child { text-align: left; overflow: hidden; text-overflow: ellipsis;
  font-family: var(--jp-code-font-family, monospace); }
.llm-chart thead th { border-bottom: 1px solid var(--jp-border-color2, #9e9e9e); }
.llm-chart td.llm-bars { border-left: 1px solid var(--jp-border-color2, #9e9e9e); padding: 0; }
.llm-bar, .llm-key { display: block; height: 8px; margin: 1px 0; border-radius: 0 2px 2px 0; }
.llm-key { display: inline-block; width: 12px; margin: 0 4px 0 0; }
.llm-before { background: #0072b2; } .llm-after { background: #d55e00; }
.llm-error { color: var(--jp-error-color1, #b3261e); }
</style>"""


class ParameterExplorer(widgets.VBox):
    """A slider for every numeric generation parameter; each move writes a new text.

    The limits are those of `settings.parameter_ranges()`. What is refused (a blank
    prompt, more tokens than the context holds) is said inside the widget.

    Attributes:
        controls: parameter name → slider or field, the prompt's and the seed's too.
        chart: the next-token distribution, before and after the parameters, as HTML.
        text: the new text, or what is wrong, as HTML.
        result: the last generation; None before the first and after an error.
    """

    def __init__(
        self, generator: TextGenerator, prompt: str, seed: int = 0, max_new_tokens: int = 24
    ) -> None:
        self.generator = generator
        self.result: Generation | None = None
        self.controls = _controls(generator, prompt, seed, max_new_tokens)
        self._start = {name: control.value for name, control in self.controls.items()}
        self._quiet, self._moves = False, 0
        self.chart = widgets.HTML(layout=_flexible("380px"))
        self.text = widgets.HTML(layout=_flexible("300px"))
        self.reset = widgets.Button(
            description="Reset", tooltip="Back to the first values", layout={"width": "80px"}
        )
        self.reset.on_click(lambda _: self.set(**self._start))
        for control in self.controls.values():
            control.observe(self._changed, names="value")
        sliders = [c for n, c in self.controls.items() if n not in ("prompt", "seed")]
        top = widgets.Box(
            [self.controls["prompt"], self.controls["seed"], self.reset], layout=_row()
        )
        grid = widgets.GridBox(sliders, layout=_columns("330px"))
        below = widgets.Box([self.text, self.chart], layout=_row())
        super().__init__([top, grid, below])
        self.redraw()

    def __repr__(self) -> str:
        return f"Sliders for {self.generator.name}: run this cell in Jupyter to move them."

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter as the controls show it."""
        return {name: control.value for name, control in self.controls.items()}

    def set(self, **parameters: Any) -> None:
        """Move several controls, then write one text.

        Raises:
            ParameterError: a name that has no control, or a value out of range.
        """
        for name in parameters:
            if name not in self.controls:
                raise ParameterError(name, parameters[name], f"one of {', '.join(self.controls)}")
        GenerationSettings(**{**self._start, **parameters})
        self._quiet = True
        try:
            for name, value in parameters.items():
                self.controls[name].value = value
        finally:
            self._quiet = False
        self.redraw()

    def redraw(self) -> None:
        """Chart and text for the current values; whatever goes wrong is said in their place."""
        self.result = None
        self._moves += 1
        try:
            settings = GenerationSettings(**self.parameters)
        except ValueError as error:
            self.chart.value, self.text.value = _panel("chart", ""), _error(error)
            return
        self._fill(self.chart, lambda: _chart(self.generator, settings))
        self._fill(self.text, lambda: self._write(settings))

    def _changed(self, change: dict[str, Any]) -> None:
        if not self._quiet:
            self.redraw()

    def _fill(self, box: widgets.HTML, make: Callable[[], str]) -> None:
        """Set the box; a traceback in a widget's callback would go to a log that nobody reads."""
        try:
            # The number makes every move a new value: the same text is painted again, too.
            box.value = f"{make()}<!-- {self._moves} -->"
        except Exception as error:
            box.value = _error(error)

    def _write(self, settings: GenerationSettings) -> str:
        result = self.generator.generate(**settings.model_dump(exclude_none=True))
        self.result = result
        return _texts(result)


def _controls(
    generator: TextGenerator, prompt: str, seed: int, max_new_tokens: int
) -> dict[str, Any]:
    """One control a parameter: a field for prompt and seed, a slider for every other number."""
    controls: dict[str, Any] = {
        "prompt": widgets.Text(
            prompt, description="prompt", continuous_update=False, layout=_flexible("320px")
        ),
        "seed": widgets.BoundedIntText(
            seed, min=0, max=LARGEST_SEED, description="seed", layout={"width": "170px"}
        ),
    }
    for name, limits in parameter_ranges().items():
        if name in _NO_SLIDER:
            continue
        whole = isinstance(limits.minimum, int)
        step = 1 if whole else STEP
        start = max_new_tokens if name == "max_new_tokens" else limits.default
        most = limits.maximum
        if name == "max_new_tokens":
            most = min(most, generator.context - 1)
        slider = widgets.IntSlider if whole else widgets.FloatSlider
        controls[name] = slider(
            start,
            min=_least(name, limits.minimum, step),
            max=most,
            step=step,
            description=name.replace("_", " "),
            tooltip=limits.meaning,
            continuous_update=False,
            style={"description_width": "150px"},
            layout={"width": "auto"},
        )
    return controls


def _least(name: str, minimum: float, step: float) -> float:
    """The smallest value on a slider: the minimum, or one step more where that is refused."""
    try:
        GenerationSettings(prompt="?", **{name: minimum})
    except ParameterError:
        return minimum + step
    return minimum


def _flexible(width: str) -> dict[str, str]:
    """At least `width` where the page has it, then a fair share of what is left."""
    return {"flex": f"1 1 {width}", "width": "auto", "min_width": "0", "max_width": "100%"}


def _row() -> dict[str, str]:
    """Side by side; below each other where the page is narrow."""
    return {"flex_flow": "row wrap", "width": "100%", "grid_gap": "0 12px"}


def _columns(width: str) -> dict[str, str]:
    """As many columns of equal width as fit, each at least `width` wide."""
    columns = f"repeat(auto-fill, minmax(min({width}, 100%), 1fr))"
    return {"grid_template_columns": columns, "grid_gap": "0 12px", "width": "100%"}


def _panel(kind: str, inside: str) -> str:
    """A box of fixed height, so that nothing on the page jumps."""
    # tabindex: what may scroll can be reached by keyboard
    return f'{_STYLE}<div class="llm-panel llm-{kind}" tabindex="0">{inside}</div>'


def _error(error: Exception) -> str:
    """What is wrong, in the place of the text."""
    known = isinstance(error, ValueError)
    words = str(error) if known else f"{type(error).__name__}: {error}"
    return _panel("text", f'<p role="alert" class="llm-error">{html.escape(words)}</p>')


def _texts(result: Generation) -> str:
    """Prompt and new text of every sequence, the new part marked, and what it took."""
    shown = "".join(
        f"<p>{html.escape(result.prompt)}<mark>{html.escape(text)}</mark></p>"
        for text in result.new_texts
    )
    counts = ", ".join(str(len(ids)) for ids in result.new_ids)
    ends = " and ".join(sorted({r.replace("_", "-") for r in result.finish_reasons}))
    facts = f"{counts} new tokens in {result.seconds:.2f} s; ended by {ends}"
    return _panel(
        "text", f'<div role="status">{shown}<p class="llm-small">{html.escape(facts)}</p></div>'
    )


def _chart(generator: TextGenerator, settings: GenerationSettings) -> str:
    """The next-token distribution after the prompt, before and after the parameters."""
    before, after = generator.next_token_distributions(**settings.model_dump(exclude_none=True))
    highest = before.maximum(after).topk(min(SHOWN_TOKENS, len(before))).indices
    order = highest[before[highest].argsort(descending=True, stable=True)]
    tokens = [token_text(generator.tokenizer, int(i)) for i in order]
    values = list(zip(tokens, before[order].tolist(), after[order].tolist(), strict=True))
    left = int((after > 0).sum())
    return distribution_html(values, left, len(after))


def distribution_html(tokens: list[tuple[str, float, float]], left: int, vocabulary: int) -> str:
    """A table with bars: token, probability before, probability after, and all other tokens.

    Args:
        tokens: (text, probability before, probability after), 0 to 1.
        left: tokens that can still be drawn.
        vocabulary: tokens in all.
    """
    others_before = max(0.0, 1 - sum(before for _, before, _ in tokens))
    others_after = max(0.0, 1 - sum(after for _, _, after in tokens))
    largest = max(max(before, after) for _, before, after in tokens)
    scale = next(s for s in SCALES if s >= min(largest, 1.0))
    rows = "".join(_row_html(_visible(t), b, a, scale) for t, b, a in tokens)
    rows += (
        f'<tr><th scope="row"><i>all others</i></th><td></td>'
        f"<td>{others_before:.1%}</td><td>{others_after:.1%}</td></tr>"
    )
    return _panel(
        "chart",
        f"<table><caption>Next token: sampling draws from {left:,} of {vocabulary:,}</caption>"
        '<colgroup><col style="width:112px"><col><col style="width:72px"><col style="width:64px">'
        '</colgroup><thead><tr><th scope="col">token</th>'
        f'<th scope="col">full bar = {scale:.0%}</th>'
        '<th scope="col"><span class="llm-key llm-before"></span>before</th>'
        '<th scope="col"><span class="llm-key llm-after"></span>after</th>'
        f"</tr></thead><tbody>{rows}</tbody></table>",
    )


def _row_html(token: str, before: float, after: float, scale: float) -> str:
    bars = "".join(
        f'<span class="llm-bar llm-{kind}" style="width:{min(value / scale, 1):.1%}"></span>'
        for kind, value in (("before", before), ("after", after))
    )
    return (
        f'<tr><th scope="row">{html.escape(token)}</th><td class="llm-bars" aria-hidden="true">'
        f"{bars}</td><td>{before:.1%}</td><td>{after:.1%}</td></tr>"
    )


def _visible(token: str) -> str:
    """A token with its blanks and line breaks as signs."""
    return token.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥")


class LoopExplorer(widgets.VBox):
    """The autoregressive loop, one token at a time, with the learner as the chooser. (Lesson 02.)

    The slider says how many tokens are appended; where nobody chose, the most probable
    one is taken. A button appends its candidate, or one drawn by chance, instead.

    Attributes:
        step: the slider: tokens appended to the prompt.
        picks: a button for each candidate, the most probable first.
        values: the candidates' probabilities, from 0 to 1.
        draw: the button that lets chance choose among all tokens, by their probabilities.
        picture: the text so far and the next token's candidates, as HTML.
        added: ids of the tokens chosen so far.
    """

    def __init__(
        self, generator: TextGenerator, prompt: str, steps: int = 12, seed: int = 0, top: int = 5
    ) -> None:
        import torch

        settings = GenerationSettings(prompt=prompt, max_new_tokens=steps)
        self.generator, self.prompt, self.added = generator, prompt, list[int]()
        self._start = generator.encode(prompt)
        settings.new_tokens(len(self._start), generator.context)  # says if it does not fit
        self._dice = torch.Generator().manual_seed(seed)
        self.step = widgets.IntSlider(
            0, 0, steps, description="tokens added", style={"description_width": "initial"}
        )
        self.picks = [widgets.Button(layout={"width": "auto"}) for _ in range(top)]
        self.draw = widgets.Button(description="draw by chance", layout={"width": "auto"})
        self.picture = widgets.HTML()
        for rank, pick in enumerate(self.picks):
            pick.on_click(lambda _, rank=rank: self.append(self._candidates[rank]))
        self.draw.on_click(
            lambda _: self.append(int(torch.multinomial(self._next, 1, generator=self._dice)))
        )
        self.step.observe(lambda _: self.redraw(), names="value")
        buttons = widgets.Box([widgets.Label("append"), *self.picks, self.draw], layout=_row())
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
        labels = [_visible(token_text(self.generator.tokenizer, i)) for i in self._candidates]
        for pick, label in zip(self.picks, labels, strict=True):
            pick.description = label
        for button in (*self.picks, self.draw):
            button.disabled = self.step.value == self.step.max
        self.values = best.values.tolist()
        tokens = [(i, token_text(self.generator.tokenizer, i)) for i in shown]
        self.picture.value = _loop_html(self.prompt, tokens, labels, self.values)

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
        prompt: the text to go on from.
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


def _loop_html(
    prompt: str, added: list[tuple[int, str]], labels: list[str], values: list[float]
) -> str:
    """The text so far, and a bar for each candidate (probabilities from 0 to 1)."""
    scale = next(s for s in SCALES if s >= min(max(values), 1.0))
    rows = "".join(
        f'<tr><th scope="row">{html.escape(label)}</th><td class="llm-bars" aria-hidden="true">'
        f'<span class="llm-bar llm-before" style="width:{p / scale:.1%}"></span></td>'
        f"<td>{p:.1%}</td></tr>"
        for label, p in zip(labels, values, strict=True)
    )
    return _panel(
        "chart",
        f'<p role="status">{html.escape(prompt)}{strip_html(added) if added else ""}</p>'
        '<table style="table-layout:fixed;width:100%;max-width:520px"><caption>Candidates for '
        'the next token</caption><colgroup><col style="width:30%"><col>'
        '<col style="width:64px"></colgroup><thead><tr><th scope="col">token</th>'
        f'<th scope="col">full bar = {scale:.0%}</th><th scope="col"></th></tr></thead>{rows}'
        f'<tr><th scope="row"><i>all others</i></th><td></td><td>{max(0.0, 1 - sum(values)):.1%}'
        "</td></tr></table>",
    )


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
            context: the most tokens, prompt and new ones, that the model holds.
        """
        self._tokenizer, self._cost, self._context = tokenizer, cost, context
        self.prompt = widgets.Textarea(text, description="prompt", rows=3, layout={"width": "95%"})
        self.new_tokens = widgets.IntSlider(
            min(new_tokens, context), 1, context, description="new tokens"
        )
        self.shown = widgets.HTML(layout=_flexible("300px"))
        for control in (self.prompt, self.new_tokens):
            control.observe(self._changed, names="value")
        super().__init__([self.prompt, self.new_tokens, self.shown])
        self._changed()

    def __repr__(self) -> str:
        return "Token calculator: run this cell in Jupyter to type a prompt."

    def _changed(self, _: object = None) -> None:
        ids = self._tokenizer(self.prompt.value, verbose=False)["input_ids"]
        drawn = [(i, token_text(self._tokenizer, i)) for i in ids[: self.STRIP_TOKENS]]
        rows = "".join(
            f'<tr><th scope="row" style="text-align:left;font-weight:400">{html.escape(name)}</th>'
            f'<td style="text-align:right">{value:,}</td></tr>'
            for name, value in self._cost(len(ids), self.new_tokens.value).items()
        )
        past = len(ids) + self.new_tokens.value > self._context
        warning = f"<b>Past the context of {self._context:,} tokens: refused.</b>" if past else ""
        table = f'<table role="status">{rows}</table>{warning}'
        self.shown.value = _panel("calculator", strip_html(drawn) + table)
