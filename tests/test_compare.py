"""Comparing models: honest rows, and failures that stop nothing."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime

import psutil
import pytest

from helpers import compare as comparing
from helpers import isolated
from helpers.compare import compare, read, save
from system.errors import ParameterError
from system.markup import NOT_MEASURED


@pytest.fixture(scope="module")
def table():
    return compare(
        ["course-gpt-1m", "course-gpt-9m", "gpt2"],
        max_new_tokens=8, repeats=3, prompts=["Hello", "Once upon a time"],
        heldout="A short text.", progress=False,
    )  # fmt: skip


@pytest.mark.slow
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


@pytest.mark.slow
def test_failures_are_rows_with_the_reason(table):
    assert list(table["status"]) == ["ok", "error", "error"]
    assert "course-gpt-4m" in table.iloc[1].reason  # the nearest right name
    assert "HF_HUB_OFFLINE=1" in table.iloc[2].reason
    assert math.isnan(table.iloc[2].tokens_per_s) and table.iloc[2].texts == ()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory limits are Linux's")
def test_out_of_memory_is_a_row_and_the_next_model_runs():
    found = compare(
        ["course-gpt-16m", "course-gpt-1m"], 2, 1,
        heldout="", memory_limit_mb=100, progress=False, timeout_s=120,
    )  # fmt: skip
    assert list(found["status"]) == ["out of memory", "ok"]
    assert "allocate memory" in found.iloc[0].reason


@pytest.mark.slow
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


@pytest.mark.slow
def test_too_slow_is_a_row():
    found = compare(["course-gpt-1m"], 2, 1, timeout_s=0.05, progress=False)
    assert list(found["status"]) == ["timeout"]


@pytest.mark.slow
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


WHOLE = "a whole number of at least "


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("models", [], "a list of at least one name"),
        ("models", "course-gpt-1m", "a list of at least one name"),
        ("models", ["course-gpt-1m", 7], "a list of at least one name"),
        ("prompts", [], "a list of at least one text"),
        ("prompts", "Hello", "a list of at least one text"),
        ("max_new_tokens", 1, WHOLE + "2"),
        ("max_new_tokens", 2.5, WHOLE + "2"),
        ("repeats", 0, WHOLE + "1"),
        ("repeats", True, WHOLE + "1"),
        ("timeout_s", 0, "above 0 seconds"),
        ("timeout_s", -1, "above 0 seconds"),
    ],
)
def test_nothing_to_measure(name, value, allowed):
    with pytest.raises(ParameterError) as caught:
        compare(**({"models": ["course-gpt-1m"], "progress": False} | {name: value}))
    assert (caught.value.parameter, caught.value.value) == (name, value)
    assert caught.value.allowed == allowed


# --- in this process: what is measured and said; that each has its own is tested above


@pytest.fixture
def calls(monkeypatch):
    """Measures here, without a process of its own; keeps how it was called."""
    kept = []

    def here(function, timeout_s, memory_limit_mb, **arguments):
        kept.append((function, timeout_s, memory_limit_mb, arguments))
        return function(**arguments)

    monkeypatch.setattr(isolated, "run_isolated", here)
    return kept


@pytest.fixture
def planned(monkeypatch):
    """Model → its row, or the failure of its process, in place of a measurement."""
    rows, kept = {}, []

    def told(function, timeout_s, memory_limit_mb, **arguments):
        kept.append((timeout_s, memory_limit_mb, arguments))
        found = rows.get(arguments["model"], {"model": arguments["model"]})
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(isolated, "run_isolated", told)
    return rows, kept


def test_a_row_holds_what_was_measured(calls, monkeypatch):
    """Two timed runs and three prompts: the third text is kept, its times are not."""
    from helpers.generator import TextGenerator, load
    from helpers.quality import bits_per_byte

    real, runs = TextGenerator.generate, []

    def generate(*arguments, **named):
        runs.append((arguments[1], named, real(*arguments, **named)))
        return runs[-1][2]

    monkeypatch.setattr(TextGenerator, "generate", generate)
    prompts, began = ["Hello", "A", "The"], time.perf_counter()
    table = compare(
        ["course-gpt-1m"], 3, 2, seed=5, prompts=prompts, heldout="A short text. " * 200,
        timeout_s=77, memory_limit_mb=900, progress=False,
    )  # fmt: skip
    passed = time.perf_counter() - began
    ((_, timeout, memory, arguments),) = calls
    assert (timeout, memory, arguments["device"], arguments["repeats"]) == (77, 900, "cpu", 2)
    (row,) = table.to_dict("records")
    assert (row["model"], row["status"], row["reason"]) == ("course-gpt-1m", "ok", "")
    warm_up, *timed = runs
    assert row["warm_up_s"] > warm_up[2].seconds
    assert [(p, n["max_new_tokens"], n["seed"]) for p, n, _ in timed] == [
        ("Hello", 3, 5), ("A", 3, 6), ("The", 3, 7)
    ]  # fmt: skip
    results = [result for _, _, result in timed]
    assert row["texts"] == [result.text for result in results]
    ttft = sorted(1000 * result.ttft for result in results[:2])
    speed = sorted(result.tokens_per_second for result in results[:2])
    assert [row[k] for k in ("ttft_low_ms", "ttft_high_ms")] == pytest.approx(ttft)
    assert [row[k] for k in ("tokens_low", "tokens_high")] == pytest.approx(speed)
    assert row["ttft_ms"] == pytest.approx(sum(ttft) / 2)
    assert row["tokens_per_s"] == pytest.approx(sum(speed) / 2)
    assert 0 < row["load_s"] < row["load_s"] + row["warm_up_s"] < passed
    generator = load("course-gpt-1m", "cpu")
    assert (row["device"], row["parameters_m"]) == ("CPU", generator.parameters / 1e6)
    text = "A short text. " * 200
    exact = bits_per_byte(generator.model, generator.tokenizer, text, 512, batch_size=1)
    assert row["bits_per_byte"] == pytest.approx(exact)


def test_more_repeats_than_prompts_go_round_and_no_text_leaves_the_quality_out(calls):
    table = compare(["course-gpt-1m"], 2, 3, prompts=["One", "Two"], heldout=" ", progress=False)
    row = table.iloc[0]
    assert [text[:3] for text in row.texts] == ["One", "Two"]
    assert math.isnan(row.bits_per_byte) and row.ttft_low_ms <= row.ttft_ms <= row.ttft_high_ms


def test_what_a_comparison_does_when_it_is_told_nothing(planned, capsys):
    rows, kept = planned
    compare(["course-gpt-1m", "course-gpt-4m"])
    usual = {
        "max_new_tokens": 32, "repeats": 3, "seed": 0, "device": "cpu", "heldout": None,
        "prompts": ["Machine learning is", "A container is", "The weather today"],
    }  # fmt: skip
    assert kept == [
        (600.0, None, {"model": name} | usual) for name in ("course-gpt-1m", "course-gpt-4m")
    ]
    bar = capsys.readouterr().err
    assert "2/2" in bar and "model/s" in bar.replace("s/model", "model/s")
    assert "course-gpt-1m" in bar and "course-gpt-4m" in bar
    compare(["course-gpt-1m"], progress=False)
    assert capsys.readouterr().err == ""


def test_a_failed_process_and_a_missing_model_are_rows(planned):
    rows, _ = planned
    rows["course-gpt-1m"] = isolated.ChildFailed("out of memory", "it was too large")
    names = ["course-gpt-1m", "course-gpt-9m", "gpt2", "course-gpt-4m"]
    table = compare(names, progress=False)
    assert list(table["model"]) == names and list(table.columns) == list(comparing.COLUMNS)
    assert list(table["status"]) == ["out of memory", "error", "error", "ok"]
    reasons = list(table["reason"])
    assert reasons[0] == "it was too large" and reasons[3] == ""
    assert reasons[1].startswith("ModelNotFoundError: model='course-gpt-9m'")
    assert reasons[2].startswith("HubUnreachableError: ")
    assert all(math.isnan(value) for value in table["ttft_ms"])


def test_a_kept_comparison_in_full(tmp_path, planned):
    from helpers.device import get_system_info

    rows, _ = planned
    rows["course-gpt-1m"] = {"model": "course-gpt-1m", "load_s": 2.5, "texts": ["Grün"]}
    table, path = compare(["course-gpt-1m"], progress=False), tmp_path / "k.json"
    before = datetime.now(UTC).replace(microsecond=0)
    save(path, table)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert list(content) == ["made", "machine", "models"]
    made = datetime.fromisoformat(content["made"])
    assert before <= made <= datetime.now(UTC) and made.microsecond == 0
    assert content["machine"].keys() == get_system_info().keys()
    full = {"status": "ok", "reason": "", "device": ""}
    assert content["models"] == [rows["course-gpt-1m"] | full]
    text = path.read_text(encoding="utf-8")
    assert "Grün" in text and text.startswith('{\n "made"') and text.endswith("}\n")
    again, machine = read(path)
    assert machine == content["machine"] and again.equals(table)
    for wrong in ("[]", "{", '{"models": []}'):
        path.write_text(wrong)
        with pytest.raises(ParameterError) as caught:
            read(path)
        assert (caught.value.parameter, caught.value.value) == ("path", str(path))
        assert re.fullmatch(r"a saved comparison \(\w+Error: .+\)", caught.value.allowed)


HELP = """
usage: python -m helpers.compare [-h] [--tokens TOKENS] [--repeats REPEATS] [--device DEVICE]
[--json FILE] models [models ...]
Measure models, each in its own process.
positional arguments: models shipped names, folders or hub ids
options: -h, --help show this help message and exit
--tokens TOKENS new tokens a run (32)
--repeats REPEATS timed runs a model (3)
--device DEVICE auto, cpu, cuda:0 … (auto)
--json FILE save the results there
"""


def test_the_command_line(planned, monkeypatch, capsys, tmp_path):
    rows, kept = planned
    monkeypatch.setenv("COLUMNS", "400")

    def ends(*words):
        monkeypatch.setattr(sys, "argv", ["compare", *words])
        try:
            return comparing.main()
        except SystemExit as ended:
            return ended.code

    assert ends("--help") == 0 and capsys.readouterr().out.split() == HELP.split()
    assert ends("course-gpt-1m", "--tokens", "1") == 2
    assert "error: max_new_tokens=1" in capsys.readouterr().err
    rows["course-gpt-1m"] = {
        "model": "course-gpt-1m", "load_s": 1.23456, "device": "CPU", "texts": ["never shown"]
    }  # fmt: skip
    assert ends("course-gpt-1m") == 0
    (_, _, job), said = kept[-1], capsys.readouterr()
    assert (job["max_new_tokens"], job["repeats"], job["device"]) == (32, 3, "auto")
    head, line = said.out.splitlines()
    assert head.split() == ["model", "status", "device", "load_s"], "no column without a number"
    assert line.split() == ["course-gpt-1m", "ok", "CPU", "1.23"]
    rows["course-gpt-4m"] = isolated.ChildFailed("timeout", "took longer than 1 s")
    file = str(tmp_path / "out.json")
    both = ("course-gpt-1m", "course-gpt-4m", "--tokens", "5", "--repeats", "2")
    assert ends(*both, "--device", "cpu", "--json", file) == 1
    (_, _, job), said = kept[-1], capsys.readouterr()
    assert (job["max_new_tokens"], job["repeats"], job["device"]) == (5, 2, "cpu")
    assert "course-gpt-4m: timeout: took longer than 1 s" in said.err
    assert "course-gpt-1m:" not in said.err.replace("course-gpt-1m: ", "", 0).splitlines()[-1]
    assert said.out.splitlines()[2].split()[-1] == NOT_MEASURED
    assert list(read(file)[0]["status"]) == ["ok", "timeout"]


@pytest.mark.slow
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
    assert comparing._spread("m", "l", "h", [4.0, 1.0]) == {"m": 2.5, "l": 1.0, "h": 4.0}


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
