"""The report of a load test, worked out by hand: no server is needed."""

from __future__ import annotations

import json
import math

import pytest

from serving.client.load_report import Load, Report, Result, spread

LOAD = Load("http://127.0.0.1:5000", requests=5, seed=3)
RESULTS = [
    Result(started=0.0, seconds=1.0, ttft=0.25, tokens=4),  # 0.25 s a token after the first
    Result(started=0.5, seconds=2.0, ttft=0.5, tokens=4),  # 0.5 s
    Result(started=0.5, seconds=3.0, ttft=0.75, tokens=1),  # no token after the first
    Result(started=1.0, seconds=9.0, ttft=8.0, tokens=999, error="HTTP 503"),
    Result(started=1.0, seconds=8.0, error="HTTP 503"),
]
REPORT = Report(LOAD, 4.0, RESULTS)
TABLE = """\
5 requests in 4.0 s: 0.75 requests/s, 2 tokens/s

milliseconds                 mean      p50      p95      p99
latency                    2000.0   2000.0   2900.0   2980.0
time to first token         500.0    500.0    725.0    745.0
time per output token       375.0    375.0    487.5    497.5

errors: 2 × HTTP 503"""


def test_summary_by_hand() -> None:
    assert REPORT.good == RESULTS[:3]
    assert REPORT.summary() == {
        "requests": 5,
        "seconds": 4.0,
        "requests_per_second": 0.75,
        "tokens_per_second": 2.2,  # 9 / 4, to one digit
        "tokens": 9,
        "latency": {"mean": 2.0, "p50": 2.0, "p95": 2.9, "p99": 2.98},
        "time_to_first_token": {"mean": 0.5, "p50": 0.5, "p95": 0.725, "p99": 0.745},
        "time_per_output_token": {"mean": 0.375, "p50": 0.375, "p95": 0.4875, "p99": 0.4975},
        "errors": {"HTTP 503": 2},
    }
    third = Report(LOAD, 7.65432, RESULTS[:1]).summary()
    assert (third["seconds"], third["requests_per_second"]) == (7.654, 0.131)


def test_table_in_full() -> None:
    assert REPORT.table() == TABLE
    nothing = Report(LOAD, 4.0, [Result(0.0, 1.0, error="refused"), Result(0, 1, error="late")])
    lines = nothing.table().splitlines()
    assert lines[3] == f"{'latency':<24}" + 4 * f"{'-':>9}"
    assert lines[-1] == "errors: 1 × refused, 1 × late"
    assert Report(LOAD, 4.0, RESULTS[:1]).table().splitlines()[-1] == "errors: 0"


def test_json_holds_settings_summary_and_every_request() -> None:
    text = REPORT.to_json()
    kept = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert set(kept) == {"load", "summary", "results"}
    assert Load(**kept["load"]) == LOAD and kept["summary"] == REPORT.summary()
    assert len(kept["results"]) == 5 and kept["results"][-1]["ttft"] is None
    assert [Result(**row) for row in kept["results"][:4]] == RESULTS[:4]
    assert text.startswith('{\n "load": {\n')


def test_spread_leaves_out_what_is_no_number() -> None:
    nothing = dict.fromkeys(("mean", "p50", "p95", "p99"))
    assert spread([]) == spread([math.nan]) == nothing
    assert spread([math.nan, 0.123456789]) == dict.fromkeys(nothing, 0.12346)
