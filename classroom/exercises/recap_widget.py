"""The recap's widget; apart from `recap`, because importing ipywidgets takes a while."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from classroom.exercises.question import with_code
from classroom.exercises.recap import Recap


class RecapWidget(widgets.VBox):
    """Every question with its radio buttons; the explanation appears after choosing.

    Attributes:
        choices: the radio buttons of each question.
        responses: what is shown after choosing, as HTML.
    """

    def __init__(self, recap: Recap) -> None:
        self.recap = recap
        self.choices: list[widgets.RadioButtons] = []
        self.responses: list[widgets.HTML] = []
        rows: list[widgets.Widget] = []
        for number, question in enumerate(recap.questions):
            choice = widgets.RadioButtons(
                options=[(text, n) for n, text in enumerate(question.options)],
                value=None,
                tooltip=question.text,
                layout={"width": "auto"},
            )
            choice.add_class("llm-recap")
            response = widgets.HTML()
            choice.observe(self._answering(number), names="value")
            words = f"<b>{number + 1}.</b> {with_code(question.text)}"
            title = f"<p style='margin:0;line-height:1.4'>{words}</p>"
            self.choices.append(choice)
            self.responses.append(response)
            rows += [widgets.HTML(title), choice, response]
        super().__init__(rows)

    def __repr__(self) -> str:
        return f"Recap of lesson {self.recap.lesson}: run this cell in Jupyter to answer it."

    def _answering(self, number: int) -> Any:
        def answer(change: dict[str, Any]) -> None:
            if change["new"] is not None:
                self.responses[number].value = self.recap.choose(number, change["new"])

        return answer
