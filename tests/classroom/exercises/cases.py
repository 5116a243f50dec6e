"""What the tests know about each question: another right answer, and wrong ones.

A file `answers_NN.py` for each lesson holds `CASES`, one `Case` a question. Answers are given as
functions without arguments, so that they are computed when the test runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Answer = Callable[[], tuple[Any, ...]]  # the arguments of check()


@dataclass(frozen=True)
class Case:
    question: str  # "01.2"
    right: tuple[Answer, ...]  # other ways than the solution's
    wrong: tuple[tuple[Answer, str], ...]  # an answer, and a pattern of its message
