"""A slider for every parameter of generation. (Lesson 03.)"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from classroom.widgets.pieces import (
    columns,
    distribution_html,
    flexible,
    panel,
    problem,
    side_by_side,
    texts,
    zoom_box,
)
from helpers.settings import GenerationSettings, check_prompt, parameter_ranges
from helpers.tokens import token_text
from system.errors import ParameterError

if TYPE_CHECKING:
    from helpers.generator import Generation, TextGenerator

SHOWN_TOKENS = 10
LARGEST_SEED = 2**53 - 1  # a browser counts exactly up to here
STEP = 0.05  # of sliders for fractions; whole numbers move by 1
# Not sliders: the total length (max_new_tokens says the same without counting the prompt),
# and the seed, which has a field to type in.
_NO_SLIDER = ("max_length", "seed")


class ParameterExplorer(widgets.VBox):
    """A slider for every numeric generation parameter; each move writes a new text.

    The limits are those of `settings.parameter_ranges()`. What is refused (a blank
    prompt, more tokens than the context holds) is said inside the widget.

    Attributes:
        controls: parameter name → slider or field, the prompt's and the seed's too.
        chart: the next-token distribution, before and after the parameters, as HTML.
        text: the new text, or what is wrong, as HTML.
        zoom: the box that stretches the chart's bars; without it a full bar is 100 %.
        result: the last generation; None before the first and after an error.
    """

    def __init__(
        self, generator: TextGenerator, prompt: str, seed: int = 0, max_new_tokens: int = 24
    ) -> None:
        self.generator = generator
        self.result: Generation | None = None
        self.controls = _controls(prompt, seed, max_new_tokens)
        self._start = {name: control.value for name, control in self.controls.items()}
        self._quiet, self._moves = False, 0
        self.chart = widgets.HTML(layout=flexible("380px"))
        self.text = widgets.HTML(layout=flexible("300px"))
        self.reset = widgets.Button(
            description="Reset", tooltip="Back to the first values", layout={"width": "80px"}
        )
        self.reset.on_click(lambda _: self.set(**self._start))
        self.zoom = zoom_box()
        for control in (*self.controls.values(), self.zoom):
            control.observe(self._changed, names="value")
        sliders = [c for n, c in self.controls.items() if n not in ("prompt", "seed")]
        top = widgets.Box(
            [self.controls["prompt"], self.controls["seed"], self.reset, self.zoom],
            layout=side_by_side(),
        )
        grid = widgets.GridBox(sliders, layout=columns("330px"))
        below = widgets.Box([self.text, self.chart], layout=side_by_side())
        super().__init__([top, grid, below])
        self._cap_length()
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
        _check(**{**self._start, **parameters})
        self._quiet = True
        try:
            for name in sorted(parameters, key="prompt".__ne__):  # it says how much room is left
                self.controls[name].value = parameters[name]
                self._cap_length()
        finally:
            self._quiet = False
        self.redraw()

    def redraw(self) -> None:
        """Chart and text for the current values; whatever goes wrong is said in their place."""
        self.result = None
        self._moves += 1
        try:
            prompt, settings = _check(**self.parameters)
        except ValueError as error:
            self.chart.value, self.text.value = panel("chart", ""), problem(error)
            return
        drawn = self._fill(
            self.chart, lambda: chart(self.generator, prompt, settings, self.zoom.value)
        )
        written = self._fill(self.text, lambda: self._write(prompt, settings))
        if isinstance(drawn, ValueError) and isinstance(written, ValueError):
            self.chart.value = panel("chart", "")  # such as a prompt that is too long: said once

    def _changed(self, change: dict[str, Any]) -> None:
        if self._quiet:
            return
        if change["owner"] is self.controls["prompt"]:
            self._quiet = True  # a value that is cut needs no text of its own
            self._cap_length()
            self._quiet = False
        self.redraw()

    def _cap_length(self) -> None:
        """Let the length's slider end where the context does, less the prompt."""
        slider = self.controls["max_new_tokens"]
        try:
            room = self.generator.context - self.generator.count_tokens(self.parameters["prompt"])
        except Exception:  # text that is no text: `redraw` says what is wrong
            return
        if room >= slider.min:  # else the prompt itself is refused
            slider.max = min(room, parameter_ranges()["max_new_tokens"].maximum)

    def _fill(self, box: widgets.HTML, make: Callable[[], str]) -> Exception | None:
        """Set the box; a traceback in a widget's callback would go to a log that nobody reads.

        Returns:
            what went wrong, which the box says, too.
        """
        try:
            # The number makes every move a new value: the same text is painted again, too.
            box.value = f"{make()}<!-- {self._moves} -->"
        except Exception as error:
            box.value = problem(error)
            return error
        return None

    def _write(self, prompt: str, settings: GenerationSettings) -> str:
        result = self.generator.generate(prompt, **settings.model_dump(exclude_none=True))
        self.result = result
        return texts(result)


def _check(prompt: str, **parameters: Any) -> tuple[str, GenerationSettings]:
    """What the controls say, validated.

    Raises:
        ValueError: the first thing that is wrong.
    """
    return check_prompt(prompt), GenerationSettings(**parameters)


def _controls(prompt: str, seed: int, max_new_tokens: int) -> dict[str, Any]:
    """One control a parameter: a field for prompt and seed, a slider for every other number."""
    controls: dict[str, Any] = {
        "prompt": widgets.Text(
            prompt, description="prompt", continuous_update=False, layout=flexible("320px")
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
        slider = widgets.IntSlider if whole else widgets.FloatSlider
        controls[name] = slider(
            start,
            min=_least(name, limits.minimum, step),
            max=limits.maximum,
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
        GenerationSettings(**{name: minimum})
    except ParameterError:
        return minimum + step
    return minimum


def chart(generator: TextGenerator, prompt: str, settings: GenerationSettings, zoom: bool) -> str:
    """The next-token distribution after the prompt, before and after the parameters."""
    before, after = generator.next_token_distributions(
        prompt, **settings.model_dump(exclude_none=True)
    )
    highest = before.maximum(after).topk(min(SHOWN_TOKENS, len(before))).indices
    order = highest[before[highest].argsort(descending=True, stable=True)]
    tokens = [token_text(generator.tokenizer, int(i)) for i in order]
    values = list(zip(tokens, before[order].tolist(), after[order].tolist(), strict=True))
    left = int((after > 0).sum())
    return distribution_html(values, left, len(after), zoom)
