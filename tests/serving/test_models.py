"""Several models behind one server, and what becomes of a server whose engine has died."""

from __future__ import annotations

import ctypes
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import TestResponse

from classroom.watching import until
from helpers.isolated import run_isolated
from serving.api.app import create_app
from serving.client import APIError, Client, ServerProcess, load_test
from serving.config import load_config
from serving.footprint import needed_bytes
from serving.guard.logs import flush_logs
from serving.models import MIB, Models
from serving.service import Service
from system.errors import ParameterError
from tests.serving.footprint_measured import measure
from tests.serving.guard.conftest import Client as WholeAnswers

FIRST, SMALL, LARGE = "course-gpt-1m", "course-gpt-4m", "course-gpt-16m"
ASKED = {"prompt": "A server", "max_new_tokens": 4, "seed": 1}
SETTINGS = {"slots": 4, "prefix_cache_mb": 1, "max_length_limit": 512, "response_cache_mb": 1}


def kill_engine(service: Service) -> None:
    """End the engine's thread as nothing in it foresees."""
    assert service.loaded is not None
    thread = service.loaded._thread
    while thread.is_alive():  # it may just be waiting for work, where nothing reaches it
        assert thread.ident
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
        )
        with service.loaded._scheduler._changed:
            service.loaded._scheduler._changed.notify()
        thread.join(0.05)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose files look right until they are read."""
    folder = tmp_path_factory.mktemp("models") / "broken"
    folder.mkdir()
    config = {"model_type": "gpt2", "n_layer": 1, "n_embd": 8, "n_head": 1, "vocab_size": 8192}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"no weights at all")
    return str(folder)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "log"


@pytest.fixture(scope="module")
def models(broken: str, log: Path) -> Iterator[Models]:
    """The smallest model, two larger ones of which one fits beside it, and a broken one."""
    settings = SETTINGS | {"model_name": FIRST, "models": f"{SMALL},{LARGE},{broken}"}
    config = load_config(**settings, log_file=str(log))
    room = sum(needed_bytes(name, config) for name in (FIRST, LARGE)) // MIB + 2
    config = config.model_copy(update={"models_memory_mb": room})
    models, ready = Models(Service(config)), threading.Event()
    models.first.load(ready.set, lambda error: ready.set())
    assert ready.wait(100) and not models.first.problem
    yield models
    models.close()


@pytest.fixture(scope="module")
def client(models: Models) -> FlaskClient:
    app = create_app(models)
    app.test_client_class = WholeAnswers
    return app.test_client()


def ask(client: FlaskClient, model: str | None = None, **more: object) -> TestResponse:
    return client.post("/generate", json=ASKED | ({"model": model} if model else {}) | more)


def states(client: FlaskClient) -> list[str]:
    return [model["state"] for model in client.get("/models").json["models"]]


def test_each_model_writes_its_own_text_and_the_oldest_goes(client: FlaskClient) -> None:
    assert states(client) == ["ready", "not loaded", "not loaded", "not loaded"]
    first, same, small = ask(client), ask(client, FIRST), ask(client, SMALL)
    assert same.json["generated_text"] == first.json["generated_text"]
    assert small.json["generated_text"] != first.json["generated_text"]
    named = [answer.json["metadata"]["model"] for answer in (first, same, small)]
    assert named == [FIRST, FIRST, SMALL]
    assert states(client) == ["ready", "ready", "not loaded", "not loaded"]
    asked = {"model": LARGE, "prompt": "A server", "max_tokens": 3}
    assert client.post("/v1/completions", json=asked).json["model"] == LARGE
    assert states(client) == ["ready", "not loaded", "ready", "not loaded"]
    told = client.get("/models").json
    (large,) = (model for model in told["models"] if model["name"] == LARGE)
    assert large["memory_mib"] < told["memory_budget_mib"] and large["requests"] == 0
    assert [model["default"] for model in told["models"]] == [True, False, False, False]
    known = {name: client.get("/info", query_string={"model": name}) for name in (LARGE, SMALL)}
    assert known[LARGE].json["model"] == LARGE
    assert known[SMALL].status_code == 400 and states(client)[1] == "not loaded"


def test_answers_lines_and_figures_are_the_models_own(client: FlaskClient, log: Path) -> None:
    marks = [ask(client, name, seed=2).headers["X-Cache"] for name in (None, FIRST, SMALL, SMALL)]
    assert marks == ["MISS", "HIT", "MISS", "HIT"]
    flush_logs()
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert {line["model"] for line in lines if "model" in line} == {FIRST, SMALL, LARGE}
    found = list(text_string_to_metric_families(client.get("/metrics").text))
    of = {family.name: {s.labels.get("model_name") for s in family.samples} for family in found}
    assert of["vllm:num_requests_running"] == of["llm_ready"] == {FIRST, SMALL}  # what is loaded
    assert of["vllm:request_success"] == {FIRST, SMALL, LARGE}  # what has answered


@pytest.mark.parametrize("route", ["/generate", "/stream", "/v1/completions"])
def test_an_unknown_model_is_404_with_the_list(client: FlaskClient, route: str) -> None:
    answer = client.post(route, json={"prompt": "A server", "model": "gpt-9"})
    assert answer.status_code == 404
    error = answer.json["error"]
    said = error["message"] if route.startswith("/v1") else error
    assert "'gpt-9' is not here" in said and all(name in said for name in (FIRST, SMALL, LARGE))
    assert (answer.json.get("parameter") or error["param"]) == "model"
    assert client.get("/info?model=gpt-9").status_code == 404


def test_openais_routes_list_them(client: FlaskClient, broken: str) -> None:
    listed = [entry["id"] for entry in client.get("/v1/models").json["data"]]
    assert listed == [FIRST, SMALL, LARGE, broken]
    for name in listed:  # a folder's begins with a slash
        assert client.get(f"/v1/models/{quote(name, safe='')}").json["id"] == name
    for name in ("gpt-9", "./m", "../m", "m/", "a//m", "/m", "/"):  # each arrives as it was sent
        unknown = client.get(f"/v1/models/{quote(name, safe='')}")
        assert unknown.status_code == 404, name
        assert unknown.json["error"]["message"].startswith(f"model {name!r} is not here")
    shapes = client.get("/openapi.json").json["components"]["schemas"]
    assert shapes["CompletionRequest"]["properties"]["model"]["enum"] == listed


def test_none_goes_while_it_answers(client: FlaskClient) -> None:
    assert ask(client, SMALL).status_code == 200
    long = {"prompt": "A server", "max_new_tokens": 400, "model": SMALL, "seed": 3}
    alone = client.post("/stream", json=long).text
    stream = client.post("/stream", json=long, buffered=False)
    begun = next(stream.response)
    refused = ask(client, LARGE)
    assert refused.status_code == 503 and refused.headers["Retry-After"]
    assert "no room" in refused.json["error"] and "try again" in refused.json["error"]
    assert (begun + b"".join(stream.response)).decode() == alone
    stream.close()
    assert ask(client, LARGE).status_code == 200
    assert states(client)[1] == "not loaded"


def test_a_load_that_fails_says_why_and_harms_no_other(client: FlaskClient, broken: str) -> None:
    before = states(client)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: ask(client, broken), range(3)))
    for answer in answers:
        assert answer.status_code == 503
        assert f"model {broken} cannot be loaded: " in answer.json["error"]
        assert "model.safetensors is whole" in answer.json["error"]
    assert states(client) == [*before[:3], "failed"]
    assert ask(client).status_code == 200
    (*_, told) = client.get("/models").json["models"]
    assert told["error"] == answers[0].json["error"] and told["requests"] == 0


def test_one_load_at_a_time_while_the_others_go_on(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(client, LARGE).status_code == 200
    go_on, loads, real = threading.Event(), [], Service.load_now

    def slowly(service: Service) -> None:
        loads.append(service.model)
        assert go_on.wait(60)
        real(service)

    monkeypatch.setattr(Service, "load_now", slowly)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(ask, client, SMALL, seed=10 + n) for n in range(3)]
        try:
            until(lambda: states(client)[1] == "loading")
            assert ask(client, seed=20).status_code == 200
            assert client.get("/health").status_code == client.get("/live").status_code == 200
        finally:
            go_on.set()
        assert [job.result().status_code for job in waiting] == [200, 200, 200]
    assert loads == [SMALL]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_model_whose_engine_died_is_loaded_anew(client: FlaskClient, models: Models) -> None:
    before = ask(client, SMALL, seed=4).json["generated_text"]
    (_, small) = models.services
    kill_engine(small)
    assert states(client)[1] == "not loaded" and client.get("/live").status_code == 200
    client.post("/cache/clear")
    assert ask(client, SMALL, seed=4).json["generated_text"] == before
    assert models.services[1] is not small


@pytest.mark.slow
def test_the_formula_is_what_a_process_takes() -> None:
    """In a process that has served a model already: what another one adds, all slots in use.

    A busy machine may leave more holes in a process's heap: then two of three must fit.
    """

    def fits(taken: dict[str, float]) -> bool:
        given_back = taken["after"] < 0.4 * taken["peak"]  # by unloading
        return taken["needed"] == pytest.approx(taken["peak"], rel=0.2) and given_back

    takings = [run_isolated(measure, first=FIRST, name=LARGE, other=SMALL)]
    if not fits(takings[0]):
        takings += [run_isolated(measure, first=FIRST, name=LARGE, other=SMALL) for _ in range(2)]
    assert 2 * sum(map(fits, takings)) > len(takings), takings


@pytest.mark.slow
def test_a_server_process_has_them_and_wants_keys(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    key = "sk-for-the-test-of-models"
    with ServerProcess("models", model=FIRST, models=SMALL, api_keys=key) as server:
        with Client(server.url) as without, pytest.raises(APIError, match="API key is missing"):
            without.info()
        load = [server.url, "--requests", "4", "--tokens", "3", "--model", SMALL]
        assert load_test.main(load) == 1
        monkeypatch.setenv("LLM_API_KEY", key)
        with Client(server.url) as http:
            answer = http.generate("A server", model=SMALL, max_new_tokens=3)
            assert answer.metadata["model"] == SMALL
            assert http.health()["model"] == http.info()["model"] == FIRST
        assert load_test.main(load) == 0
        with Client(server.url, api_key="sk-another") as wrong, pytest.raises(APIError):
            wrong.info()
        with pytest.raises(ParameterError, match="api_key") as refused:
            Client(server.url, api_key=f"{key}\n")
        assert server.stop() == 0
    said = capfd.readouterr()
    assert key not in said.out + said.err + str(refused.value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_engine_is_told_to_whoever_could_start_the_server_anew(
    client: FlaskClient, models: Models
) -> None:
    """The last test of this module: nothing brings the default model back."""
    assert client.get("/live").status_code == 200
    kill_engine(models.first)
    live, health = client.get("/live"), client.get("/health")
    assert (live.status_code, health.status_code) == (503, 503)
    assert live.json == {"status": "unhealthy", "error": "Model not loaded: the model failed"}
    assert ask(client).status_code == ask(client, SMALL).status_code == 503
    models.close()
    assert client.get("/live").status_code == 200  # it is shutting down, as it was told to
