"""The lessons in a real browser: JupyterLab, Run All, a slider moved by keyboard.

SCREENSHOTS=folder keeps the pictures; without it they lie in pytest's temporary folder.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(900)]

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
RUN_ALL = 'li.lm-Menu-item[data-command="runmenu:run-all"]'
LESSON_SECONDS = 240
SLIDER = '.widget-hslider:has(.widget-label:text-is("{}")) .noUi-handle'
# From a key to paint, as the page itself sees it: the explorer replaces chart and text.
WATCH = """() => {
  const find = () => ['.llm-chart', '.llm-text'].map(name => document.querySelector(name));
  const [chart, text] = find(), state = window.llmWatch = {};
  const observer = new MutationObserver(() => {
    const [newChart, newText] = find();
    if (!newText || !newChart || newText === text || newChart === chart) return;
    observer.disconnect();
    requestAnimationFrame(() => setTimeout(() => { state.painted = performance.now(); }));
  });
  observer.observe(document.body, {subtree: true, childList: true});
  document.addEventListener('keydown', () => { state.pressed = performance.now(); },
                            {capture: true, once: true});
}"""


@dataclass
class Lab:
    """A running JupyterLab on a copy of the lessons."""

    url: str
    token: str


def forget_outputs(path: Path) -> None:
    """Take the stored outputs out: what is there afterwards, the browser has run."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    path.write_text(json.dumps(notebook), encoding="utf-8")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """As `make lab` starts it, on a copy, so that the stored outputs stay as they are."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    for path in (folder / "notebooks").glob("*.ipynb"):
        forget_outputs(path)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    env = os.environ | {
        "JUPYTER_CONFIG_PATH": str(ROOT / "jupyter"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--log-level=WARN"]
    command.append("--expose-app-in-browser")  # for the questions below
    command += [f"--ServerApp.root_dir={folder}", f"--ServerApp.port={port}"]
    command += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    log = folder / "lab.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, env=env, cwd=folder, stdout=output, stderr=output)
    started = Lab(f"http://127.0.0.1:{port}", token)
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"{started.url}/api?token={token}", timeout=5).close()
                break
            except OSError:
                if server.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.3)
        yield started
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.fixture(scope="module")
def browser(require_tool: Callable[..., str]) -> Iterator[Any]:
    path = require_tool("chromium", "chromium-browser", "google-chrome")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def open_and_run(lab: Lab, page: Any, name: str) -> None:
    """Open a lesson and run all its cells to the end.

    The kernel must be ready first: *Run All* is lost before.
    """
    page.goto(f"{lab.url}/lab/workspaces/{name}/tree/notebooks/{name}.ipynb?token={lab.token}")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=90_000)
    page.wait_for_function(READY, timeout=90_000)
    page.click('.lm-MenuBar-itemLabel:text-is("Run")')
    page.click(RUN_ALL)
    page.wait_for_function(DONE, timeout=LESSON_SECONDS * 1000, polling=500)


READY = """() => {
  document.querySelector('.jp-Dialog .jp-mod-accept')?.click();  // "Select Kernel": the one offered
  const context = window.jupyterapp.shell.currentWidget?.sessionContext;
  return context?.isReady && context.session?.kernel?.status === 'idle'
    && !document.querySelector('.jp-Dialog');
}"""
# JupyterLab draws only the cells in view, so the notebook's model is asked.
# Its outputs were taken out, so every number of an execution is the browser's.
DONE = """() => {
  const {content, sessionContext} = window.jupyterapp.shell.currentWidget;
  return sessionContext.session.kernel.status === 'idle' && content.widgets.map(w => w.model)
    .filter(m => m.type === 'code' && m.sharedModel.source.trim())
    .every(m => m.executionCount !== null);
}"""
SHOW_EXPLORER = """() => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  const source = 'ParameterExplorer(generator';
  const at = notebook.widgets.findIndex(w => w.model.sharedModel.source.includes(source));
  notebook.activeCellIndex = at;
  return notebook.scrollToItem(at, 'start');
}"""
ERRORS = """() => window.jupyterapp.shell.currentWidget.content.widgets.map(w => w.model)
  .filter(m => m.type === 'code' && !(m.getMetadata('tags') || []).includes('raises-exception'))
  .flatMap(m => m.sharedModel.getOutputs()).filter(o => o.output_type === 'error')
  .map(o => `${o.ename}: ${o.evalue}`)"""


def test_lesson_00_runs_to_its_end(lab: Lab, page: Any, pictures: Path) -> None:
    open_and_run(lab, page, "00_start_here")
    assert page.evaluate(ERRORS) == []
    page.screenshot(path=pictures / "00_start_here.png")


def press(page: Any, slider: str, key: str) -> float:
    """One key on a slider: seconds until chart and text are painted anew."""
    page.locator(SLIDER.format(slider)).focus()
    page.evaluate(WATCH)
    page.keyboard.press(key)
    page.wait_for_function("window.llmWatch.painted !== undefined", timeout=60_000)
    return float(page.evaluate("window.llmWatch.painted - window.llmWatch.pressed")) / 1000


def photograph(page: Any, folder: Path, name: str, dark: bool) -> None:
    """The explorer at two widths in one theme."""
    theme = "JupyterLab Dark" if dark else "JupyterLab Light"
    page.evaluate(
        "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme
    )
    page.wait_for_function(
        "dark => (document.body.dataset.jpThemeLight === 'false') === dark", arg=dark
    )
    for width in (1280, 700):
        page.set_viewport_size({"width": width, "height": 1000})
        page.wait_for_timeout(500)
        page.evaluate(SHOW_EXPLORER)
        page.wait_for_timeout(500)
        page.screenshot(path=folder / f"{name}_{'dark' if dark else 'light'}_{width}.png")


def test_sliders_of_lesson_03(lab: Lab, page: Any, pictures: Path) -> None:
    open_and_run(lab, page, "03_parameter_sliders")
    assert page.evaluate(ERRORS) == []
    page.evaluate(SHOW_EXPLORER)
    page.wait_for_selector(".llm-text", timeout=30_000)
    page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")

    chart, text = page.inner_text(".llm-chart"), page.inner_text(".llm-text p >> nth=0")
    height = page.locator(".llm-text").bounding_box()["height"]
    press(page, "temperature", "End")
    assert page.inner_text(".llm-chart") != chart
    assert page.inner_text(".llm-text p >> nth=0") != text
    assert page.locator(".llm-text").bounding_box()["height"] == height  # nothing jumps
    press(page, "temperature", "Home")
    assert "draws from 1 of" in page.inner_text(".llm-chart")
    seconds = [press(page, "temperature", "ArrowRight") for _ in range(20)]
    median = statistics.median(seconds)
    print(f"\nslider in the browser: median {median:.3f} s, slowest {max(seconds):.3f} s of 20")
    assert median < 2  # loose, since other tests may run beside it; the lesson's aim is 0.4 s

    for dark in (True, False):
        photograph(page, pictures, "03_parameter_sliders", dark)

    field = page.locator('.widget-text:has(.widget-label:text-is("prompt")) input')
    field.fill(" ")
    field.press("Enter")
    page.wait_for_selector('.llm-text [role="alert"]')
    assert "prompt" in page.inner_text(".llm-text")
    page.screenshot(path=pictures / "03_parameter_sliders_error.png")
