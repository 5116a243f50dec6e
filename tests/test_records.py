"""What a lesson records is shown, and kept where a report can read it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from IPython.utils.capture import capture_output

from classroom.records import RECORD_TYPE, record


def recorded(**values: Any) -> tuple[dict[str, Any], str]:
    """The stored values and the lines shown, as a notebook would keep them."""
    from IPython.core.interactiveshell import InteractiveShell

    InteractiveShell.instance()
    with capture_output() as captured:
        record(**values)
    (output,) = captured.outputs
    assert set(output.data) == {RECORD_TYPE, "text/plain"}
    stored = json.loads(json.dumps(output.data[RECORD_TYPE]))
    return stored, output.data["text/plain"]


def test_values_are_stored_and_shown() -> None:
    stored, shown = recorded(model="course-gpt-1m", new_tokens=12, share=0.25, greedy=True)
    assert stored == {"model": "course-gpt-1m", "new_tokens": 12, "share": 0.25, "greedy": True}
    lines = [line.split() for line in shown.splitlines()]
    assert lines == [
        ["recorded", "model", "course-gpt-1m"],
        ["recorded", "new_tokens", "12"],
        ["recorded", "share", "0.25"],
        ["recorded", "greedy", "True"],
    ]
    assert len({line.index(line.split()[2]) for line in shown.splitlines()}) == 1, "not aligned"


@pytest.mark.parametrize(
    ("value", "plain"),
    [(np.int64(5), 5), (np.float32(0.5), 0.5), (torch.tensor(7), 7), (None, "None"), ([1], "[1]")],
)
def test_other_numbers_stay_numbers(value: Any, plain: Any) -> None:
    stored, _ = recorded(x=value)
    assert stored == {"x": plain} and type(stored["x"]) is type(plain)


@pytest.mark.parametrize("value", [float("nan"), np.float32("nan"), float("inf"), -np.inf])
def test_what_was_not_measured_is_said_and_not_stored(value: Any) -> None:
    stored, shown = recorded(model="m", disk_mb=value)
    assert stored == {"model": "m"}
    assert shown.splitlines()[1].split() == ["recorded", "disk_mb", "not", "measured"]
