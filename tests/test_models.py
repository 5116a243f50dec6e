"""The shipped models, the catalogue, and names, folders and files that are not right."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import T5Config

from helpers import models
from helpers.generator import load
from helpers.models import cards, catalogue, load_model, locate, models_folder
from system.errors import HubUnreachableError, ModelNotFoundError, ParameterError
from tests.conftest import writable

SHIPPED = ["course-gpt-1m", "course-gpt-4m", "course-gpt-16m"]
SMALLEST = SHIPPED[0]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_model(name: str) -> None:
    generator = load(name, device="cpu")
    card = cards()[name]
    assert generator.name == name and generator.device == "cpu"
    assert generator.context == card.context == 512
    assert generator.parameters == card.parameters
    assert {p.dtype for p in generator.model.parameters()} == {torch.float32}
    config = generator.model.config
    assert config.model_type == "gpt2" and config.tie_word_embeddings
    assert config.n_head % 2 == 0
    assert len(generator.tokenizer) == config.vocab_size == 8192
    assert generator.tokenizer.eos_token == "<|endoftext|>"
    assert not generator.model.training
    result = generator.generate("Machine learning is", max_new_tokens=4, temperature=0)
    assert result.text.startswith("Machine learning is") and result.new_tokens <= 4


def test_the_family_grows_and_stays_small() -> None:
    sizes = [cards()[name].parameters for name in SHIPPED]
    assert 0.5e6 < sizes[0] < 2e6 < sizes[1] < 8e6 < sizes[2] < 25e6
    folders = [models_folder() / name for name in SHIPPED]
    assert sum(f.stat().st_size for folder in folders for f in folder.iterdir()) < 60e6
    for name in SHIPPED:
        assert (models_folder() / name / "README.md").stat().st_size > 1000


def test_weights_are_half_precision() -> None:
    header = (models_folder() / SMALLEST / "model.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    tensors = json.loads(header[8 : 8 + length])
    assert {t["dtype"] for n, t in tensors.items() if n != "__metadata__"} == {"F16"}


def test_all_share_one_tokenizer() -> None:
    files = [(models_folder() / name / "tokenizer.json").read_bytes() for name in SHIPPED]
    assert files[0] == files[1] == files[2]


def test_catalogue() -> None:
    table = catalogue().set_index("model")
    assert list(table.index[:3]) == SHIPPED, "shipped ones first, the smallest first"
    assert list(table["where"]) == ["shipped"] * 3 + ["package index"] + ["hub"] * 5
    assert {"distilgpt2", "gpt2", "gpt2-medium"} <= set(table.index)
    for name in SHIPPED:
        folder = models_folder() / name
        weights = (folder / "model.safetensors").stat().st_size / 1e6
        assert weights < table.loc[name, "disk_mb"] < weights + 2
        assert table.loc[name, "licence"]
    assert "llama-2-7b" in cards() and "llama-2-7b" not in table.index, "only computed with"
    assert table.loc["gpt2", "disk_mb"] == pytest.approx(124_439_808 * 4 / 1e6, abs=0.1)


def test_catalogue_says_what_training_and_files_say() -> None:
    for name in SHIPPED:
        facts = json.loads((models_folder() / name / "training.json").read_text("utf-8"))
        card = cards()[name]
        assert (card.parameters, card.context) == (facts["parameters"], facts["context"])
        assert card.licence == facts["licence"]


def test_a_model_that_formulas_use_is_not_loaded() -> None:
    with pytest.raises(ModelNotFoundError, match="only computes with"):
        locate("llama-2-7b")


def test_a_model_not_yet_fetched_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "models_folder", lambda: tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"make model.*fetch_model\.py.*538 MB"):
        locate("smollm2-135m")


def test_default_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODEL_NAME", SMALLEST)
    assert locate() == models_folder() / SMALLEST
    monkeypatch.delenv("MODEL_NAME")
    assert locate() == models_folder() / "course-gpt-4m"


def test_spaces_around_a_name() -> None:
    assert locate(f" {SMALLEST}\n") == models_folder() / SMALLEST


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("course-gpt-4", "course-gpt-4m"),
        ("course-gpt-16M", "course-gpt-16m"),
        ("course-gpt4m", "course-gpt-4m"),
        ("course_gpt_1m", "course-gpt-1m"),
        ("gpt2-meduim", "gpt2-medium"),
        ("distil-gpt2", "distilgpt2"),
    ],
)
def test_wrong_names_suggest_the_nearest(name: str, meant: str) -> None:
    with pytest.raises((ModelNotFoundError, HubUnreachableError)) as caught:
        locate(name)
    message = str(caught.value)
    assert name in message
    suggested = message.split("Did you mean ")[1].split("?")[0].split(" or ")
    assert meant in suggested
    assert all(shipped in message for shipped in SHIPPED)


@pytest.mark.parametrize(
    "name",
    ["", " ", "a/b/c", "gpt--2", "x.git", "-x", "~nobody-of-this-name", "/no/such/folder",
     "./nothing", "\x00", "\ud800", "a b", "a" * 97, "a" * 5000, "é", "a/" + "b" * 300],
    ids=lambda name: ascii(name)[:20],
)  # fmt: skip
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="course-gpt-4m") as caught:
        locate(name)
    assert caught.value.parameter == "model"


def test_switched_off_hub_says_so() -> None:
    with pytest.raises(HubUnreachableError) as caught:
        load("some-one/some-model")
    for words in ("'some-one/some-model'", "HF_HUB_OFFLINE", "shipped", "course-gpt-4m"):
        assert words in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder outside the repository."""
    target = tmp_path / "my model"
    return writable(shutil.copytree(models_folder() / SMALLEST, target))


def test_folder(folder: Path) -> None:
    generator = load(str(folder), device="cpu")
    shipped = load(SMALLEST, device="cpu")
    arguments = {"prompt": "The", "seed": 1, "max_new_tokens": 5}
    assert generator.generate(**arguments).text == shipped.generate(**arguments).text


def test_folder_from_the_home_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("USERPROFILE", str(folder.parent))
    assert locate("~/my model") == folder


def test_folder_without_config(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"config\.json"):
        locate(str(tmp_path))


def test_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="weights") as caught:
        load(str(folder), device="cpu")
    assert str(folder)[:20] in str(caught.value)


def test_shipped_model_without_weights(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.rename(tmp_path / SMALLEST)
    (tmp_path / SMALLEST / "model.safetensors").unlink()
    monkeypatch.setattr(models, "models_folder", lambda: tmp_path)
    with pytest.raises(ModelNotFoundError, match="weights are missing: git checkout"):
        locate(SMALLEST)


def test_encoder_decoder_models_are_refused(tmp_path: Path) -> None:
    T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ParameterError, match="decoder-only"):
        load_model(str(tmp_path), "cpu")


@pytest.mark.parametrize("dtype", ["float12", "int8", "Tensor", "", "float64"])
def test_unknown_number_format(dtype: str) -> None:
    with pytest.raises(ParameterError, match="float32, bfloat16 or float16") as caught:
        load_model(SMALLEST, "cpu", dtype)
    assert caught.value.parameter == "dtype"


def test_other_number_format() -> None:
    model, _ = load_model(SMALLEST, "cpu", "bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_heldout_text_lies_beside_the_models() -> None:
    text = (models_folder() / "heldout.md").read_text(encoding="utf-8")
    assert 10_000 < len(text.encode()) < 20_000
