"""What devices hold and send, and two real processes that exchange tensors."""

from __future__ import annotations

import pytest

from classroom.parallel import device_gb, gpt2_form, on_two, token_bytes_sent
from helpers.isolated import ChildFailed
from helpers.memory import kv_cache_bytes, shape
from system.errors import ParameterError


def test_devices_together_hold_the_model_once() -> None:
    of = shape("llama-2-70b")
    alone = device_gb(of, tokens=1000, texts=4)
    assert alone["weights"] == of.parameters * 2 / 1e9
    assert alone["KV cache"] == kv_cache_bytes(of, 1000, 4, 2) / 1e9
    for tensor, pipeline in ((2, 1), (8, 1), (1, 5), (4, 2)):
        held = device_gb(of, tensor, pipeline, tokens=1000, texts=4)
        for part, gb in held.items():
            assert gb * tensor * pipeline == pytest.approx(alone[part])
    many = device_gb(of, tensor=64, tokens=1000, texts=4)  # 8 KV heads: each is held 8 times
    assert many["KV cache"] * 8 == pytest.approx(alone["KV cache"])


def test_what_is_sent_for_a_token() -> None:
    of = shape("llama-2-7b")
    vector = of.hidden * 2
    assert token_bytes_sent(of) == 0
    assert token_bytes_sent(of, tensor=2) == 2 * of.layers * vector
    assert token_bytes_sent(of, pipeline=4) == vector
    more = [token_bytes_sent(of, tensor=n) for n in (2, 4, 8, 1000)]
    assert more == sorted(more) and more[-1] < 4 * of.layers * vector


@pytest.mark.parametrize(("name", "value"), [("tensor", 0), ("pipeline", 33), ("tensor", 1.5)])
def test_counts_out_of_range_are_named(name: str, value: int) -> None:
    with pytest.raises(ParameterError) as caught:
        device_gb(shape("llama-2-7b"), **{name: value})
    assert caught.value.parameter == name


def added_up(rank: int, start: float) -> float:
    total = torch.tensor([2 * start + rank])  # noqa: F821 (given by `on_two`)
    dist.all_reduce(total)  # noqa: F821
    return float(total)


def broken(rank: int, start: float) -> float:
    raise ValueError(f"rank {rank} from {start}")


@pytest.mark.slow
def test_two_processes_add_up_what_each_has() -> None:
    assert on_two(added_up, added_up, start=5.0) == [[21.0, 21.0]] * 2


@pytest.mark.slow
def test_a_process_that_raises_says_why() -> None:
    with pytest.raises(ChildFailed, match="ValueError: rank 0 from 3"):
        on_two(broken, start=3.0)


def test_a_model_that_cannot_be_cut_is_named(
    smollm2: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpt2_form("course-gpt-1m") == "course-gpt-1m" and not capsys.readouterr().out
    assert gpt2_form(smollm2) == "course-gpt-16m" and smollm2 in capsys.readouterr().out
