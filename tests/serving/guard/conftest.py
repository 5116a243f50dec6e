"""Services in this process, each with its own settings, on one model that is loaded once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import TestResponse

from serving.api.app import create_app
from serving.config import load_config
from serving.models import Models
from serving.service import Service

MODEL = "course-gpt-1m"
Serve = Callable[..., FlaskClient]


class Client(FlaskClient):
    """Reads an answer to its end, as a server does; `buffered=False` leaves that to the test."""

    def open(self, *args: Any, buffered: bool = True, **kwargs: Any) -> TestResponse:
        return super().open(*args, buffered=buffered, **kwargs)


@pytest.fixture(scope="session")
def loaded() -> Iterator[Service]:
    """A service whose engine others may share."""
    service, ready = Service(load_config(model_name=MODEL, max_length_limit=512)), threading.Event()
    failures: list[Exception] = []
    service.load(ready.set, failures.append)
    assert ready.wait(100) and not failures
    yield service
    service.close()


@pytest.fixture
def serve(loaded: Service) -> Serve:
    """`serve(request_timeout=1)`: a client of a service with these settings."""

    def start(**settings: Any) -> FlaskClient:
        if "log_file" not in settings:
            settings["log_format"] = "off"
        service = Service(load_config(model_name=MODEL, port=0, **settings))
        for name in ("loaded", "_tokenizer", "device", "cuda_available"):
            setattr(service, name, getattr(loaded, name))
        app = create_app(Models(service))
        app.test_client_class = Client
        return app.test_client()

    return start


def samples(client: FlaskClient) -> dict[str, float]:
    """What /metrics shows: `name{label="value",…}` (labels in order, model and engine left out)."""
    found = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for name, labels, value, *_ in family.samples:
            kept = [f'{k}="{v}"' for k, v in sorted(labels.items()) if k not in HIDDEN]
            found[f"{name}{{{','.join(kept)}}}" if kept else name] = value
    return found


HIDDEN = ("engine", "model_name", "gen_ai_request_model")
