"""The smallest values of a lesson's parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from classroom.limits import require
from system.errors import ParameterError


@pytest.mark.parametrize(
    ("value", "least"),
    [
        (2, 2), (10**30, 2), (0, 0), (2, 0.5), (0.5, 0.5), (0.0, 0.0),
        ("a", str), (" # ", str), (["a"], list), (["a", "b"], list),
    ],
)  # fmt: skip
def test_what_a_lesson_works_with_passes(value: Any, least: Any) -> None:
    require({"A": value, "B": -1}, A=least)


@pytest.mark.parametrize(
    ("value", "least", "allowed"),
    [
        (1, 2, "a whole number of at least 2"),
        (-1, 0, "a whole number of at least 0"),
        (2.0, 2, "a whole number of at least 2"),
        (True, 1, "a whole number"),
        ("3", 2, "a whole number"),
        (None, 2, "a whole number"),
        (0.4, 0.5, "a number of at least 0.5"),
        (float("nan"), 0.5, "a number"),
        (float("inf"), 0.5, "a number"),
        (np.nan, 0.0, "a number"),
        ("", str, "text that is not blank"),
        (" \n", str, "text that is not blank"),
        (3, str, "text"),
        ([], list, "a list of one text or more"),
        (["a", ""], list, "a list"),
        ("gpt2", list, "a list"),
        ([1], list, "a list"),
    ],
)
def test_anything_else_is_refused_by_name(value: Any, least: Any, allowed: str) -> None:
    with pytest.raises(ParameterError, match=f"^SIZE=.*SIZE must be {allowed}"):
        require({"GOOD": 5, "SIZE": value}, GOOD=1, SIZE=least)
