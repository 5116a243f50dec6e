"""A model from the Hugging Face hub: into the download cache once, from there ever after.

Around `huggingface_hub.snapshot_download`: the hub is asked first and must answer in time, a
name it does not know is told with the nearest right ones, and nothing else is ever loaded in
a model's place. (Lesson 05.)
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from helpers.models import has_weights, suggestion, unknown
from system.errors import HubUnreachableError, ModelNotFoundError, see

PROBE_SECONDS = 2.5  # how long the hub may take to answer before it counts as out of reach
_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "*.safetensors"]


def fetch(name: str) -> Path:
    """The model's folder in the download cache, downloading what is missing.

    Raises:
        ModelNotFoundError: the hub does not know it, or does not give it to this account.
        HubUnreachableError: no answer in time, the hub is switched off, or a broken download.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True, allow_patterns=_FILES))
        if has_weights(folder):
            return folder
    except HFValidationError:
        raise unknown(name) from None
    except (LocalEntryNotFoundError, OSError):
        pass  # not in the cache, or not all of it
    if constants.HF_HUB_OFFLINE:
        raise HubUnreachableError(
            f"model {name!r}: not in the download cache, and HF_HUB_OFFLINE=1 switches the hub "
            f"off. Unset HF_HUB_OFFLINE to download it, or use a shipped one. {suggestion(name)}. "
            f"{see('downloads')}"
        )
    files = [f for f in _ask(name) if "/" not in f]  # subfolders: the same for other tools
    weights = [f for f in files if f.endswith(".safetensors")]
    weights = weights or [f for f in files if f.endswith(".bin")]
    try:
        return Path(snapshot_download(name, allow_patterns=[*_FILES, *weights],
                                      ignore_patterns="*/*"))  # fmt: skip
    except Exception as error:  # whatever the network did, the advice is the same
        raise HubUnreachableError(
            f"model {name!r}: the download from {constants.ENDPOINT} stopped "
            f"({type(error).__name__}). Run it again (whole files that have arrived are kept), "
            f"or use a shipped model. {see('downloads')}"
        ) from error


def _ask(name: str) -> list[str]:
    """The names of the model's files, if the hub knows it and answers in time.

    In a thread of its own: neither a slow name look-up nor a server that accepts and never
    answers can hold the caller longer than PROBE_SECONDS.
    """
    from huggingface_hub import HfApi, constants, get_token

    answer: list[Any] = []

    def ask() -> None:
        try:
            siblings = HfApi().model_info(name, timeout=PROBE_SECONDS).siblings
            answer.append([file.rfilename for file in siblings or []])
        except Exception as error:  # a proxy that cannot be used, a page that is no hub's, …
            answer.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    reply = answer[0] if answer else TimeoutError("no answer")
    if isinstance(reply, list):
        return reply
    status = getattr(getattr(reply, "response", None), "status_code", None)
    if status == 404 or (status == 401 and not get_token()):
        raise unknown(name)  # to strangers the hub answers 401 for names that do not exist
    if status in (401, 403):
        raise ModelNotFoundError(
            "model",
            name,
            "one that your account may read: accept its terms on its hub page and log in with "
            "`hf auth login`, or use a shipped model",
        )
    first_line = (str(reply).splitlines() or [""])[0]
    cause = f"answered {status}" if status else f"{type(reply).__name__}: {first_line}"
    if isinstance(reply, ValueError) and not status and "JSON" in type(reply).__name__:
        cause = "what answers there is no hub; the log-in page of a network?"
    raise HubUnreachableError(
        f"model {name!r}: the hub {constants.ENDPOINT} could not be reached ({cause}). Download "
        f"it where there is a network (hf download {name}) and copy the cache folder, set "
        f"HF_HUB_OFFLINE=1 to use only what is in the cache, or use a shipped one. "
        f"{suggestion(name)}. {see('downloads')}"
    )
