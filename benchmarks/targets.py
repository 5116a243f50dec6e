"""What this course's servers are to reach, computed from what was measured. (Lesson 09.)"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import tables
from benchmarks.servers import LLAMA, OURS, PAGED, RIVALS, STATIC, STEP, TUTORIAL
from benchmarks.tables import Samples

KINDS = ("equal", "mixed")
NO_WORSE = 1.0  # a ratio: at least as much as, or at most as long as


@dataclass(frozen=True)
class Target:
    """One figure and its bound.

    Attributes:
        lower: whether the bound is the least, not the most.
    """

    what: str
    figure: float
    bound: float
    lower: bool = True

    @property
    def reached(self) -> bool:
        """Whether the figure keeps the bound."""
        return self.figure >= self.bound if self.lower else self.figure <= self.bound


def best(samples: Samples, load: str, names: list[str]) -> str | None:
    """Of these servers the one with the most tokens a second under a load; None: none was run."""
    there = [name for name in names if (name, load) in samples]
    speeds = {n: tables.median(samples[n, load], lambda s: s.tokens_per_second) for n in there}
    return max(speeds, key=lambda name: speeds[name], default=None)


def _faster(
    samples: Samples, load: str, mine: str | None, other: str | None, bound: float
) -> list[Target]:
    """The target of tokens a second, where both were measured in the same rounds."""
    if mine is None or other is None:
        return []
    value = tables.ratio(samples, load, mine, other, lambda s: s.tokens_per_second)
    who = "" if mine == STEP else f" ({mine})"
    what = f"tokens/s against {other}{who}; {load} client{'s' * (not load.endswith(' 1'))}"
    return [Target(what, value, bound)] if value == value else []


def first_token(samples: Samples, load: str, server: str = STEP) -> float:
    """Time to first token under a load, less that of an idle server, in decoding steps."""
    alone = tables.median(samples[server, load.partition(",")[0] + ", 1"], lambda s: s.ttft)
    return tables.median(samples[server, load], lambda s: (s.ttft - alone) / s.per_token)


def of_small_model(samples: Samples) -> list[Target]:
    """Of the 16M: against the tutorial's server, transformers' own and static batches."""
    found = []
    for kind in KINDS:
        eight, many = f"{kind}, 8", f"{kind}, 32"
        fastest = best(samples, eight, OURS)
        found += _faster(samples, eight, fastest, TUTORIAL, 10)
        found += _faster(samples, eight, STEP, TUTORIAL, 4)
        found += _faster(samples, many, STEP, TUTORIAL, 6)
        for load in (eight, many):
            found += _faster(samples, load, STEP, PAGED, 1.3)
        if {(STEP, f"{kind}, 1"), (STEP, eight)} <= samples.keys():
            steps = first_token(samples, eight)
            what = f"first token, in steps after its prefill; {eight} clients"
            found.append(Target(what, steps, 3, lower=False))
    for load in ("mixed, 8", "mixed, 32"):
        value = tables.ratio(samples, load, STEP, STATIC, lambda s: s.p50)
        if value == value:
            what = f"p50 against static batches; {load} clients"
            found.append(Target(what, value, 1 / 3, lower=False))
    return found


def of_real_model(samples: Samples) -> list[Target]:
    """Of SmolLM2: the best of ours against the best of llama.cpp and vLLM."""
    found = []
    for kind in KINDS:
        one = f"{kind}, 1"
        found += _faster(samples, one, best(samples, one, OURS), LLAMA, NO_WORSE)
        for load in (f"{kind}, 8", f"{kind}, 32"):
            mine, rival = best(samples, load, OURS), best(samples, load, RIVALS)
            if faster := _faster(samples, load, mine, rival, 1.3):
                assert mine and rival
                value = tables.ratio(samples, load, mine, rival, lambda s: s.p95)
                what = faster[0].what.replace("tokens/s", "p95", 1)
                found += [*faster, Target(what, value, NO_WORSE, lower=False)]
    return found


OF_MODEL = {"course-gpt-16m": of_small_model, "smollm2-135m": of_real_model}


def table(found: list[Target]) -> str:
    """Markdown: every target, its figure, its bound, and whether it is kept."""
    lines = []
    for target in found:
        sign = "at least" if target.lower else "at most"
        kept = "✓" if target.reached else "✗"
        lines.append([target.what, f"{target.figure:.2f}", f"{sign} {target.bound:.2g}", kept])
    return tables.rows(["target", "figure", "bound", ""], lines)
