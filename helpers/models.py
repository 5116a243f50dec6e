"""The catalogue of models, and loading one by name, from a folder or from the hub.

Shipped models lie in `models/` and need no network. Any decoder-only model of the
Hugging Face hub loads by its id, `gpt2` for example; it is downloaded once. (Lessons 00
and 05.)
"""

from __future__ import annotations

import difflib
import json
import os
import re
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.environment import ROOT, default_model
from helpers.errors import HubUnreachableError, ModelNotFoundError, ParameterError, see

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBE_SECONDS = 2.5  # how long the hub may take to answer before it counts as out of reach
MAX_NAME_CHARACTERS = 250
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"]
_NOT_NEEDED = "*/*"  # subfolders hold the same model for other tools


@dataclass(frozen=True)
class ModelCard:
    """What the course knows about a model before loading it."""

    name: str
    parameters: int
    context: int
    licence: str
    shipped: bool

    @property
    def disk_mb(self) -> float:
        """Megabytes (10⁶ bytes) on disk: measured if shipped, else those of float32 weights."""
        if self.shipped:
            folder = models_folder() / self.name
            return sum(f.stat().st_size for f in folder.iterdir() if f.is_file()) / 1e6
        return self.parameters * 4 / 1e6


# Published figures (model cards on the hub); lessons compute with them, nothing is downloaded.
_ON_THE_HUB = [
    ModelCard("distilgpt2", 81_912_576, 1024, "Apache-2.0", shipped=False),
    ModelCard("gpt2", 124_439_808, 1024, "MIT", shipped=False),
    ModelCard("gpt2-medium", 354_823_168, 1024, "MIT", shipped=False),
    ModelCard("gpt2-large", 774_030_080, 1024, "MIT", shipped=False),
    ModelCard("gpt2-xl", 1_557_611_200, 1024, "MIT", shipped=False),
]


def models_folder() -> Path:
    """Where the shipped models lie: the folder `models` of the repository."""
    return ROOT / "models"


def cards() -> dict[str, ModelCard]:
    """Name → card: the shipped models, smallest first, then well-known ones of the hub."""
    found = []
    for facts_file in sorted(models_folder().glob("*/training.json")):
        facts = json.loads(facts_file.read_text(encoding="utf-8"))
        found.append(
            ModelCard(facts["model"], facts["parameters"], facts["context"], facts["licence"], True)
        )
    found.sort(key=lambda card: card.parameters)
    return {card.name: card for card in found + _ON_THE_HUB}


def catalogue() -> pd.DataFrame:
    """The models that the course uses: name, where, parameters, megabytes, context, licence."""
    import pandas as pd

    return pd.DataFrame(
        {
            "model": card.name,
            "where": "shipped" if card.shipped else "hub",
            "parameters": card.parameters,
            "disk_mb": round(card.disk_mb, 1),
            "context": card.context,
            "licence": card.licence,
        }
        for card in cards().values()
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
        raise _unknown(name)
    shipped = models_folder() / name
    if name and "/" not in name and (shipped / "config.json").is_file():
        if not _has_weights(shipped):
            raise ModelNotFoundError(
                "model",
                name,
                "complete, but its weights are missing: git checkout -- models. "
                f"{see('model-files')}",
            )
        return shipped
    folder = Path(os.path.expanduser(name))
    if name and folder.is_dir():
        if (folder / "config.json").is_file() and _has_weights(folder):
            return folder
        wanted = "a folder that holds a config.json and the weights (model.safetensors)"
        raise ModelNotFoundError("model", name, wanted)
    if name.startswith((".", "/", "~", "course-")) or not _HUB_ID.fullmatch(name):
        raise _unknown(name)
    return _from_hub(name)


def _has_weights(folder: Path) -> bool:
    """Whether there is a file that could hold a model's weights."""
    return any(folder.glob("*.safetensors")) or any(folder.glob("*.bin"))


def _suggestion(name: str) -> str:
    """The names that look most like a wrong one, and those that always work."""
    known = list(cards())
    close = [] if name in known else difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    return f"{hint}Shipped: {', '.join(n for n, c in cards().items() if c.shipped)}"


def _unknown(name: str) -> ModelNotFoundError:
    """The error for a name that stands for nothing."""
    return ModelNotFoundError(
        "model", name, f"a shipped model, a folder or a hub id. {_suggestion(name)}"
    )


def _from_hub(name: str) -> Path:
    """The model's folder in the download cache, downloading what is missing."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    download = partial(snapshot_download, name, ignore_patterns=_NOT_NEEDED)
    try:
        folder = Path(download(local_files_only=True, allow_patterns=_FILES))
        if _has_weights(folder):
            return folder
    except HFValidationError:
        raise _unknown(name) from None
    except (LocalEntryNotFoundError, OSError):
        pass  # not in the cache, or not all of it
    if constants.HF_HUB_OFFLINE:
        raise HubUnreachableError(
            f"model {name!r}: not in the download cache, and HF_HUB_OFFLINE=1 switches the hub "
            f"off. Unset HF_HUB_OFFLINE to download it, or use a shipped one. {_suggestion(name)}. "
            f"{see('downloads')}"
        )
    files = [f for f in _ask_hub(name, constants.ENDPOINT) if "/" not in f]
    weights = [f for f in files if f.endswith(".safetensors")]
    weights = weights or [f for f in files if f.endswith(".bin")]
    try:
        for file in weights:
            _fetch(name, file)
        return Path(download(allow_patterns=[*_FILES, *weights]))
    except Exception as error:  # whatever the network did, the advice is the same
        raise HubUnreachableError(
            f"model {name!r}: the download from {constants.ENDPOINT} stopped "
            f"({type(error).__name__}). What has arrived is kept: run it again to go on, "
            f"or use a shipped model. {see('downloads')}"
        ) from error


def _fetch(name: str, file: str) -> None:
    """One large file into the cache, going on where an earlier download was interrupted.

    huggingface_hub alone goes on only within one call, and begins anew in the next.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.file_download import http_get, repo_folder_name
    from huggingface_hub.utils import WeakFileLock, build_hf_headers

    repository = repo_folder_name(repo_id=name, repo_type="model")
    facts = get_hf_file_metadata(hf_hub_url(name, file))
    blob = Path(constants.HF_HUB_CACHE, repository, "blobs", facts.etag or file)
    part = blob.with_name(f"{blob.name}.part")
    blob.parent.mkdir(parents=True, exist_ok=True)
    own_host = facts.location.startswith(constants.ENDPOINT)  # others must not see the token
    with WeakFileLock(blob.with_name(f"{blob.name}.lock")):
        if blob.exists():
            return
        with part.open("ab") as stream:
            http_get(
                facts.location,
                stream,
                resume_size=part.stat().st_size,
                headers=build_hf_headers() if own_host else None,
                expected_size=facts.size,
                displayed_filename=file,
            )
        part.replace(blob)


def _ask_hub(name: str, endpoint: str) -> list[str]:
    """The names of the model's files, if the hub knows it and answers in time.

    The question runs in a thread of its own: neither a slow name look-up nor a server
    that accepts and never answers can hold the caller longer than PROBE_SECONDS.
    """
    import httpx
    from huggingface_hub import get_token

    token = get_token()
    answer: list[httpx.Response | Exception] = []

    def ask() -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            answer.append(
                httpx.get(
                    f"{endpoint}/api/models/{name}",
                    headers=headers,
                    timeout=PROBE_SECONDS,
                    follow_redirects=True,
                )
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    reply = answer[0] if answer else None
    status = reply.status_code if isinstance(reply, httpx.Response) else None
    if status in (401, 404) and not token:
        raise _unknown(name)  # to strangers the hub answers 401 for names that do not exist
    if status == 404:
        raise _unknown(name)
    if status in (401, 403):
        raise ModelNotFoundError(
            "model",
            name,
            "one that your account may read: accept its terms on its hub page and log in with "
            "`hf auth login`, or use a shipped model",
        )
    cause = f"answered {status}" if status else "no answer"
    if isinstance(reply, Exception):
        cause = f"{type(reply).__name__}: {reply}".rstrip(": ")
    if isinstance(reply, httpx.Response) and reply.is_success:
        try:
            return [str(file["rfilename"]) for file in reply.json()["siblings"]]
        except (ValueError, KeyError, TypeError):  # such as the log-in page of a guest network
            cause = "something else than a hub answered"
    raise HubUnreachableError(
        f"model {name!r}: the hub {endpoint} could not be reached ({cause}). Download it "
        f"where there is a network (hf download {name}) and copy the cache folder, set "
        f"HF_HUB_OFFLINE=1 to use only what is in the cache, or use a shipped one. "
        f"{_suggestion(name)}. {see('downloads')}"
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
