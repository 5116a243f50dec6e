"""From the service's settings to a CTranslate2 engine. (Lesson 08.)"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.device import chosen_threads
from helpers.models import locate
from serving.config import Config
from serving.engine.fast.conversion import FORMATS, cache_folder, check_library, converted
from serving.engine.fast.engine import FastEngine, arguments
from system.errors import ParameterError, see
from system.machine import processors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def fast_engine(config: Config, device: str) -> tuple[FastEngine, PreTrainedTokenizerBase, str]:
    """The engine, not running yet, the tokenizer and the weights' fingerprint.

    Args:
        config: the server's settings.
        device: a torch device; only CPUs are served.

    Raises:
        ParameterError: the library is missing, or the settings or the model do not suit it.
        ModelNotFoundError, HubUnreachableError: as `locate`.
    """
    check_library()
    if device != "cpu":
        wanted = f"cpu with ENGINE=ctranslate2, which is the engine for CPUs. {see('fast')}"
        raise ParameterError("device", config.device, wanted)
    dtype = "float32" if config.dtype == "auto" else str(config.dtype)
    if dtype not in FORMATS:
        wanted = f"auto, float32 or int8 with ENGINE=ctranslate2. {see('fast')}"
        raise ParameterError("dtype", dtype, wanted)
    import ctranslate2
    from transformers import AutoTokenizer

    from helpers.memory import shape

    source = locate(config.model_name)
    folder, weights = converted(config.model_name, dtype, cache_folder(config.engine_cache))
    tokenizer = AutoTokenizer.from_pretrained(source)
    generator = ctranslate2.Generator(
        str(folder), "cpu", compute_type=dtype, **arguments(chosen_threads(), int(processors()))
    )
    names = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    engine = FastEngine(
        generator,
        names,
        tokenizer,
        end_ids(source),
        shape(source).context,
        dtype,
        config.slots,
        config.queue_length,
    )
    return engine, tokenizer, weights


def end_ids(folder: Path) -> set[int | None]:
    """The token ids that mean end-of-text, by the model's own configuration."""
    from transformers import AutoConfig, GenerationConfig

    try:
        end = GenerationConfig.from_pretrained(folder).eos_token_id
    except OSError:  # a folder without one: transformers derives it from the model's
        end = AutoConfig.from_pretrained(folder).eos_token_id
    return set(end) if isinstance(end, list) else {end}
