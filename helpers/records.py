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

    plain: dict[str, Any] = {
        k: v if isinstance(v, str | int | float) else str(v) for k, v in values.items()
    }
    width = max(len(name) for name in plain)
    lines = "\n".join(f"recorded  {name:<{width}}  {value}" for name, value in plain.items())
    display({RECORD_TYPE: plain, "text/plain": lines}, raw=True)
