"""The models that `benchmarks.inference` measures, and one that is only a shape. (Lesson 08.)"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.servers import endless
from helpers.isolated import run_isolated
from helpers.models import cards, locate

SHAPE = "gpt2-shape"
TOKENIZER = "course-gpt-16m"  # what it borrows


@contextmanager
def files_of(model: str) -> Iterator[Path]:
    """A folder with a model that names no end of text."""
    if model != SHAPE:
        with endless(model) as folder:
            yield folder
        return
    with tempfile.TemporaryDirectory(prefix="shape-") as place:
        run_isolated(write_shape, folder=str(Path(place) / SHAPE))
        yield Path(place) / SHAPE


def write_shape(folder: str) -> None:
    """Save gpt2's configuration with random weights, and a tokenizer with as many tokens."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    published = cards()["gpt2"].config or {}
    config = GPT2Config(**published, bos_token_id=None, eos_token_id=None)
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    shutil.copy(locate(TOKENIZER) / "tokenizer_config.json", folder)
    content = json.loads((locate(TOKENIZER) / "tokenizer.json").read_text("utf-8"))
    words = content["model"]["vocab"]
    taken = {*words.values(), *(token["id"] for token in content["added_tokens"])}
    words |= {f"<{n}>": n for n in range(config.vocab_size) if n not in taken}
    (Path(folder) / "tokenizer.json").write_text(json.dumps(content), "utf-8")


def weights_of(folder: Path) -> int:
    """How many weights a step of decoding reads: those of the linear layers."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from classroom.inference import step_bytes

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return step_bytes(model) // next(model.parameters()).element_size()
