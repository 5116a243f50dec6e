"""What teachers and learners need around the lessons: exercises, progress, marking, reports.

import classroom
classroom.progress()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["forget_progress", "progress"]

if TYPE_CHECKING:
    from classroom.exercises.course_map import forget_progress, progress


def __getattr__(name: str) -> Any:
    """Both functions, from the module that defines them, imported at first use."""
    if name in __all__:
        return getattr(importlib.import_module("classroom.exercises.course_map"), name)
    raise AttributeError(f"module 'classroom' has no attribute {name!r}")
