"""Several models behind one server, and what becomes of a server whose engine has died."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from flask.testing import FlaskClient

from serving.api.app import create_app
from serving.config import load_config
from serving.service import Service

MODEL = "course-gpt-1m"
ASKED = {"prompt": "A server", "max_new_tokens": 4, "seed": 1}


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for what another thread does."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.01)


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
def service() -> Iterator[Service]:
    service, ready = Service(load_config(model_name=MODEL, log_format="off")), threading.Event()
    service.load(ready.set, lambda error: ready.set())
    assert ready.wait(100) and not service.problem
    yield service
    service.close()


@pytest.fixture(scope="module")
def client(service: Service) -> FlaskClient:
    return create_app(service).test_client()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_dead_engine_is_told_to_whoever_could_start_the_server_anew(
    client: FlaskClient, service: Service
) -> None:
    """The last test of this module: nothing brings the engine back."""
    assert client.get("/live").status_code == 200
    kill_engine(service)
    live, health = client.get("/live"), client.get("/health")
    assert (live.status_code, health.status_code) == (503, 503)
    assert live.json == {"status": "unhealthy", "error": "Model not loaded: the model failed"}
    assert client.post("/generate", json=ASKED).status_code == 503
    service.close()
    assert client.get("/live").status_code == 200  # it is shutting down, as it was told to
