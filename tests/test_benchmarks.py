"""The benchmarks: their arithmetic, what they keep, their fairness, and small runs for real."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks import inference, servers, serving, serving_tables, store, tables, targets
from benchmarks.servers import (
    LLAMA,
    NAMES,
    OURS,
    RIVALS,
    STATIC,
    STEP,
    TUTORIAL,
    Entry,
)
from benchmarks.store import Store
from benchmarks.tables import Sample, Samples, grid, ratio
from serving.client import ServerError
from serving.client.engines import CommandServer
from serving.client.load_test import Load, Report, Result

SAMPLE = Sample(
    tokens_per_second=100, p50=1, p95=2, ttft=0.1, ttft_p95=0.2, per_token=0.01, resident=1e9
)


def speeds(*values: float) -> dict[int, Sample]:
    return {n: replace(SAMPLE, tokens_per_second=value) for n, value in enumerate(values)}


def test_ratios_are_taken_round_by_round() -> None:
    samples = {("slow", "load"): speeds(10, 20, 100), ("fast", "load"): speeds(40, 60, 200)}
    assert ratio(samples, "load", "fast", "slow", lambda s: s.tokens_per_second) == 3
    samples["fast", "load"] = speeds(60, 40, 200)  # 6, 2 and 2; the medians' ratio is still 3
    assert ratio(samples, "load", "fast", "slow", lambda s: s.tokens_per_second) == 2
    del samples["slow", "load"][1], samples["slow", "load"][2]  # of the first round alone
    assert ratio(samples, "load", "fast", "slow", lambda s: s.tokens_per_second) == 6


def test_table_holds_values_and_ratios() -> None:
    samples = {("a", "x"): speeds(10, 30, 20), ("b", "x"): speeds(25, 75, 50)}
    samples["b", "y"] = speeds(7)
    text = grid(samples, ["x", "y"], "a", lambda s: s.tokens_per_second, "{:.0f}".format)
    assert text.splitlines() == [
        "| server | x | y |",
        "|---|---|---|",
        "| a | 20 (1×) | – |",
        "| b | 50 (2.5×) | 7 |",
    ]


def everywhere(*names: str) -> Samples:
    return {(name, load): {0: SAMPLE} for name in names for load in serving.loads()}


def test_targets_are_computed_and_missing_servers_left_out() -> None:
    samples = everywhere(TUTORIAL, STATIC, STEP)
    for load in ("equal, 8", "mixed, 8"):
        samples[STEP, load] = {0: replace(SAMPLE, tokens_per_second=500, ttft=0.125, p50=0.25)}
    found = targets.of_small_model(samples)
    figures = {(t.what, t.bound): t.figure for t in found}
    assert figures[f"tokens/s against {TUTORIAL}; equal, 8 clients", 4] == 5
    assert figures[f"tokens/s against {TUTORIAL}; equal, 8 clients", 10] == 5
    assert figures[f"tokens/s against {TUTORIAL}; mixed, 32 clients", 6] == 1
    assert figures["p50 against static batches; mixed, 8 clients", 1 / 3] == 0.25
    steps = figures["first token, in steps after its prefill; equal, 8 clients", 3]
    assert steps == pytest.approx(2.5)
    assert not any("transformers" in t.what for t in found)
    text = serving_tables.write_up(samples, "course-gpt-16m")
    assert "5.00 | at least 4 | ✓" in text and "5.00 | at least 10 | ✗" in text
    assert "| 1000 (1×) |" in text  # megabytes
    # A part of a run has fewer targets, and no error.
    assert targets.of_small_model({(STEP, "equal, 8"): {0: SAMPLE}}) == []


def test_the_best_of_ours_meets_the_best_of_theirs() -> None:
    samples = everywhere(*OURS, *RIVALS)
    vllm, int8, load = NAMES["vllm"], NAMES["int8"], "mixed, 32"
    samples[vllm, load] = {0: replace(SAMPLE, tokens_per_second=200, p95=1)}
    samples[int8, load] = {0: replace(SAMPLE, tokens_per_second=280, p95=3)}
    found = {t.what: t for t in targets.of_real_model(samples)}
    speed = found[f"tokens/s against {vllm} ({int8}); mixed, 32 clients"]
    wait = found[f"p95 against {vllm} ({int8}); mixed, 32 clients"]
    assert (speed.figure, speed.reached) == (1.4, True)
    assert (wait.figure, wait.bound, wait.reached) == (3, 1, False)
    alone = found[f"tokens/s against {LLAMA}; mixed, 1 client"]
    assert (alone.figure, alone.bound, alone.reached) == (1, 1, True)
    assert len(found) == 2 * (1 + 2 * 2)


def test_a_store_keeps_finished_pieces_of_this_machine(tmp_path: Path) -> None:
    file = tmp_path / "new" / "pieces.jsonl"
    first = Store(file, "torch 1")
    first.put(("a", 1, 0), 3.5)
    first.put(("a", 2, 0), {"x": float("nan")})
    first.put(("a", 1, 0), 4.5)  # again: the newest counts
    Store(file, "torch 2").put(("a", 3, 0), 9)
    with file.open("a", encoding="utf-8") as half:
        half.write('{"key": ["a", 4')  # killed while it wrote
    again = Store(file, "torch 1")
    assert again["a", 1, 0] == 4.5 and ("a", 3, 0) not in again
    assert list(again.under("a")) == [(1, 0), (2, 0)]
    assert again.measured("a").endswith(": torch 1.")


def test_less_work_is_noticed() -> None:
    load = Load("", requests=2, min_tokens=5, max_tokens=5)
    whole, short = Result(0, 1, 0.1, 5), Result(0, 1, 0.1, 4)
    serving.check(Report(load, 1.0, [whole, whole]))
    with pytest.raises(RuntimeError, match="10 tokens were asked for, 9 were written"):
        serving.check(Report(load, 1.0, [whole, short]))
    with pytest.raises(RuntimeError, match="HTTP 500"):
        serving.check(Report(load, 1.0, [whole, replace(whole, error="HTTP 500")]))


def test_tables_go_between_the_markers(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    start, end = tables.markers("serving")
    file.write_text(f"before\n{start}\nold\n{end}\nafter\n", "utf-8")
    tables.replace(file, "serving", "new")
    assert file.read_text("utf-8") == f"before\n{start}\n\nnew\n\n{end}\nafter\n"
    with pytest.raises(ValueError, match="README.md lacks"):
        tables.replace(file, "inference", "new")
    assert file.read_text("utf-8") == f"before\n{start}\n\nnew\n\n{end}\nafter\n"
    for section in ("serving", "inference"):
        assert tables.markers(section)[0] in store.README.read_text("utf-8")


def redirect(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Results and tables of the benchmarks go there; returns the file of the tables."""
    readme = folder / "README.md"
    lines = [line for part in ("serving", "inference") for line in tables.markers(part)]
    readme.write_text("\n".join(lines), "utf-8")
    monkeypatch.setattr(store, "README", readme)
    monkeypatch.setattr(store, "FOLDER", folder / "kept")
    return readme


@pytest.mark.slow
def test_servers_do_the_whole_work_and_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = redirect(monkeypatch, tmp_path)
    monkeypatch.setattr(serving, "CLIENTS", {1: 2, 8: 8})
    monkeypatch.setattr(serving, "KINDS", {"mixed": {"min_tokens": 4, "max_tokens": 12}})
    made = servers.contenders
    failing = Entry(lambda: CommandServer([sys.executable, "-c", "exit('no vLLM')"]), optional=True)
    monkeypatch.setattr(servers, "contenders", lambda *a: made(*a) | {"vllm": failing})
    file = tmp_path / "kept" / "serving.jsonl"
    before = Store(file, store.machine(*serving.FACTS))
    for server in ("tutorial", "fp32"):
        before.put(("serving", "course-gpt-1m", server, "mixed, 8", 0), asdict(SAMPLE))
    part = ["--models", "course-gpt-1m", "--servers", "tutorial", "fp32", "vllm", "--rounds", "1"]
    assert serving.main(part) == 0  # the first two wrote the same text, or it would be 1
    text = readme.read_text("utf-8")
    assert "| server | mixed, 1 | mixed, 8 |" in text and "| 100 (1×) |" in text
    assert f"{NAMES['vllm']}: not measured: no vLLM" in text
    kept = file.read_text("utf-8")
    assert kept.count('"mixed, 8", 0]') == kept.count('"mixed, 1", 0]') == 2


@pytest.mark.slow
def test_engines_are_measured_and_their_texts_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = redirect(monkeypatch, tmp_path)
    part = ["--models", "course-gpt-1m", "--engines", "pipeline", "ct2-int8", "--rounds", "1"]
    assert inference.main([*part, "--batches", "2"]) == 0
    text = readme.read_text("utf-8")
    assert "| tokens/s at batch | 2 | of the limit, 2 | resident MB |" in text
    assert "| CTranslate2, int8 | " in text
    kept = (tmp_path / "kept" / "inference.jsonl").read_text("utf-8")
    assert inference.main([*part, "--batches", "2"]) == 0  # nothing is missing, nothing runs
    assert (tmp_path / "kept" / "inference.jsonl").read_text("utf-8") == kept
    same = {"pipeline": {"ids": [1, 2]}, "fp32": {"ids": [1, 2]}, "int8": {"ids": [3]}}
    inference.check("course-gpt-1m", same)
    with pytest.raises(RuntimeError, match="wrote different texts"):
        inference.check("course-gpt-1m", same | {"ct2-fp32": {"ids": [1, 3]}})


def test_a_server_that_does_not_start_says_why() -> None:
    failing = [sys.executable, "-c", "import sys; sys.exit('pip install this')"]
    server = CommandServer(failing)
    with pytest.raises(ServerError, match="pip install this"):
        server.start()
    assert isinstance(server.process, subprocess.Popen)
    assert server.process.poll() is not None
