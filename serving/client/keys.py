"""The API key that a client sends; never printed, kept in no settings and no report."""

from __future__ import annotations

import os
import re

from system.errors import ParameterError

VARIABLE = "LLM_API_KEY"


def bearer(api_key: str | None = None) -> dict[str, str]:
    """The header that carries a key; empty where there is none.

    Args:
        api_key: None takes LLM_API_KEY from the environment; "" sends none.

    Raises:
        ParameterError: it can stand in no header; the message does not hold it.
    """
    key = os.environ.get(VARIABLE, "").strip() if api_key is None else api_key
    if not key:
        return {}
    if not re.fullmatch(r"[!-~]+", key):
        raise ParameterError("api_key", "…", "a key without spaces or accents")
    return {"Authorization": f"Bearer {key}"}
