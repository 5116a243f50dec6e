"""Packed layers compute what plain ones do; memory of weights that are not used any more goes."""

from __future__ import annotations

import mmap
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from helpers.models import load_model
from serving.engine import packed
from serving.engine.packed import (
    PackedLinear,
    bias_of,
    forget,
    forget_files,
    leave_file,
    linear_layers,
    pack_linear_layers,
    rows_of,
)

PAGE = mmap.PAGESIZE
linux = pytest.mark.skipif(sys.platform != "linux", reason="gives memory back as Linux does")


pytestmark = pytest.mark.usefixtures("inference")


@pytest.fixture
def model() -> PreTrainedModel:
    return load_model("course-gpt-1m", "cpu")[0]


# --- packing


def test_packed_layers_compute_the_same(model: PreTrainedModel) -> None:
    """For one row and for many, in the order of float32's rounding; the embeddings stay shared."""
    ids = torch.arange(600).reshape(30, 20) * 13
    right = model(input_ids=ids).logits
    assert pack_linear_layers(model) == 4 * model.config.n_layer + 1  # and the output layer
    kinds = [type(layer) for layer in model.modules()]
    assert kinds.count(PackedLinear) == 4 * model.config.n_layer + 1
    assert not {nn.Linear, Conv1D} & set(kinds)
    output, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    assert output.packed.data_ptr() == embeddings.weight.data_ptr()
    for rows in (1, 2, 7, 30):
        found = model(input_ids=ids[:rows]).logits
        torch.testing.assert_close(found, right[:rows], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("bias", [torch.randn(48), None])
def test_a_layer_of_its_own_or_of_shared_weights(shared: bool, bias: Tensor | None) -> None:
    """The weights may lie the other way round; shared ones are read where they lie."""
    weight, x = torch.randn(64, 48).t(), torch.randn(3, 5, 64)
    layer = PackedLinear(weight.contiguous() if shared else weight, bias, shared)
    right = x @ weight.t() + (0 if bias is None else bias)
    torch.testing.assert_close(layer(x), right, atol=1e-4, rtol=1e-4)
    assert layer.packed.is_mkldnn != shared and PackedLinear(weight, None).packed.is_mkldnn
    assert not layer.packed.requires_grad


def test_bfloat16_is_packed_where_the_processor_has_it() -> None:
    model = nn.Sequential(nn.Linear(64, 48)).to(torch.bfloat16)
    x = torch.randn(3, 5, 64).bfloat16()
    right = model(x)
    native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert pack_linear_layers(model) == native
    torch.testing.assert_close(model(x), right, atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("given", [{"dtype": torch.float16}, {"device": "meta"}, {}])
def test_other_models_are_left_as_they_are(
    given: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another number format, on another device, on a processor without oneDNN."""
    if not given:
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    model = nn.Sequential(nn.Linear(4, 4, **given))
    assert pack_linear_layers(model) == 0 and type(model[0]) is nn.Linear


def test_all_linear_layers_are_found_and_those_replaced_can_go() -> None:
    class Own(nn.Linear):
        """Computes something else: it is left alone."""

    inner = nn.Sequential(nn.Linear(2, 3), nn.GELU(), nn.Sequential(Conv1D(4, 3), Own(4, 4)))
    model = nn.Sequential(inner, nn.LayerNorm(4), nn.Linear(4, 2, bias=False))
    shapes, gone = {}, []
    for parent, name, layer in linear_layers(model):
        assert getattr(parent, name) is layer and all(part() is None for part in gone)
        shapes[type(layer), tuple(rows_of(layer).shape)] = bias_of(layer)
        gone.append(weakref.ref(layer))
        setattr(parent, name, nn.Identity())
        del layer
    assert [*shapes] == [(nn.Linear, (2, 4)), (nn.Linear, (3, 2)), (Conv1D, (4, 3))]
    biases = [None if bias is None else tuple(bias.shape) for bias in shapes.values()]
    assert biases == [None, (3,), (4,)]
    lines = Conv1D(4, 3)
    x = torch.randn(5, 3)
    torch.testing.assert_close(x @ rows_of(lines).t() + bias_of(lines), lines(x))


# --- memory


@linux
def test_nothing_of_a_packed_model_keeps_its_file_in_memory(
    model: PreTrainedModel, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)  # its weights lie in the file

    def in_files() -> list[str]:
        places, named = list(packed._mapped_weights()), model.named_parameters()
        return [n for n, one in named if any(a <= one.data_ptr() < b for a, b in places)]

    assert in_files() == [name for name, _ in model.named_parameters()]
    kept = {name: one.clone() for name, one in model.named_parameters()}
    pack_linear_layers(model)
    assert in_files() == []
    for name, one in model.named_parameters():
        assert torch.equal(one, kept[name])


def test_parameters_get_memory_of_their_own() -> None:
    given = [nn.Parameter(torch.randn(3)), nn.Parameter(torch.randn(2))]
    before = [(one.data_ptr(), one.clone()) for one in given]
    leave_file(given)
    for one, (place, values) in zip(given, before, strict=True):
        assert one.data_ptr() != place and torch.equal(one, values)


def mapped(folder: Path, name: str, pages: int = 6) -> Tensor:
    """Bytes of value 1 in a file, mapped; what is written to them does not reach the file."""
    file = folder / name
    file.write_bytes(b"\1" * (pages * PAGE))
    with file.open("rb") as opened:
        return torch.frombuffer(
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY), dtype=torch.uint8
        )


@linux
@pytest.mark.parametrize(
    ("first", "last", "given_back"),
    [
        (0, 6 * PAGE, range(6)),
        (PAGE, 3 * PAGE, range(1, 3)),
        (1, 3 * PAGE, range(1, 3)),
        (PAGE - 1, 2 * PAGE + 1, range(1, 2)),
        (PAGE - 1, 2 * PAGE - 1, range(0)),
        (3 * PAGE, 6 * PAGE - 1, range(3, 5)),
        (5, 9, range(0)),
    ],
)
def test_whole_pages_of_a_mapped_tensor_go(
    tmp_path: Path, first: int, last: int, given_back: range
) -> None:
    """Read again they come from the file, without what was changed in memory."""
    weights = mapped(tmp_path, "some weights.safetensors")
    weights.fill_(2)
    forget(weights[first:last])
    found = [set(weights[n * PAGE : (n + 1) * PAGE].tolist()) for n in range(6)]
    assert found == [{1} if n in given_back else {2} for n in range(6)]


@linux
def test_memory_that_is_no_file_of_weights_stays(tmp_path: Path) -> None:
    weights, other = mapped(tmp_path, "a.safetensors"), mapped(tmp_path, "safetensors.bin")
    plain, halves = torch.full((99 * PAGE,), 2, dtype=torch.uint8), torch.full((PAGE,), 2.0)
    for one in (weights, other):
        one.fill_(2)
    for one in (other, plain, halves):
        forget(one)
        assert set(one.tolist()) == {2}
    assert set(weights.tolist()) == {2}
    second = mapped(tmp_path, "b.safetensors", pages=2)
    second[PAGE:] = 2
    places = list(packed._mapped_weights())
    for one in (weights, second):
        assert (one.data_ptr(), one.data_ptr() + one.nbytes) in places
    assert not any(begin <= other.data_ptr() < end for begin, end in places)
    forget_files()
    assert set(weights.tolist()) == set(second.tolist()) == {1} and set(other.tolist()) == {2}


def test_elsewhere_no_files_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert list(packed._mapped_weights()) == []
