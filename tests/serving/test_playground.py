"""The playground page in a real browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect
from safetensors.torch import load_file, save_file

from serving.client import ServerProcess
from tests.conftest import writable
from tests.serving.conftest import MODEL

pytestmark = pytest.mark.browser


def broken(message: ConsoleMessage) -> bool:
    """Whether the page itself failed; a 400 answer is noted by the browser in any case."""
    return (
        message.type == "error" and "the server responded with a status of 400" not in message.text
    )


@pytest.fixture
def page(browser: Browser, server: ServerProcess) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda m: problems.append(m.text) if broken(m) else None)
    page.on("request", lambda r: r.url.startswith((server.url, "data:")) or problems.append(r.url))
    page.goto(server.url + "/")
    expect(page.locator("#generate")).to_be_enabled()
    yield page
    assert problems == []
    context.close()


def slide(page: Page, name: str, value: str) -> None:
    page.locator(f"#p-{name}").fill(value)


def done(page: Page) -> None:
    expect(page.locator("#m-reason")).not_to_have_text("–", timeout=60_000)


def test_a_text_appears_with_its_figures(page: Page) -> None:
    expect(page.locator("#server")).to_contain_text("course-gpt-1m on CPU")
    page.locator("#prompt").fill("The network")
    page.locator("#generate").click()
    done(page)
    expect(page.locator("#output .given")).to_have_text("The network")
    assert page.locator("#output .made").inner_text().strip()
    expect(page.locator("#m-ttft")).to_contain_text("s")
    expect(page.locator("#m-tokens")).to_contain_text("+")
    assert int(page.locator("#m-speed").inner_text()) > 0


def test_every_parameter_reaches_the_server(page: Page) -> None:
    values = {
        "max_new_tokens": "12",
        "temperature": "1.2",
        "top_k": "30",
        "top_p": "0.8",
        "repetition_penalty": "1.25",
        "no_repeat_ngram_size": "3",
        "seed": "5",
        "stop": "zz | qq",
    }
    for name, value in values.items():
        slide(page, name, value)
    with page.expect_request("**/stream") as sent:
        page.locator("#generate").click()
    body = sent.value.post_data_json
    assert body.pop("stop") == ["zz", "qq"]
    assert body.pop("prompt") == "Machine learning is"
    assert body == {n: float(v) for n, v in values.items() if n != "stop"}
    done(page)
    first = page.locator("#output").inner_text()
    page.locator("#generate").click()
    done(page)
    assert page.locator("#output").inner_text() == first, "same seed, same text"
    page.locator("#reset").click()
    expect(page.locator("#p-temperature")).to_have_value("0.7")
    slide(page, "max_length", "20")
    slide(page, "num_return_sequences", "3")
    with page.expect_request("**/generate") as sent:
        page.locator("#generate").click()
    assert sent.value.post_data_json["max_length"] == 20
    assert "max_new_tokens" not in sent.value.post_data_json
    done(page)
    expect(page.locator("#output .made")).to_have_count(3)


def stopped(page: Page, stop: Callable[[], None]) -> bool:
    """Whether `stop` ended a text; a text that ends by itself first is no answer."""
    page.keyboard.press("Control+Enter")
    expect(page.locator("#m-reason")).not_to_have_text("stopped")
    stop()
    expect(page.locator("#generate")).to_be_enabled(timeout=30_000)
    return page.locator("#m-reason").inner_text() == "stopped"


def test_stop_button_and_keys(browser: Browser) -> None:
    """On the largest model and length, so that a text takes seconds."""
    with ServerProcess("slow", model="course-gpt-16m", max_length_limit=512) as slow:
        page = browser.new_page()
        page.goto(slow.url + "/")
        expect(page.locator("#generate")).to_be_enabled()
        slide(page, "max_new_tokens", "500")
        page.locator("#prompt").focus()
        stops = (
            lambda: page.locator("#stop").dispatch_event("click"),
            lambda: page.keyboard.press("Escape"),
        )
        for stop in stops:
            assert any(stopped(page, stop) for _ in range(5))
        page.close()


def test_keyboard_reaches_everything(page: Page) -> None:
    reached = set()
    page.locator("#prompt").focus()
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
    assert {
        "generate",
        "copy-text",
        "p-temperature",
        "p-seed",
        "p-stop",
        "tab-curl",
        "code",
    } <= reached
    page.locator("#tab-curl").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#code")).to_contain_text("import httpx")
    page.locator("#p-temperature").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#code")).to_contain_text('"temperature": 0.75')


def test_errors_are_shown(page: Page) -> None:
    page.locator("#prompt").fill("  ")
    with page.expect_response("**/stream"):
        page.locator("#generate").click()
    expect(page.locator("#error")).to_contain_text("not blank")


def test_the_snippets_run(page: Page, tmp_path) -> None:
    page.locator("#prompt").fill('It\'s a "test"')
    slide(page, "seed", "3")
    slide(page, "max_new_tokens", "5")
    curl = subprocess.run(["bash", "-c", page.locator("#code").inner_text()], capture_output=True)
    assert b'"success":true' in curl.stdout
    for tab in ("#tab-python", "#tab-openai"):
        page.locator(tab).click()
        script = tmp_path / "snippet.py"
        script.write_text(page.locator("#code").inner_text(), encoding="utf-8")
        ended = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.strip()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 800, 390])
def test_it_fits_every_width(
    browser: Browser, server: ServerProcess, width: int, scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 844},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    page = context.new_page()
    page.goto(server.url + "/")
    expect(page.locator("#p-temperature")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colours = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    lightness = [sum(map(int, c[4:-1].split(","))) for c in colours]
    assert (lightness[0] > lightness[1]) == (scheme == "light")
    context.close()


def test_it_works_below_a_proxys_prefix(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request stays below the prefix, as jupyter-server-proxy needs it.

    That proxy hands the browser's headers on: the hub's name as Host, its page as Origin.
    """
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/")
    with ServerProcess("hub", model="course-gpt-1m") as server:
        below_a_prefix(browser, server)


def below_a_prefix(browser: Browser, server: ServerProcess) -> None:
    context = browser.new_context()
    page = context.new_page()
    paths = []

    def forward(route, request) -> None:
        path = request.url.split("/", 3)[3]
        paths.append(path)
        assert path.startswith("user/proxy/5000/"), path
        inner = server.url + "/" + path.removeprefix("user/proxy/5000/")
        headers = request.headers | {"host": "proxy.invalid"}
        route.fulfill(response=route.fetch(url=inner, headers=headers))

    page.route("**/*", forward)
    page.goto("http://proxy.invalid/user/proxy/5000/")
    expect(page.locator("#generate")).to_be_enabled()
    page.locator("#generate").click()
    done(page)
    assert {p.rpartition("/")[2] for p in paths} >= {"health", "info", "stream"}
    expect(page.locator("#code")).to_contain_text("/user/proxy/5000/generate")
    context.close()


def test_the_length_ends_where_the_context_does(page: Page) -> None:
    """What the prompt takes is not offered, so that no place of the slider is refused."""
    slider = page.locator("#p-max_new_tokens")
    expect(slider).to_have_attribute("max", "195")  # 200 less the first prompt
    page.locator("#prompt").fill("The network and the server and the network and the server")
    expect(slider).not_to_have_attribute("max", "195")
    slider.fill(slider.get_attribute("max") or "")
    page.locator("#generate").click()
    done(page)
    new, total = int(slider.input_value()), page.locator("#m-tokens").inner_text().split(" + ")
    assert int(total[0]) + new == 200
    expect(page.locator("#error")).to_be_empty()


def pictures(folder: Path) -> Path:
    return Path(os.environ.get("SCREENSHOTS") or folder)


@pytest.fixture(scope="module")
def short_model(tmp_path_factory: pytest.TempPathFactory, chat_model: Path) -> str:
    """One with a chat template and a context of 128 tokens."""
    folder = tmp_path_factory.mktemp("models") / "short"
    writable(shutil.copytree(chat_model, folder))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"n_positions": 128}))
    weights = load_file(folder / "model.safetensors")
    places = {k: w[:128].clone() for k, w in weights.items() if k.endswith("wpe.weight")}
    save_file(weights | places, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def test_a_server_of_several_models(browser: Browser, short_model: str, tmp_path: Path) -> None:
    """The second one is loaded when it is chosen; its context and its chat are the page's then."""
    with ServerProcess("two", model=MODEL, models=short_model, max_length_limit=512) as two:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(two.url + "/")
        expect(page.locator("#model")).to_be_visible()
        state = page.locator("#model option").nth(1)
        expect(state).to_have_text(f"{short_model} (not loaded)")
        slide(page, "temperature", "1.2")
        held: list[Route] = []  # what loads the model, until the test lets it go
        page.route("**/v1/completions", lambda route: held.append(route), times=1)
        page.locator("#model").select_option(short_model)
        expect(page.locator("#server")).to_have_text(f"loading {short_model} …")
        expect(state).to_have_text(f"{short_model} (loading)")
        expect(page.locator("#generate")).to_be_disabled()
        held[0].continue_()
        expect(page.locator("#server")).to_contain_text("up to 128 tokens")
        expect(state).to_have_text(short_model)
        expect(page.locator("#p-max_length")).to_have_attribute("max", "128")
        expect(page.locator("#p-temperature")).to_have_value("1.2")
        expect(page.locator("#modes")).to_be_visible()
        with page.expect_request("**/stream") as sent:
            page.locator("#generate").click()
        assert sent.value.post_data_json["model"] == short_model
        done(page)
        expect(page.locator("#code")).to_contain_text("short")
        for width, scheme in ((1280, "light"), (800, "dark")):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.screenshot(
                path=pictures(tmp_path) / f"models-{width}-{scheme}.png", full_page=True
            )
        page.locator("#model").select_option(MODEL)
        expect(page.locator("#p-max_length")).to_have_attribute("max", "512")
        expect(page.locator("#modes")).to_be_hidden()
        page.close()


def test_a_base_model_offers_no_chat(page: Page) -> None:
    expect(page.locator("#modes")).to_be_hidden()
    expect(page.locator("#system")).to_be_hidden()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_theme_of_the_notebook_goes_before_the_systems(
    browser: Browser, server: ServerProcess, theme: str
) -> None:
    other = "dark" if theme == "light" else "light"
    page = browser.new_page(color_scheme=other)  # type: ignore[arg-type]
    page.goto(f"{server.url}/?theme={theme}")
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert (sum(map(int, ink[4:-1].split(","))) < 300) == (theme == "light")
    page.close()


def test_a_stopped_server_is_said(browser: Browser) -> None:
    with ServerProcess("short", model="course-gpt-1m") as short:
        page = browser.new_page()
        page.goto(short.url + "/")
        expect(page.locator("#generate")).to_be_enabled()
    page.locator("#generate").click()
    expect(page.locator("#error")).to_contain_text("run the cell that starts it")
    page.close()


@pytest.mark.slow
def test_a_chat_with_the_instruct_model(browser: Browser, smollm2: str) -> None:
    """System prompt, history, regenerate, stop and a new chat, as the server received them."""
    with ServerProcess("chat", model=smollm2) as served:
        page = browser.new_page()
        sent: list[dict[str, Any]] = []
        page.on(
            "request",
            lambda r: sent.append(r.post_data_json) if r.url.endswith("chat/completions") else None,
        )
        page.goto(served.url + "/")
        expect(page.locator("#mode-chat")).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#prompt")).to_have_value("What is machine learning?")
        page.locator("#system").fill("Answer with one word.")
        page.locator("#prompt").fill("Is the sky blue?")
        slide(page, "max_new_tokens", "12")
        slide(page, "seed", "3")
        page.locator("#generate").click()
        done(page)
        answer = page.locator(".turn.assistant .made")
        first = answer.inner_text()
        assert first.strip() and page.locator("#prompt").input_value() == ""
        expect(page.locator("#code")).not_to_contain_text("assistant")  # the call that was sent
        page.locator("#p-seed").fill("4")
        page.locator("#again").click()
        done(page)
        expect(page.locator(".turn")).to_have_count(2)
        page.locator("#prompt").fill("And grass?")
        page.keyboard.press("Control+Enter")
        expect(page.locator(".turn")).to_have_count(4)
        done(page)
        roles = [[m["role"] for m in body["messages"]] for body in sent]
        assert roles == [["system", "user"]] * 2 + [["system", "user", "assistant", "user"]]
        assert [body["seed"] for body in sent] == [3, 4, 4]
        page.locator("#system").fill("You tell long stories.")
        slide(page, "max_new_tokens", "100")
        page.locator("#prompt").fill("Tell a long story about a server.")
        page.locator("#generate").click()
        expect(page.locator(".turn.assistant .made").last).not_to_be_empty(timeout=60_000)
        page.locator("#stop").dispatch_event("click")
        expect(page.locator("#m-reason")).to_have_text("stopped")
        page.locator("#clear").click()
        expect(page.locator(".turn")).to_have_count(0)
        page.locator("#mode-text").click()
        expect(page.locator("#generate")).to_have_text("Generate")
        expect(page.locator("#prompt")).to_have_value("")  # what was typed stays
        page.close()
