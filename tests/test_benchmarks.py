"""The serving benchmark: its arithmetic, its fairness check, and the tutorial's server for real."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import helpers
from benchmarks import serving, tables
from benchmarks.servers import STATIC, STEP, TUTORIAL, Contender, endless
from benchmarks.tables import Sample, grid, ratio
from serving.client import ServerError
from serving.client.engines import CommandServer
from serving.client.load_test import Load, Report, Result, run

SAMPLE = Sample(tokens_per_second=100, p50=1, p95=2, ttft=0.1, ttft_p95=0.2, per_token=0.01)


def speeds(*values: float) -> list[Sample]:
    return [replace(SAMPLE, tokens_per_second=value) for value in values]


def test_ratios_are_taken_round_by_round() -> None:
    samples = {("slow", "load"): speeds(10, 20, 100), ("fast", "load"): speeds(40, 60, 200)}
    assert ratio(samples, "load", "fast", "slow", lambda s: s.tokens_per_second) == 3
    samples["fast", "load"] = speeds(60, 40, 200)  # 6, 2 and 2; the medians' ratio is still 3
    assert ratio(samples, "load", "fast", "slow", lambda s: s.tokens_per_second) == 2


def test_table_holds_values_and_ratios() -> None:
    samples = {("a", "x"): speeds(10, 30, 20), ("b", "x"): speeds(25, 75, 50)}
    text = grid(samples, ["x"], "a", lambda s: s.tokens_per_second, "{:.0f}".format)
    assert text.splitlines() == [
        "| server | x |",
        "|---|---|",
        "| a | 20 (1×) |",
        "| b | 50 (2.5×) |",
    ]


def test_targets_are_computed_and_missing_servers_left_out() -> None:
    samples = {
        (s, load): [SAMPLE] for s in (TUTORIAL, STATIC, STEP) for load in serving.loads(True)
    }
    for load in ("equal, 8", "mixed, 8"):
        samples[STEP, load] = [replace(SAMPLE, tokens_per_second=500, ttft=0.125, p50=0.25)]
    found = {what: (value, bound) for what, value, bound, _ in serving.targets(samples)}
    assert found[f"tokens/s against {TUTORIAL}; equal, 8 clients"] == (5, 4)
    assert found[f"tokens/s against {TUTORIAL}; mixed, 32 clients"] == (1, 6)
    assert found["p50 against static batches; mixed, 8 clients"] == (0.25, 1 / 3)
    steps, _ = found["first token, in steps after its prefill; equal, 8 clients"]
    assert steps == pytest.approx(2.5)
    assert not any("transformers" in what for what in found)
    text = serving.write_up(samples, list(serving.loads(True)), "course-gpt-1m", 1)
    assert "5.00 | at least 4 | ✓" in text and "1.00 | at least 6 | ✗" in text


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
    file.write_text(f"before\n{tables.START}\nold\n{tables.END}\nafter\n", "utf-8")
    tables.replace(file, "new")
    assert file.read_text("utf-8") == f"before\n{tables.START}\n\nnew\n\n{tables.END}\nafter\n"
    file.write_text("no markers", "utf-8")
    with pytest.raises(ValueError, match="README.md lacks"):
        tables.replace(file, "new")
    assert file.read_text("utf-8") == "no markers"
    assert tables.START in serving.README.read_text("utf-8")


@pytest.mark.slow
def test_tutorial_server_does_the_whole_work() -> None:
    with endless("course-gpt-1m") as folder:
        command = [sys.executable, "-m", "benchmarks.tutorial_server", str(folder), "{port}"]
        contender = Contender(TUTORIAL, CommandServer(command))
        try:
            text = serving.greedy_text(contender.url, str(folder))
            contender.pause()
            contender.resume()
            load = Load(contender.url, str(folder), 6, 3, min_tokens=4, max_tokens=60)
            report = run(replace(load, parameters={"temperature": 0}))
        finally:
            contender.stop()
        serving.check(report)
        assert contender.server.process.poll() is not None
    alone = helpers.load("course-gpt-1m", "cpu")
    assert text == alone.generate(serving.PROMPT, max_new_tokens=24, temperature=0).new_text


def test_a_server_that_does_not_start_says_why() -> None:
    failing = [sys.executable, "-c", "import sys; sys.exit('pip install this')"]
    server = CommandServer(failing)
    with pytest.raises(ServerError, match="pip install this"):
        server.start()
    assert isinstance(server.process, subprocess.Popen)
    assert server.process.poll() is not None
