"""Comparing models: honest rows, and failures that stop nothing."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time

import psutil
import pytest

from helpers import compare as comparing
from helpers.compare import compare, read, save
from system.errors import ParameterError

pytestmark = pytest.mark.slow  # most tests start processes


@pytest.fixture(scope="module")
def table():
    return compare(
        ["course-gpt-1m", "course-gpt-9m", "gpt2"],
        max_new_tokens=8, repeats=3, prompts=["Hello", "Once upon a time"],
        heldout="A short text.", progress=False,
    )  # fmt: skip


def test_a_measured_row(table):
    row = table.iloc[0]
    assert (row.model, row.status, row.reason, row.device) == ("course-gpt-1m", "ok", "", "CPU")
    assert row.parameters_m == pytest.approx(1.283, abs=0.001)
    assert 0 < row.load_s < 120 and 0 < row.warm_up_s < 120
    assert 200 < row.peak_mb < 1500
    assert row.ttft_low_ms <= row.ttft_ms <= row.ttft_high_ms
    assert row.tokens_low <= row.tokens_per_s <= row.tokens_high
    assert 0 < row.bits_per_byte < 20
    assert [text.startswith(p) for text, p in zip(row.texts, ["Hello", "Once"], strict=True)]
    assert math.isnan(row.gpu_peak_mb)


def test_failures_are_rows_with_the_reason(table):
    assert list(table["status"]) == ["ok", "error", "error"]
    assert "course-gpt-4m" in table.iloc[1].reason  # the nearest right name
    assert "HF_HUB_OFFLINE=1" in table.iloc[2].reason
    assert math.isnan(table.iloc[2].tokens_per_s) and table.iloc[2].texts == ()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory limits are Linux's")
def test_out_of_memory_is_a_row_and_the_next_model_runs():
    found = compare(
        ["course-gpt-16m", "course-gpt-1m"], 2, 1,
        heldout="", memory_limit_mb=100, progress=False, timeout_s=120,
    )  # fmt: skip
    assert list(found["status"]) == ["out of memory", "ok"]
    assert "allocate memory" in found.iloc[0].reason


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_process_is_a_row():
    def kill_the_child() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for child in psutil.Process().children():
                if "helpers.isolated" in child.cmdline():
                    child.kill()
                    return
            time.sleep(0.02)

    killer = threading.Thread(target=kill_the_child)
    killer.start()
    found = compare(["course-gpt-1m"], 2, 1, progress=False)
    killer.join()
    assert list(found["status"]) == ["killed"]
    assert "SIGKILL" in found.iloc[0].reason


def test_too_slow_is_a_row():
    found = compare(["course-gpt-1m"], 2, 1, timeout_s=0.05, progress=False)
    assert list(found["status"]) == ["timeout"]


def test_results_are_kept_with_the_machine(table, tmp_path):
    path = tmp_path / "measured.json"
    save(path, table)
    again, machine = read(path)
    assert machine["cpus"] >= 1 and machine["memory_mb"] > 0
    assert list(again["model"]) == list(table["model"])
    assert again.iloc[0].tokens_per_s == table.iloc[0].tokens_per_s
    assert "NaN" not in path.read_text()
    path.write_text("[]")
    with pytest.raises(ParameterError, match="a saved comparison"):
        read(path)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"models": []}, "models"),
        ({"models": "course-gpt-1m"}, "models"),
        ({"prompts": []}, "prompts"),
        ({"max_new_tokens": 1}, "max_new_tokens"),
        ({"repeats": 0}, "repeats"),
        ({"timeout_s": 0}, "timeout_s"),
    ],
)
def test_nothing_to_measure(arguments, name):
    with pytest.raises(ParameterError, match=name):
        compare(**({"models": ["course-gpt-1m"], "progress": False} | arguments))


def test_command_line_ends_with_1_when_a_model_failed(tmp_path):
    path = tmp_path / "out.json"
    run = subprocess.run(
        [sys.executable, "-m", "helpers.compare", "course-gpt-9m", "--json", str(path)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 1
    assert "course-gpt-9m: error:" in run.stderr
    assert read(path)[0].iloc[0].status == "error"


def test_spread_leaves_out_runs_that_ended_at_once():
    spread = comparing._spread("m", "l", "h", [3.0, math.nan, 1.0, 2.0])
    assert spread == {"m": 2.0, "l": 1.0, "h": 3.0}
    assert comparing._spread("m", "l", "h", [math.nan]) == {}


def test_the_peak_is_read_after_the_last_generation_and_before_the_quality(monkeypatch):
    """On a real measurement: who was called when, and that the row holds what was read then."""
    from helpers import monitor, quality
    from helpers.generator import TextGenerator

    calls, peaks = [], []

    def watch(owner, name):
        real = getattr(owner, name)

        def recorded(*arguments, **named):
            result = real(*arguments, **named)
            calls.append(name)
            if name == "get_peak_memory":
                peaks.append(result)
            return result

        monkeypatch.setattr(owner, name, recorded)

    watch(monitor, "get_peak_memory")
    watch(quality, "bits_per_byte")
    watch(TextGenerator, "generate")
    row = comparing.measure("course-gpt-1m", 4, 3, 0, "cpu", ["Hello"], "A short text.")
    first = calls.index("get_peak_memory")
    assert calls[first - 3 : first] == ["generate"] * 3
    assert calls[first:] == ["get_peak_memory", "bits_per_byte"]
    assert [row["peak_mb"]] == peaks
