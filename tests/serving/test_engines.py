"""One client, any engine: the course's server and others with the same model.

llama.cpp is part of every run; vLLM and `transformers serve`, which need environments of their
own, of `make test-scale`. With WRITE_TABLE=1 the table of docs/engines.md is written anew.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from playwright.sync_api import Browser, expect

import helpers
import serving.client.engines
from classroom.watching import read_metrics, until
from serving.client import APIError, Client, ServerError, ServerProcess
from serving.client.engines import VLLM_PYTHON, llama_cpp, playground, transformers_serve, vllm
from serving.client.load_test import Load, run
from serving.client.other_engine import Engine
from serving.client.playground import create_app
from system.environment import ROOT
from tests.conftest import skip_or_fail
from tests.serving import engine_contract as contract

OURS, LLAMA, VLLM = "this course's", "llama.cpp", "vLLM"
TRANSFORMERS = "transformers serve"
START = {
    OURS: lambda: ServerProcess("engines", model=contract.MODEL, slots=8, max_length_limit=1024),
    LLAMA: lambda: llama_cpp(contract.MODEL),
    VLLM: lambda: vllm(contract.MODEL),
    TRANSFORMERS: lambda: transformers_serve(contract.MODEL),
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(OURS, marks=pytest.mark.slow),
        pytest.param(LLAMA, marks=pytest.mark.slow),
        pytest.param(VLLM, marks=[pytest.mark.slow, pytest.mark.scale]),
        pytest.param(TRANSFORMERS, marks=[pytest.mark.slow, pytest.mark.scale]),
    ],
)
def engine(request: pytest.FixtureRequest, smollm2: str) -> Iterator[tuple[str, str]]:
    """A running engine: its name and address."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(START[request.param]())
        except ServerError as error:
            if request.param in (VLLM, TRANSFORMERS):
                pytest.skip(str(error))  # `make test-scale` does without, and says so
            skip_or_fail(str(error))
            raise
        yield request.param, server.url


def does(name: str, what: str) -> bool:
    """Whether this engine is one that does it: another test holds the table to the truth."""
    return contract.read()[name][what] == contract.YES


def test_what_an_engine_does_is_what_the_table_says(engine: tuple[str, str]) -> None:
    name, url = engine
    found = dict(contract.ask(url, contract.CORE | contract.MORE))
    if os.environ.get("WRITE_TABLE"):
        contract.write(name, found)
    assert [title for title in contract.CORE if found[title] != contract.YES] == []
    assert contract.read()[name] == found


def test_the_courses_client_needs_no_change(engine: tuple[str, str]) -> None:
    name, url = engine
    named = {} if does(name, contract.LISTS) else {"model": contract.MODEL}
    with Client(url) as client:
        assert client.wait_until_ready(30)["status"] == "healthy"
        asked = {"max_tokens": 8, "temperature": 0} | named
        text = client.complete(contract.PROMPT, **asked)
        assert text == client.complete(contract.PROMPT, **asked) != ""
        assert client.chat(contract.MESSAGES, **asked)
        with pytest.raises(APIError) as caught:
            client.complete(contract.PROMPT, **asked | {"max_tokens": "many"})
        assert (caught.value.status == 400) == does(name, contract.REFUSES)


def test_openais_client_needs_no_change(engine: tuple[str, str]) -> None:
    name, url = engine
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        if does(name, contract.LISTS):
            assert contract.MODEL in [model.id for model in client.models.list()]
        asked = {"model": contract.MODEL, "max_tokens": 6, "temperature": 0}
        completion = client.completions.create(prompt=contract.PROMPT, **asked)
        assert completion.usage and completion.usage.completion_tokens == 6
        chat = {"messages": contract.MESSAGES, **asked}
        whole = client.chat.completions.create(**chat).choices[0].message.content
        pieces = client.chat.completions.create(stream=True, **chat)
        joined = "".join(c.delta.content or "" for piece in pieces for c in piece.choices)
        assert joined == whole != ""
        with pytest.raises(openai.APIStatusError) as caught:
            client.completions.create(prompt=contract.PROMPT, **asked | {"max_tokens": "many"})
        assert (caught.value.status_code == 400) == does(name, contract.REFUSES)


def test_the_load_test_needs_no_change(engine: tuple[str, str]) -> None:
    name, url = engine
    model = "" if does(name, contract.LISTS) else contract.MODEL
    whole = does(name, contract.IGNORES_END)
    load = Load(url, model, clients=4, requests=8, min_tokens=4, max_tokens=8, ignore_end=whole)
    with ThreadPoolExecutor(1) as pool:  # the browser's event loop may run in this thread
        report = pool.submit(run, load).result()
    assert [result.error for result in report.results] == [""] * 8
    assert all(4 <= result.tokens <= 8 and result.ttft > 0 for result in report.results)


@pytest.mark.browser
def test_the_playground_needs_no_change(engine: tuple[str, str], browser: Browser) -> None:
    """The same page: one text as the engine itself writes it, and two turns of a chat."""
    name, url = engine
    named = "" if does(name, contract.LISTS) else contract.MODEL
    problems: list[str] = []
    with playground(url, named) as bridge, Client(url) as client:
        page = browser.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("request", lambda r: r.url.startswith(bridge.url) or problems.append(r.url))
        page.goto(f"{bridge.url}/")
        expect(page.locator("#server")).to_contain_text(f"{contract.MODEL} on {url}")
        links = page.locator("nav a:visible").all_text_contents()
        assert links == ["info", "health"]  # of an engine that is not the course's, no others
        for parameter, value in (("max_new_tokens", "8"), ("temperature", "0")):
            page.locator(f"#p-{parameter}").fill(value)

        def answered(tokens: str) -> None:
            page.locator("#generate").click()
            expect(page.locator("#m-reason")).not_to_have_text("–", timeout=120_000)
            expect(page.locator("#generate")).to_be_enabled()
            expect(page.locator("#error")).to_be_empty()
            expect(page.locator("#m-tokens")).to_contain_text(tokens)

        page.locator("#mode-text").click()
        page.locator("#prompt").fill(contract.PROMPT)
        answered("+ 8")
        asked = {"model": contract.MODEL, "max_tokens": 8, "temperature": 0, "top_p": 1}
        text = client.complete(contract.PROMPT, **asked)
        assert page.locator("#output .made").text_content() == text
        page.locator("#mode-chat").click()
        for message in ("Say hello.", "Again."):
            page.locator("#prompt").fill(message)
            answered("+ ")
        expect(page.locator(".turn")).to_have_count(4)
        answers = page.locator(".turn.assistant .made").all_text_contents()
        assert len(answers) == 2 and all(answers)
        page.close()
    assert problems == []


def test_the_engines_model_is_asked_for_once(server: ServerProcess) -> None:
    """And anew where the engine knows it no longer: another one may listen there by now."""
    engine = Engine(server.url)
    page = create_app(engine).test_client()

    def listed() -> float:
        shown = read_metrics(httpx.get(f"{server.url}/metrics", trust_env=False).text)
        name, route = "http_server_request_duration_seconds_count", ("http_route", "/v1/models")
        return sum(n for (shows, labels), n in shown.items() if shows == name and route in labels)

    def text() -> str:
        body = {"prompt": "A server", "max_new_tokens": 3, "temperature": 0}
        return str(page.post("/generate", json=body).get_json()["generated_text"])

    before = listed()
    assert text() == text() == text() != "A server"
    until(lambda: listed() == before + 1)
    engine._found = "one that was served before"
    assert text() == text()
    until(lambda: listed() == before + 2)


def test_the_table_is_whole() -> None:
    columns = contract.read()
    assert list(columns) == list(START)
    for name, column in columns.items():
        assert list(column) == [*contract.CORE, *contract.MORE], name
        assert {column[title] for title in contract.CORE} == {contract.YES}, name
    differences = {tuple(c[title] for c in columns.values()) for title in contract.MORE}
    assert all(len(set(row)) > 1 for row in differences), "what all share belongs to the core"


def test_an_engine_that_is_missing_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ServerError, match=r"models/nothing\.gguf is missing: `make model`"):
        llama_cpp("nothing")
    monkeypatch.setattr(serving.client.engines, "VLLM_PYTHON", tmp_path / "python")
    with pytest.raises(ServerError, match="vLLM is not set up: `make vllm`"):
        vllm(contract.MODEL)
    monkeypatch.setenv("TRANSFORMERS_SERVE", str(tmp_path / "serve"))
    with pytest.raises(ServerError, match="serve is no command here: TRANSFORMERS_SERVE"):
        transformers_serve(contract.MODEL)


@pytest.mark.slow
def test_a_file_that_is_no_model_ends_llama_cpp_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"no model")
    monkeypatch.setattr(serving.client.engines, "models_folder", lambda: tmp_path)
    with pytest.raises(ServerError), llama_cpp("broken"):
        pass


SPLIT = """
from serving.client.engines import vllm
with vllm("course-gpt-16m", slots=4, context=256, devices=2, dtype="float32") as server:
    print(server.url, flush=True)
    input()
"""


@pytest.mark.slow
@pytest.mark.scale
def test_vllm_cut_in_two_writes_the_same_and_ends_with_its_parent() -> None:
    """Tensor parallel on two workers: our own greedy text. Its parent killed, nothing is left."""
    if not VLLM_PYTHON.is_file():
        pytest.skip("vLLM is not set up: `make vllm`")
    command = [sys.executable, "-c", SPLIT]
    parent = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    started: list[psutil.Process] = []
    try:
        assert parent.stdout
        url = parent.stdout.readline().strip()  # nothing where it did not start
        started = psutil.Process(parent.pid).children(recursive=True)
        assert sum("Worker_TP" in process.name() for process in started) == 2
        with Client(url) as client:
            text = client.complete(contract.PROMPT, max_tokens=16, temperature=0)
        ours = helpers.load("course-gpt-16m", "cpu").generate(
            contract.PROMPT, temperature=0, max_new_tokens=16
        )
        assert text == ours.new_texts[0]
        parent.kill()
        assert psutil.wait_procs(started, timeout=60)[1] == []
    finally:
        for process in (parent, *started):
            with suppress(psutil.NoSuchProcess):
                process.kill()
