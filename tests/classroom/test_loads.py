"""What is shown of load tests beside each other, worked out by hand."""

from __future__ import annotations

from classroom.loads import latency_by_length
from serving.client.load_report import Load, Report, Result

LOAD = Load("http://127.0.0.1:5000", requests=10)


def test_median_latency_of_groups_by_length() -> None:
    even = [Result(started=0, seconds=1.0, tokens=n) for n in range(1, 11)]
    failed = Result(started=0, seconds=99.0, tokens=1, error="HTTP 503")
    rising = [Result(started=0, seconds=n / 100, tokens=n) for n in range(1, 11)]
    found = latency_by_length(
        {"static": Report(LOAD, 1.0, [*even, failed]), "continuous": Report(LOAD, 1.0, rising)}
    )
    assert list(found.columns) == ["static", "continuous"]
    assert list(found.index) == [2, 4, 6, 8, 10]  # two answers a group, and twice as many in all
    assert (found["static"] == 1000).all()
    assert found["continuous"].round(6).tolist() == [15, 35, 55, 75, 95]
