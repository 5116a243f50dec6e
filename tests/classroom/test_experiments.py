"""What lesson 04 runs in processes of its own."""

from __future__ import annotations

import sys

import pytest

from classroom import experiments
from helpers import memory
from helpers.isolated import run_isolated

MODEL = "course-gpt-4m"


@pytest.mark.slow
def test_the_speed_of_gpt2s_shape_is_measured() -> None:
    assert 0.1 < run_isolated(experiments.gpt2_speed, tokens=2) < 10_000


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can limit memory so")
def test_too_little_memory_is_told_by_a_warning_and_enough_by_none() -> None:
    tokens, texts = 64, 64
    cache_mb = memory.kv_cache_bytes(memory.shape(MODEL), tokens, texts) / 1e6
    job = {"model": MODEL, "batch": texts, "tokens": tokens}
    short = run_isolated(experiments.generate_under_limit, more_mb=2 * cache_mb, **job)
    assert short and short[0].startswith("RuntimeWarning: out of memory with 64 new tokens")
    assert run_isolated(experiments.generate_under_limit, more_mb=2000, **job) == []
