"""Real servers for the tests: a process each, reached over real HTTP."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.models import models_folder
from serving.client import ServerProcess
from tests.conftest import writable

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
