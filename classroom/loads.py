"""What load tests of the same requests show side by side. (Lesson 06.)"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from serving.client.load_report import Report

GROUPS = 5


def latency_by_length(reports: Mapping[str, Report]) -> pd.DataFrame:
    """Median latency of short and long answers, in groups of about as many answers each.

    Args:
        reports: way of batching → load test; only requests that succeeded are counted.

    Returns:
        milliseconds: a column for each way of batching, a row for each group. The index is the most
        tokens that an answer of the group has.
    """
    answers = pd.DataFrame(
        [
            (batching, r.tokens, 1000 * r.seconds)
            for batching, report in reports.items()
            for r in report.good
        ],
        columns=["batching", "tokens", "ms"],
    )
    group = pd.qcut(answers["tokens"], GROUPS, duplicates="drop")
    answers["up to"] = answers.groupby(group, observed=True)["tokens"].transform("max")
    return answers.pivot_table("ms", "up to", "batching", aggfunc="median")[list(reports)]
