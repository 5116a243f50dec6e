"""Values that a lesson measures, shown to the learner and kept for the instructor's report."""

from __future__ import annotations

from typing import Any

RECORD_TYPE = "application/vnd.llm-basics.record+json"


def record(**values: float | str) -> None:
    """Show values under the cell and store them in its output, where reports find them.

    `record(bits_per_byte=1.372, model="course-gpt-4m")` prints one line a value. Round
    before recording: stored outputs are compared to the letter.
    """
    from IPython.display import display

    plain: dict[str, Any] = {}
    for name, value in values.items():
        value = value.item() if hasattr(value, "item") else value  # a number of numpy's or torch's
        plain[name] = value if isinstance(value, str | int | float) else str(value)
    width = max(len(name) for name in plain)
    lines = "\n".join(f"recorded  {name:<{width}}  {value}" for name, value in plain.items())
    display({RECORD_TYPE: plain, "text/plain": lines}, raw=True)
