"""Values that a lesson measures, kept for the instructor's report and not shown to the learner."""

from __future__ import annotations

import math
from typing import Any

RECORD_TYPE = "application/vnd.llm-basics.record+json"


def record(**values: float | str) -> None:
    """Store values in the cell's output, where reports find them; the page shows nothing.

    `record(bits_per_byte=1.372, model="course-gpt-4m")`. Round before recording: stored
    outputs are compared to the letter. A value that was not measured (NaN) or is no finite
    number is not stored.
    """
    from IPython.display import display

    plain: dict[str, Any] = {}
    for name, value in values.items():
        value = value.item() if hasattr(value, "item") else value  # a number of numpy's or torch's
        plain[name] = value if isinstance(value, str | int | float) else str(value)
    kept = {name: value for name, value in plain.items() if _is_known(value)}
    display({RECORD_TYPE: kept}, raw=True)  # without text, a notebook draws nothing


def _is_known(value: float | str) -> bool:
    return isinstance(value, str) or math.isfinite(value)
