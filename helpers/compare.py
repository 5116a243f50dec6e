"""Measure several models honestly: each in a process of its own. (Lesson 05.)

    table = compare(["course-gpt-1m", "course-gpt-4m", "gpt2"])
    save("measured.json", table)

At the command line: `python -m helpers.compare course-gpt-1m gpt2 --json measured.json`.
A warm-up is left out, repeats give a median and a spread, peak memory is read after the
generations and before the quality is measured (which needs much more at once). A model
that fails is a row that says why; the others are measured all the same.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from system import startup
from system.errors import HubUnreachableError, ParameterError
from system.markup import NOT_MEASURED
from system.textfiles import read_text

if TYPE_CHECKING:
    import pandas as pd

PROMPTS = ("Machine learning is", "A container is", "The weather today")
NAN = math.nan
# Column → what stands there in the row of a model that failed.
COLUMNS: dict[str, Any] = {
    "model": "", "status": "ok", "reason": "", "device": "", "parameters_m": NAN,
    "load_s": NAN, "warm_up_s": NAN, "peak_mb": NAN, "gpu_peak_mb": NAN,
    "ttft_ms": NAN, "ttft_low_ms": NAN, "ttft_high_ms": NAN,
    "tokens_per_s": NAN, "tokens_low": NAN, "tokens_high": NAN,
    "bits_per_byte": NAN, "texts": (),
}  # fmt: skip


def compare(
    models: list[str],
    max_new_tokens: int = 32,
    repeats: int = 3,
    seed: int = 0,
    device: str = "cpu",
    prompts: tuple[str, ...] | list[str] = PROMPTS,
    heldout: str | None = None,
    timeout_s: float = 600.0,
    memory_limit_mb: float | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Measure models one after the other, each in a fresh process.

    Args:
        models: shipped names, folders or hub ids; those are downloaded first, untimed.
        max_new_tokens: tokens of each timed generation; at least 2, to time a step.
        repeats: timed generations a model; each takes the next prompt.
        seed: of the first repeat; the next ones count on.
        device: "cpu", "cuda:0", "auto" …
        prompts: what to continue; one sample text is kept for each.
        heldout: text for the bits per byte; None takes the course's own, "" leaves it out.
        timeout_s: the most seconds for one model.
        memory_limit_mb: the most memory (MB) for one model beyond what Python, torch and
            transformers take; Linux only.
        progress: show a bar.

    Returns:
        one row a model: model, status ("ok", or "error", "out of memory", "killed",
        "timeout"), reason, device, parameters_m (millions), load_s (without the
        libraries' import), warm_up_s (the first
        call), peak_mb (of the process, after the generations), gpu_peak_mb, ttft_ms and
        tokens_per_s (medians) with their lowest and highest, bits_per_byte, texts.

    Raises:
        ParameterError: nothing to measure, or a number out of range. A model's own
            failure is a row.
    """
    _check(models, prompts, max_new_tokens, repeats)
    if timeout_s <= 0:
        raise ParameterError("timeout_s", timeout_s, "above 0 seconds")
    from tqdm.auto import tqdm

    job = {
        "max_new_tokens": max_new_tokens, "repeats": repeats, "seed": seed,
        "device": device, "prompts": list(prompts), "heldout": heldout,
    }  # fmt: skip
    rows = []
    with tqdm(total=len(models), unit="model", disable=not progress) as bar:
        for name in models:
            bar.set_description(name)
            rows.append(_row(name, job, timeout_s, memory_limit_mb))
            bar.update()
    return _frame(rows)


def _check(models: list[str], prompts: Any, max_new_tokens: int, repeats: int) -> None:
    """Raise ParameterError for what no model could be measured with."""
    if isinstance(models, str) or not models or not all(isinstance(m, str) for m in models):
        raise ParameterError("models", models, "a list of at least one name")
    if isinstance(prompts, str) or not prompts:
        raise ParameterError("prompts", prompts, "a list of at least one text")
    for name, number, least in (("max_new_tokens", max_new_tokens, 2), ("repeats", repeats, 1)):
        if isinstance(number, bool) or not isinstance(number, int) or number < least:
            raise ParameterError(name, number, f"a whole number of at least {least}")


def _row(
    name: str, job: dict[str, Any], timeout_s: float, memory_limit_mb: float | None
) -> dict[str, Any]:
    """One model's row, or the row that says why there is none."""
    from helpers.isolated import ChildFailed, run_isolated
    from helpers.models import locate

    try:
        locate(name)  # a download shows its progress here, and counts for no limit
        return run_isolated(measure, timeout_s, memory_limit_mb, model=name, **job)
    except ChildFailed as failure:
        return {"model": name, "status": failure.kind, "reason": str(failure)}
    except (ParameterError, HubUnreachableError) as error:
        return {"model": name, "status": "error", "reason": f"{type(error).__name__}: {error}"}


def measure(
    model: str,
    max_new_tokens: int,
    repeats: int,
    seed: int,
    device: str,
    prompts: list[str],
    heldout: str | None,
) -> dict[str, Any]:
    """Measure one model in this process, which must be a fresh one; arguments as `compare`.

    Returns:
        the values of a row of `compare`.
    """
    import torch

    from helpers.generator import load
    from helpers.isolated import start_libraries
    from helpers.models import models_folder
    from helpers.monitor import get_peak_memory
    from helpers.quality import bits_per_byte

    start_libraries()  # not the model's time
    began = time.perf_counter()
    generator = load(model, device)
    load_s = time.perf_counter() - began
    warm_up_s = generator.warm_up()
    runs = [
        generator.generate(prompts[i % len(prompts)], max_new_tokens=max_new_tokens, seed=seed + i)
        for i in range(max(repeats, len(prompts)))
    ]
    timed = runs[:repeats]
    row = {
        "model": model,
        "device": generator.device_label,
        "parameters_m": generator.parameters / 1e6,
        "load_s": load_s,
        "warm_up_s": warm_up_s,
        "peak_mb": get_peak_memory(),
        "texts": [run.text for run in runs[: len(prompts)]],
    }
    if generator.device.startswith("cuda"):
        row["gpu_peak_mb"] = torch.cuda.max_memory_allocated() / 1e6
    row |= _spread("ttft_ms", "ttft_low_ms", "ttft_high_ms", [1000 * r.ttft for r in timed])
    speeds = [r.tokens_per_second for r in timed]
    row |= _spread("tokens_per_s", "tokens_low", "tokens_high", speeds)
    text = (models_folder() / "heldout.md").read_text("utf-8") if heldout is None else heldout
    if text.strip():
        window = min(generator.context, 512)
        # One window at a time: with 49,152 tokens its logits alone take 100 MB.
        row["bits_per_byte"] = bits_per_byte(
            generator.model, generator.tokenizer, text, window, batch_size=1
        )
    return row


def _spread(middle: str, low: str, high: str, values: list[float]) -> dict[str, float]:
    """Median, lowest and highest under these names; runs that ended at once do not count."""
    known = [v for v in values if not math.isnan(v)]
    if not known:
        return {}
    return {middle: statistics.median(known), low: min(known), high: max(known)}


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows as a table with every column."""
    import pandas as pd

    return pd.DataFrame([COLUMNS | row for row in rows], columns=list(COLUMNS))


def save(path: str | Path, table: pd.DataFrame) -> None:
    """Keep a comparison as JSON, with the machine it was made on and the time.

    Args:
        path: the file; its folder must exist.
        table: from `compare`.
    """
    from helpers.device import get_system_info

    rows = [
        {k: v for k, v in row.items() if not (isinstance(v, float) and math.isnan(v))}
        for row in table.to_dict("records")
    ]
    kept = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": get_system_info(),
        "models": rows,
    }
    Path(path).write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: str | Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A comparison that `save` kept: (its table, the machine it was made on).

    Raises:
        ParameterError: not such a file.
    """
    try:
        kept = json.loads(read_text(path))
        return _frame(kept["models"]), kept["machine"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ParameterError("path", str(path), f"a saved comparison ({reason})") from None


def main() -> int:
    """The command line: measure, print a table, perhaps save it. Status 1 if a model failed."""
    parser = argparse.ArgumentParser(
        prog="python -m helpers.compare", description="Measure models, each in its own process."
    )
    parser.add_argument("models", nargs="+", help="shipped names, folders or hub ids")
    parser.add_argument("--tokens", type=int, default=32, help="new tokens a run (32)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs a model (3)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0 … (auto)")
    parser.add_argument("--json", metavar="FILE", help="save the results there")
    options = parser.parse_args()
    try:
        table = compare(options.models, options.tokens, options.repeats, device=options.device)
    except ParameterError as error:
        parser.error(str(error))
    print(
        table.drop(columns=["texts", "reason"])
        .dropna(axis=1, how="all")
        .round(2)
        .to_string(index=False, na_rep=NOT_MEASURED)
    )
    for row in table[table.status != "ok"].itertuples():
        print(f"{row.model}: {row.status}: {row.reason}", file=sys.stderr)
    if options.json:
        save(options.json, table)
    return int((table.status != "ok").any())


if __name__ == "__main__":
    startup.run(main)
