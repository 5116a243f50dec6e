"""Odd text in a real JupyterLab: what `system.markup` guards is shown, not typeset or run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.browser.conftest import Lab
from tests.browser.test_lessons import DONE, READY, RUN_ALL

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]

TEXT = r"$5 million now, not $6 \(x\) <b>bold</b> &amp; C:\\dir العربية a​b"
SEEN = TEXT.replace("\u200b", "⟨U+200B⟩")
# Every way on which text of a model or a user becomes HTML, each in an output of its own.
PLACES = {
    "table": "pd.DataFrame({'text': [TEXT]})",
    "heading": "pd.DataFrame({TEXT: [1]}, index=[TEXT])",
    "left": "left_aligned(pd.DataFrame({'text': [TEXT]}))",
    "strip": "HTML(strip_html([(1, TEXT)]))",
    "chart": "HTML(distribution_html([(TEXT, 0.5, 0.5)], 1, 2))",
    "loop": "HTML(loop_html(TEXT, [(1, TEXT)], [TEXT], [0.5]))",
    "problem": "HTML(problem(ValueError(TEXT)))",
    "widget": "widgets.HTML(problem(ValueError(TEXT)))",
    "check": "check.show([check.Check('name', False, TEXT, TEXT)])",
    "exercise": "_show(TEXT, f'{TEXT} `{TEXT}`', code=TEXT)",
}
IMPORTS = """import ipywidgets as widgets
import pandas as pd
from IPython.display import HTML, display
import helpers
from classroom.exercises.question import _show
from helpers import check
from system.markup import left_aligned
from helpers.tokens import strip_html
from classroom.widgets.pieces import distribution_html, loop_html, problem
pd.set_option("display.max_colwidth", None)
"""


@pytest.fixture(scope="module")
def odd(lab: Lab, browser: Any, pictures: Path) -> Any:
    """A page with a notebook that shows `TEXT` in every place, and once unguarded."""
    cells = [f"{IMPORTS}TEXT = {TEXT!r}", *PLACES.values(), 'HTML("<p>$5 now, not $6</p>")']
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    folder = lab.progress.parent / "notebooks"
    nbformat.write(notebook, folder / "odd.ipynb")
    context = browser.new_context(viewport={"width": 1280, "height": 4000})
    page = context.new_page()
    page.goto(f"{lab.url}/lab/workspaces/odd/tree/notebooks/odd.ipynb?token={lab.token}")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
    page.wait_for_function(READY, timeout=90_000)
    page.click('.lm-MenuBar-itemLabel:text-is("Run")')
    page.click(RUN_ALL)
    page.wait_for_function(DONE, timeout=120_000, polling=500)
    page.wait_for_selector(".jp-OutputArea mjx-container", timeout=60_000)  # the unguarded one
    page.screenshot(path=pictures / "odd_text.png")
    yield page
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    context.close()


def test_unguarded_text_would_be_typeset(odd: Any) -> None:
    """Else the others prove nothing."""
    typeset = odd.locator(".jp-CodeCell:has(mjx-container)")
    assert typeset.count() == 1 and "not $6" in typeset.first.inner_text().split("HTML")[-1]


@pytest.mark.parametrize("place", PLACES)
def test_text_is_shown_as_it_is(odd: Any, place: str) -> None:
    cell = odd.locator(".jp-CodeCell").nth(1 + list(PLACES).index(place))
    output = cell.locator(".jp-OutputArea").first
    shown = output.inner_text().replace("\xa0", " ")
    if place in ("strip", "chart", "loop"):  # tokens: blanks are signs
        shown = shown.replace("·", " ")
    assert shown.count(SEEN) >= 1, shown
    assert output.locator("mjx-container").count() == 0
    assert output.locator("b:text-is('bold')").count() == 0
    isolated = output.locator("bdi.mathjax_ignore")
    assert isolated.count() >= 1
    assert {b.evaluate("e => getComputedStyle(e).unicodeBidi") for b in isolated.all()} == {
        "isolate"
    }
