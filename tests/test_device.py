"""Choosing a device: names, the tutorials' numbers, DEVICE, and what is not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from helpers import device
from helpers.device import (
    MAX_THREADS,
    chosen_threads,
    configure_threads,
    default_dtype,
    device_label,
    resolve_device,
)
from system.errors import ParameterError
from system.machine import processors

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0
MPS = torch.backends.mps.is_available()
BEST = "cuda:0" if GPUS else "mps" if MPS else "cpu"


@pytest.mark.parametrize("device", ["cpu", "CPU", " cpu ", -1, "-1"])
def test_cpu(device: str | int) -> None:
    assert resolve_device(device) == "cpu"


@pytest.mark.parametrize("device", ["auto", "AUTO", ""])
def test_auto(device: str) -> None:
    assert resolve_device(device) == BEST


@pytest.mark.parametrize("device", [0, "0", "cuda", "cuda:0"])
def test_first_gpu(device: str | int) -> None:
    if GPUS:
        assert resolve_device(device) == "cuda:0"
        return
    with pytest.raises(ParameterError, match="this machine has: cpu") as caught:
        resolve_device(device)
    assert caught.value.parameter == "device" and caught.value.value == device


@pytest.mark.parametrize("device", ["cuda:99", 99])
def test_gpu_that_is_not_there(device: str | int) -> None:
    with pytest.raises(ParameterError, match="this machine has"):
        resolve_device(device)


def test_apple_gpu() -> None:
    if MPS:
        assert resolve_device("mps") == "mps"
        return
    with pytest.raises(ParameterError, match="no Apple GPU"):
        resolve_device("mps")


@pytest.mark.parametrize(
    "device",
    ["gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:1.5", "cpu:0", "tpu", -2, 1.5, True, False, []],
)
def test_nonsense(device: Any) -> None:
    with pytest.raises(ParameterError, match="auto, cpu, cuda.* -1 for the CPU") as caught:
        resolve_device(device)
    assert repr(device) in str(caught.value)


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICE", "-1")
    assert resolve_device() == "cpu"
    monkeypatch.setenv("DEVICE", "nonsense")
    with pytest.raises(ParameterError, match="'nonsense'"):
        resolve_device()
    assert resolve_device("cpu") == "cpu", "an argument must win over DEVICE"
    monkeypatch.delenv("DEVICE")
    assert resolve_device() == BEST


def test_number_formats() -> None:
    assert default_dtype("cpu") == default_dtype("mps") == torch.float32
    if GPUS:
        assert default_dtype("cuda:0") in (torch.bfloat16, torch.float16)


def test_labels() -> None:
    labels = [device_label(d) for d in ("cpu", "cuda:0", "cuda:3", "mps")]
    assert labels == ["CPU", "GPU:0", "GPU:3", "GPU:0"]


@pytest.fixture
def threads() -> Iterator[None]:
    """torch's number of threads is put back afterwards."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("asked", "threads_then"),
    [("1", 1), ("3", 3), (" 2 ", 2), ("4,2", 4), ("1024", 1024)],
)
def test_threads_as_asked(monkeypatch: pytest.MonkeyPatch, asked: str, threads_then: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert chosen_threads() == threads_then
    monkeypatch.setattr(device.sys, "modules", {})  # as before torch is imported
    configure_threads()
    assert os.environ["OMP_NUM_THREADS"] == asked


@pytest.mark.parametrize("asked", [None, "", "0", "-1", "abc", ",2", "1.5", "٣", "1025", "9" * 30])
def test_threads_of_our_own_where_none_can_be_used(
    monkeypatch: pytest.MonkeyPatch, asked: str | None, threads: None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked or "")
    if asked is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    configure_threads()
    own = max(1, min(MAX_THREADS, int(processors())))
    assert torch.get_num_threads() == own == int(os.environ["OMP_NUM_THREADS"])
    monkeypatch.setenv("OMP_NUM_THREADS", "1,1")
    configure_threads()
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(("share", "threads_then"), [(0.5, 1), (1.5, 1), (2.0, 2), (64.0, 4)])
def test_threads_follow_the_processors(
    monkeypatch: pytest.MonkeyPatch, share: float, threads_then: int
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(device, "processors", lambda: share)
    assert chosen_threads() == threads_then
