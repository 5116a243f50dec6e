"""Techniques tried on models: timed, weighed, and judged against float32. (Lesson 08.)"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from classroom.inference import Quality, fresh, quality, step_bytes
from serving.footprint import give_back_memory

if TYPE_CHECKING:
    from helpers.generator import TextGenerator

Decode = Callable[[torch.nn.Module, list[int], int], float]  # model, ids, rows → seconds a step
X86 = ("int8, torch's dynamic", "int8, the service's")  # kernels of x86 processors alone


def clock(work: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and the seconds it took."""
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def best(work: Callable[[], Any], times: int = 5) -> float:
    """The seconds of the quickest of some calls: the one that others disturbed least."""
    return min(clock(work)[1] for _ in range(times))


def next_step(one: TextGenerator, prompt: str) -> Callable[[], Any]:
    """Read a prompt, and return what does one more step after it; it keeps the model."""
    with torch.inference_mode():
        cache = one.model(torch.tensor([one.encode(prompt)])).past_key_values

    def again() -> Any:
        with torch.inference_mode():
            return one.model(torch.tensor([[1]]), past_key_values=cache)

    return again


def weight_of(name: str, module: str) -> np.ndarray[Any, Any]:
    """The weight of a model's layer, an array of its own: the rest can be freed."""
    loaded: torch.Tensor = fresh(name).model.get_submodule(module).get_parameter("weight")
    return loaded.detach().numpy().copy()


def drafted_for(base: TextGenerator, draft: TextGenerator) -> TextGenerator:
    """The model that a draft speeds up: the base, or one that has the draft's tokens; says so."""
    if base.vocabulary == draft.vocabulary:
        return base
    target = fresh("course-gpt-16m")
    print(f"{draft.name} has other tokens than {base.name}: {target.name} stands in")
    return target


def runs_here(formats: dict[str, Any]) -> dict[str, Any]:
    """The formats that this processor has kernels for."""
    if "fbgemm" in torch.backends.quantized.supported_engines:
        return formats
    return {name: change for name, change in formats.items() if name not in X86}


class Trials:
    """What was measured of each technique: call it with a new one.

    Attributes:
        rows: technique, model, seconds (batch → seconds of a step), reads (bytes of weights a
            token), bits (a byte) and agreement (%) with the model's first technique; NaN: not
            asked.
        exact: model → the quality of its first technique, float32.
        size: model → the bytes that its first technique reads.
    """

    def __init__(self, decode: Decode, prompt: str, text: str) -> None:
        """Nothing is tried yet.

        Args:
            decode: times a step.
            prompt: what is continued.
            text: held out, to measure quality on.
        """
        self._decode, self._prompt, self._text = decode, prompt, text
        self.rows: list[dict[str, Any]] = []
        self.exact: dict[str, Quality] = {}
        self.size: dict[str, float] = {}

    def __call__(
        self,
        technique: str,
        name: str,
        seconds: dict[int, float],
        reads: float,
        score: Quality | None = None,
    ) -> None:
        """Note what was measured elsewhere; arguments as the columns of `rows`."""
        self.size.setdefault(name, reads)
        bits = same = np.nan
        if score is not None:
            bits = score.bits
            same = score.agreement(self.exact.setdefault(name, score))
        self.rows.append(
            {"technique": technique, "model": name, "seconds": seconds, "reads": reads,
             "bits": bits, "agreement": same}
        )  # fmt: skip

    def first(self, name: str, seconds: dict[int, float], reads: float) -> None:
        """Note a model's float32, if nothing of the model is noted yet."""
        if name not in self.size:
            self("float32", name, seconds, reads)

    def try_out(self, technique: str, name: str, change: Callable[[torch.nn.Module], None]) -> None:
        """Change a fresh copy of the model, in place, and measure it with 1 and with 8 texts."""
        one = fresh(name)
        change(one.model)
        ids = one.encode(self._prompt)
        seconds = {rows: self._decode(one.model, ids, rows) for rows in (1, 8)}
        score = quality(one.model, one.tokenizer, self._text)
        self(technique, name, seconds, step_bytes(one.model), score)
        del one
        give_back_memory()  # what comes next may start a process that loads a model, too

    def said(self, name: str) -> str:
        """What was tried with a model, and the bits per byte of the first three techniques."""
        rows = [row for row in self.rows if row["model"] == name]
        lines = [f"measured: {', '.join(row['technique'] for row in rows)}"]
        for row in rows[:3]:
            lines.append(f"{name}, {row['technique']}: {row['bits']:.2f} bits per byte")
        return "\n".join(lines)

    def table(self) -> pd.DataFrame:
        """Speed, bytes and quality, one row for each model and technique."""
        found = pd.DataFrame(self.rows)
        speed = {n: found["seconds"].map(lambda s, n=n: n / s.get(n, np.nan)) for n in (1, 8)}
        first = found["model"].map(lambda name: speed[1][found["model"] == name].iloc[0])
        columns = {
            "model": found["model"],
            "technique": found["technique"],
            "tokens/s, 1 text": speed[1].round(0),
            "times the first": (speed[1] / first).round(2),
            "tokens/s, 8 texts": speed[8].round(0),
            "MB a token, 1 text": (found["reads"] / 1e6).round(1),
            "bits per byte": found["bits"].round(3),
            "agreement (%)": found["agreement"].round(1),
        }
        return pd.DataFrame(columns).set_index(["model", "technique"])
