"""What tests of the service share: real servers, a process each, and the engine by hand."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from helpers.models import load_model, models_folder
from serving.client import ServerProcess
from serving.engine import engine, jobs, runner, scheduler
from tests.conftest import writable
from tests.serving.by_hand import Clock, Loaded

MODEL = "course-gpt-1m"
TEMPLATE = """\
{% for m in messages %}{{ m.role }}: {{ m.content }}
{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"""


@pytest.fixture(scope="session")
def server() -> Iterator[ServerProcess]:
    """The server that most tests share."""
    with ServerProcess("tests", model=MODEL, slots=8, queue_length=40) as process:
        yield process


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest course model with a chat template beside it."""
    folder = tmp_path_factory.mktemp("models") / "course-chat"
    writable(shutil.copytree(models_folder() / MODEL, folder))
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def small(chat_model: Path) -> Iterator[ServerProcess]:
    """A server with two slots, one place in the queue and a chat template."""
    settings = {"slots": 2, "queue_length": 1, "max_length_limit": 512}
    with ServerProcess("small", model=chat_model, **settings) as process:
        yield process


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    """The smallest course model and its tokenizer, for a test that needs no server."""
    return load_model(MODEL, "cpu")


@pytest.fixture
def inference() -> Iterator[None]:
    """No gradients in the test, as in the engine's own thread."""
    with torch.inference_mode():
        yield


@pytest.fixture
def clock(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """The engine's time moves with the passes through `loaded`, and with nothing else."""
    made = Clock()
    for module in (engine, jobs, runner, scheduler):
        monkeypatch.setattr(module, "time", made)
    hook = loaded[0].transformer.wte.register_forward_pre_hook(made.passed)
    yield made
    hook.remove()
