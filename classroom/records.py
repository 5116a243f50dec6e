"""Values that a lesson measures, shown to the learner and kept for the instructor's report."""

from __future__ import annotations

import math
from typing import Any

RECORD_TYPE = "application/vnd.llm-basics.record+json"


def record(**values: float | str) -> None:
    """Show values under the cell and store them in its output, where reports find them.

    `record(bits_per_byte=1.372, model="course-gpt-4m")` prints one line a value. Round
    before recording: stored outputs are compared to the letter. A value that was not
    measured (NaN) or is no finite number is shown as "not measured" and not stored.
    """
    from IPython.display import display

    plain: dict[str, Any] = {}
    for name, value in values.items():
        value = value.item() if hasattr(value, "item") else value  # a number of numpy's or torch's
        plain[name] = value if isinstance(value, str | int | float) else str(value)
    kept = {name: value for name, value in plain.items() if _is_known(value)}
    width = max(len(name) for name in plain)
    shown = {name: kept.get(name, "not measured") for name in plain}
    lines = "\n".join(f"recorded  {name:<{width}}  {value}" for name, value in shown.items())
    display({RECORD_TYPE: kept, "text/plain": lines}, raw=True)


def _is_known(value: float | str) -> bool:
    return isinstance(value, str) or math.isfinite(value)
