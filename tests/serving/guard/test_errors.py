"""What a wrong request leaves behind: nothing."""

from __future__ import annotations

import gc
from typing import Any

from pydantic import ValidationError

from system.errors import ParameterError
from tests.serving.guard.conftest import Serve

WRONG: list[dict[str, Any]] = [
    {"temperature": 9},
    {"max_length": 9, "max_new_tokens": 9},
    {"temperature": 0, "num_return_sequences": 2},
]


def test_errors_are_forgotten(serve: Serve) -> None:
    """Pydantic's errors hold what Python's garbage collector does not see."""
    client = serve()

    def kept() -> int:
        for wrong in WRONG:
            assert client.post("/generate", json={"prompt": "x"} | wrong).status_code == 400
        gc.collect()
        return sum(type(found) in (ParameterError, ValidationError) for found in gc.get_objects())

    before = kept()
    assert kept() == kept() == before
