"""The catalogue of models, and loading one by name, from a folder or from the hub.

`models/catalogue.json` holds every model that the course names, once. A model is *shipped* in
`models/`, made there from a file of the Python package index (`make model`), downloaded from
the Hugging Face hub by its id, or only a shape that formulas compute with. (Lessons 00, 05.)
"""

from __future__ import annotations

import difflib
import json
import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from system.environment import ROOT, default_model
from system.errors import ModelNotFoundError, ParameterError, see

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_NAME_CHARACTERS = 250
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
Where = Literal["shipped", "package index", "hub", "formula"]


@dataclass(frozen=True)
class ModelCard:
    """What the course knows about a model before loading it: an entry of the catalogue.

    Attributes:
        name: as `helpers.load` takes it.
        where: "shipped", "package index" (made by `make model`), "hub" (downloaded on first
            use) or "formula" (never loaded here).
        parameters: how many numbers it learned.
        context: most tokens, prompt and new ones together.
        licence: of the weights.
        config: its published configuration, as a `config.json` holds it, if nothing else does.
        origin: of a package-index model: package, version, file and checksums.
    """

    name: str
    where: Where
    parameters: int
    context: int
    licence: str
    config: dict[str, Any] | None = None
    origin: dict[str, str] | None = None

    @property
    def here(self) -> bool:
        """Whether its files lie in `models/`."""
        return (models_folder() / self.name / "config.json").is_file()

    @property
    def disk_mb(self) -> float:
        """Megabytes (10⁶ bytes) on disk: measured if here, else those of float32 weights."""
        if self.here:
            folder = models_folder() / self.name
            return sum(f.stat().st_size for f in folder.iterdir() if f.is_file()) / 1e6
        return self.parameters * 4 / 1e6


def models_folder() -> Path:
    """Where the shipped models lie: the folder `models` of the repository."""
    return ROOT / "models"


@cache
def cards() -> dict[str, ModelCard]:
    """Name → card: every model of the catalogue, in its order."""
    entries = json.loads((ROOT / "models/catalogue.json").read_text(encoding="utf-8"))
    return {name: ModelCard(name, **entry) for name, entry in entries.items()}


def catalogue() -> pd.DataFrame:
    """The models that the course uses: name, where, parameters, megabytes, context, licence."""
    import pandas as pd

    return pd.DataFrame(
        {
            "model": card.name,
            "where": card.where,
            "parameters": card.parameters,
            "disk_mb": round(card.disk_mb, 1),
            "context": card.context,
            "licence": card.licence,
        }
        for card in cards().values()
        if card.where != "formula"
    )


def locate(name: str | None = None) -> Path:
    """The folder that holds the model's files; a hub model is downloaded on first use.

    Args:
        name: a shipped model, a folder with a `config.json`, or a hub id; None takes
            MODEL_NAME from the environment, else the course's default.

    Raises:
        ModelNotFoundError: no such name anywhere, with the nearest right ones.
        HubUnreachableError: the hub does not answer (found out within 3 seconds) or
            is switched off, and the model is not in the cache.
    """
    name = default_model() if name is None else str(name).strip()
    if len(name) > MAX_NAME_CHARACTERS:  # operating systems refuse to look such a path up
        raise unknown(name)
    shipped = models_folder() / name
    if name and "/" not in name and (shipped / "config.json").is_file():
        if not has_weights(shipped):
            raise ModelNotFoundError(
                "model",
                name,
                f"complete, but its weights are missing: {_restore(name)}. {see('model-files')}",
            )
        return shipped
    folder = Path(os.path.expanduser(name))
    if name and folder.is_dir():
        if (folder / "config.json").is_file() and has_weights(folder):
            return folder
        wanted = "a folder that holds a config.json and the weights (model.safetensors)"
        raise ModelNotFoundError("model", name, wanted)
    card = cards().get(name)
    if card and card.where == "package index":
        raise ModelNotFoundError(
            "model",
            name,
            "fetched first, once: `make model` (without make: python tools/fetch_model.py), "
            f"{card.disk_mb:.0f} MB on disk. {suggestion(name)}. {see('package-index-model')}",
        )
    if card and card.where == "formula":
        raise ModelNotFoundError(
            "model", name, f"one that can be loaded; this one the course only computes with. "
            f"{suggestion(name)}"
        )  # fmt: skip
    if name.startswith((".", "/", "~", "course-")) or not _HUB_ID.fullmatch(name):
        raise unknown(name)
    from helpers.hub import fetch

    return fetch(name)


def _restore(name: str) -> str:
    """The command that brings a model's files back."""
    card = cards().get(name)
    return "make model" if card and card.where == "package index" else "git checkout -- models"


def has_weights(folder: Path) -> bool:
    """Whether there is a file that could hold a model's weights."""
    # Hidden ones are notes that macOS puts beside a file which it copies (`._model.safetensors`).
    return any(
        not file.name.startswith(".")
        for pattern in ("*.safetensors", "*.bin")
        for file in folder.glob(pattern)
    )


def suggestion(name: str) -> str:
    """The names that look most like a wrong one, and those that always work."""
    known = list(cards())
    close = [] if name in known else difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}Shipped: {', '.join(n for n, c in cards().items() if c.where == 'shipped')}"


def unknown(name: str) -> ModelNotFoundError:
    """The error for a name that stands for nothing."""
    return ModelNotFoundError(
        "model", name, f"a shipped model, a folder or a hub id. {suggestion(name)}"
    )


def load_model(
    name: str | None, device: str, dtype: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model, ready to run on `device`, and its tokenizer.

    Args:
        name: as for `locate`.
        device: a torch device, as `device.resolve_device` gives it.
        dtype: "float32", "bfloat16" or "float16"; None takes what suits the device.

    Raises:
        ModelNotFoundError, HubUnreachableError: as `locate`.
        ParameterError: not a decoder-only language model, or an unknown dtype.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    from helpers.device import default_dtype

    if dtype not in (None, "float32", "bfloat16", "float16"):
        raise ParameterError("dtype", dtype, "float32, bfloat16 or float16")
    number_format = getattr(torch, dtype) if dtype else default_dtype(device)
    folder = locate(name)
    config = AutoConfig.from_pretrained(folder)
    if getattr(config, "is_encoder_decoder", False):
        raise ParameterError(
            "model", name, "decoder-only (GPT, Llama, Qwen, …); this one has an encoder too"
        )
    logging.disable_progress_bar()  # a shipped model loads in a moment; downloads have their own
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=number_format)
    finally:
        logging.enable_progress_bar()
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    # Every generation names its padding itself; with this one set, transformers warns of
    # "padding" whenever one text of several ends before the others.
    model.config.pad_token_id = None
    return model.to(device).eval(), tokenizer


def context_length(model: PreTrainedModel) -> int:
    """The most tokens the model can hold, prompt and new text together."""
    return int(getattr(model.config, "max_position_embeddings", None) or 2048)
