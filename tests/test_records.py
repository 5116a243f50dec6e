"""What a lesson records is kept where a report can read it, and shows nothing."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from IPython.utils.capture import capture_output

from classroom.records import RECORD_TYPE, record


def recorded(**values: Any) -> dict[str, Any]:
    """The stored values, as a notebook would keep them."""
    from IPython.core.interactiveshell import InteractiveShell

    InteractiveShell.instance()
    with capture_output() as captured:
        record(**values)
    (output,) = captured.outputs
    assert set(output.data) == {RECORD_TYPE}, "anything else would be drawn"
    stored: dict[str, Any] = json.loads(json.dumps(output.data[RECORD_TYPE]))
    return stored


def test_values_are_stored() -> None:
    stored = recorded(model="course-gpt-1m", new_tokens=12, share=0.25, greedy=True)
    assert stored == {"model": "course-gpt-1m", "new_tokens": 12, "share": 0.25, "greedy": True}


@pytest.mark.parametrize(
    ("value", "plain"),
    [(np.int64(5), 5), (np.float32(0.5), 0.5), (torch.tensor(7), 7), (None, "None"), ([1], "[1]")],
)
def test_other_numbers_stay_numbers(value: Any, plain: Any) -> None:
    stored = recorded(x=value)
    assert stored == {"x": plain} and type(stored["x"]) is type(plain)


@pytest.mark.parametrize("value", [float("nan"), np.float32("nan"), float("inf"), -np.inf])
def test_what_was_not_measured_is_not_stored(value: Any) -> None:
    assert recorded(model="m", disk_mb=value) == {"model": "m"}
