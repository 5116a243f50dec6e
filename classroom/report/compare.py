"""What changed since an earlier report."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

from classroom.report.model import Record, Report, Run, Value

NOISE_SHARE, NOISE_SECONDS = 0.2, 1.0  # a duration must differ by both to count as changed
Verdict = Literal["worse", "better", "other"]


@dataclass(frozen=True)
class Change:
    """One line of the comparison.

    Attributes:
        lesson: file name without its ending.
        label: the values of the run.
        what: "status", "duration" or the name of a recorded value.
        before: in words; "–" where there was nothing.
        now: in words.
        difference: with sign, and in per cent where that makes sense; may be empty.
        verdict: only statuses and durations are better or worse: of a recorded value, the
            reader knows.
    """

    lesson: str
    label: str
    what: str
    before: str
    now: str
    difference: str = ""
    verdict: Verdict = "other"


def changes(new: Report, old: Report) -> list[Change]:
    """All changes, in the new report's order; runs that only one of the two has included."""
    before = {run.key: run for run in old.runs}
    found: list[Change] = []
    for run in new.runs:
        earlier = before.pop(run.key, None)
        if run.status == "not run":
            continue
        if earlier is None or earlier.status == "not run":
            found.append(Change(run.lesson, run.label, "status", "–", run.status, "new"))
            continue
        found += _status(run, earlier) + _duration(run, earlier) + _recorded(run, earlier)
    for run in before.values():
        found.append(Change(run.lesson, run.label, "status", run.status, "–", "not in this one"))
    return found


def difference(before: Value, now: Value) -> str:
    """How far a number moved: "+0.05 (+3.8 %)"; empty for text."""
    if isinstance(before, bool | str) or isinstance(now, bool | str):
        return ""
    share = f" ({(now - before) / abs(before):+.1%})".replace("%", " %") if before else ""
    return f"{now - before:+.4g}{share}".replace("-", "−")


def _status(run: Run, earlier: Run) -> list[Change]:
    if run.status == earlier.status:
        return []
    verdict: Verdict = "better" if run.status == "passed" else "worse"
    return [Change(run.lesson, run.label, "status", earlier.status, run.status, "", verdict)]


def _duration(run: Run, earlier: Run) -> list[Change]:
    """Only between two runs that passed: a run that ended early is not a fast one."""
    if run.seconds is None or earlier.seconds is None or {run.status, earlier.status} != {"passed"}:
        return []
    step = run.seconds - earlier.seconds
    if abs(step) < max(NOISE_SECONDS, NOISE_SHARE * earlier.seconds):
        return []
    words = f"{earlier.seconds:.1f} s", f"{run.seconds:.1f} s"
    moved = difference(round(earlier.seconds, 1), round(run.seconds, 1))
    verdict: Verdict = "worse" if step > 0 else "better"
    return [Change(run.lesson, run.label, "duration", *words, moved, verdict)]


def _by_name(records: list[Record]) -> dict[str, list[Value]]:
    """Every recorded value by name, in the order of recording."""
    values: dict[str, list[Value]] = {}
    for record in records:
        for name, value in record.values.items():
            values.setdefault(name, []).append(value)
    return values


def _recorded(run: Run, earlier: Run) -> list[Change]:
    now, before = _by_name(run.records), _by_name(earlier.records)
    found = []
    for name in dict.fromkeys([*before, *now]):
        pairs = list(zip_longest(before.get(name, []), now.get(name, [])))
        for place, (old, new) in enumerate(pairs, start=1):
            if type(old) is type(new) and old == new:
                continue
            what = name if len(pairs) == 1 else f"{name} ({place} of {len(pairs)})"
            words = ["–" if value is None else str(value) for value in (old, new)]
            moved = "" if old is None or new is None else difference(old, new)
            found.append(Change(run.lesson, run.label, what, words[0], words[1], moved))
    return found
