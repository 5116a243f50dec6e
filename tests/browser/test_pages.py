"""Pages of the course outside the lessons: reached through Jupyter, and read by everybody."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from classroom.exercises import Verdict, lessons
from serving.client import APIError, Client, ServerProcess, load_test
from tests.browser.conftest import Lab
from tests.conftest import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.slow]

# axe-core's rules of WCAG 2.1, levels A and AA, and its best practices.
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}

COUNT_PIECES = """() => {
  const output = document.querySelector('#output'), sizes = window.sizes = new Set();
  new MutationObserver(() => sizes.add(output.innerText.length))
    .observe(output, {subtree: true, childList: true, characterData: true});
}"""


@pytest.fixture(scope="module")
def served() -> Iterator[ServerProcess]:
    with ServerProcess("pages", model="course-gpt-1m") as server:
        yield server


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real report of one lesson with two models."""
    folder = tmp_path_factory.mktemp("reports") / "report"
    models = ["-p", "MODEL_NAME=course-gpt-1m", "-p", "MODEL_NAME=course-gpt-4m"]
    command = [sys.executable, "-m", "classroom.report", "01", *models, "--output", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    return folder


@pytest.fixture(scope="module")
def gradebook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A gradebook with marks of every kind."""
    from classroom.grade.gradebook import write_page
    from classroom.grade.marking import Mark, Marked
    from classroom.grade.submissions import Submission

    kinds = ("right", "wrong", "unanswered", "error")
    asked = lessons()["01"].questions
    book = []
    for name, kind in zip(("ann", "ben", "chris", "dora"), kinds, strict=True):
        marks = {q.id: Mark(Verdict(kind, "Said to the learner."), 2) for q in asked}
        book.append(Marked(Submission(name, "01", Path("x")), marks, problem="the kernel died"))
    path = tmp_path_factory.mktemp("gradebook") / "gradebook.html"
    write_page(path, book, warning="Something was changed.")
    return path


def test_playground_through_jupyter(lab: Lab, served: ServerProcess, page: Any) -> None:
    """As on Binder: the browser sees Jupyter's port only, and text still comes in pieces."""
    port = served.url.rsplit(":", 1)[1]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{lab.url}/proxy/{port}/?token={lab.token}")
    page.locator("#generate:not([disabled])").wait_for(timeout=30_000)
    page.locator("#prompt").fill("The network")
    page.locator("#p-max_new_tokens").fill("150")
    page.evaluate(COUNT_PIECES)
    page.locator("#generate").click()
    page.locator("#m-reason:not(:text-is('–'))").wait_for(timeout=60_000)
    assert page.locator("#output").inner_text().startswith("The network")
    assert page.evaluate("window.sizes.size") > 5, "the text came in one piece"
    assert all(url.startswith((f"{lab.url}/proxy/{port}/", "data:")) for url in asked), asked


# Colours depend on the scheme, places on the width: two pairs show both.
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
@pytest.mark.parametrize("name", ["playground", "report", "gradebook"])
def test_accessibility(
    name: str, width: int, scheme: Any, browser: Any, pictures: Path,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    """axe-core finds nothing, in both schemes and at two widths; nothing is wider than the page."""
    from axe_playwright_python.sync_playwright import Axe

    if name == "playground":
        url = request.getfixturevalue("served").url + "/"
    elif name == "report":
        url = (request.getfixturevalue("report") / "index.html").as_uri()
    else:
        url = request.getfixturevalue("gradebook").as_uri()
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.goto(url)
    page.wait_for_timeout(500)
    found = Axe().run(page, options=RULES)
    page.screenshot(path=pictures / f"{name}_{scheme}_{width}.png", full_page=True)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.close()


def test_the_operators_page_and_a_key(browser: Any, pictures: Path) -> None:
    """A server with a key: both pages ask for it, and the operator's then follows a load."""
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import expect

    key = "sk-for-the-test-of-pages"
    with ServerProcess("keyed", model="course-gpt-1m", slots=4, api_keys=key) as server:
        page = browser.new_page(viewport={"width": 1366, "height": 900})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for path, done in (("/", "#generate:not([disabled])"), ("/operator", "#models tr")):
            page.goto(server.url + path)
            expect(page.locator("[role=status]").first).to_have_text("this server wants an API key")
            page.locator("#key").fill(key)
            page.locator("#key").press("Enter")
            page.locator(done).wait_for()
            if path == "/":
                expect(page.locator("#code")).to_contain_text("$LLM_API_KEY")
                page.locator("#generate").click()
                page.locator("#m-reason:not(:text-is('–'))").wait_for(timeout=60_000)
                page.screenshot(path=pictures / "playground_key.png", full_page=True)
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [
            0, 0, "",
        ]  # fmt: skip
        load = load_test.Load(server.url, requests=24, clients=8, min_tokens=40, max_tokens=40)
        with ThreadPoolExecutor(1) as other:  # Playwright has this thread's event loop
            other.submit(load_test.run, load, api_key=key).result()
        with Client(server.url, api_key=key) as client, pytest.raises(APIError):
            client.generate("A server", temperature=9)
        expect(page.locator("#errors")).to_have_text("1", timeout=30_000)
        expect(page.locator("#error-kinds")).to_have_text("1 × bad request")
        expect(page.locator("#whole")).to_have_text(re.compile(r"\d (ms|s)$"))
        expect(page.locator("#slots")).to_have_text("0 of 4")
        peak = "Math.max(...looks.map((_, n) => speedAt(n)))"
        assert page.evaluate(peak) > 0 and page.evaluate("looks.length") > 1
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for width in (1366, 600):
                page.set_viewport_size({"width": width, "height": 900})
                page.screenshot(path=pictures / f"operator_{scheme}_{width}.png", full_page=True)
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            found = Axe().run(page, options=RULES)
            assert found.violations_count == 0, found.generate_report()
        assert all(url.startswith((server.url, "data:")) and key not in url for url in asked), asked
        page.close()
