"""A model in CTranslate2's format: converted on first use, kept in a folder of the user's cache.

The conversion runs in a process of its own, so that none of its memory stays with the server. It
writes beside the place where the model will lie, and moves it there when all is written: who is
interrupted leaves nothing that could be taken for a model.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from helpers.models import locate
from system import startup
from system.child import end_with_parent, own_session
from system.environment import ROOT
from system.errors import ParameterError, see

log = logging.getLogger(__name__)
FORMATS = {"float32": 4.0, "int8": 1.0}  # bytes of a weight
LOOK_SECONDS = 0.2
_MARK = "partial-"


def check_library() -> None:
    """Refuse to begin without CTranslate2.

    Raises:
        ParameterError: it is not installed.
    """
    if importlib.util.find_spec("ctranslate2") is None:
        how = f"pip install '.[fast]' brings it. {see('fast')}"
        wanted = f"torch where CTranslate2 is not installed: {how}"
        raise ParameterError("engine", "ctranslate2", wanted)


def cache_folder(given: str = "") -> Path:
    """Where converted models lie: the folder given, else one in the user's cache."""
    import platformdirs

    if given:
        return Path(given).expanduser()
    return platformdirs.user_cache_path("llm-basics", appauthor=False) / "ctranslate2"


def fingerprint(folder: Path) -> str:
    """SHA-256 over a model's weights, configuration and tokenizer as they lie in its folder."""
    found = hashlib.sha256()
    files = [f for kind in ("safetensors", "bin", "json") for f in folder.glob(f"*.{kind}")]
    for file in sorted(files, key=lambda one: one.name):
        with file.open("rb") as content:
            found.update(
                f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}".encode()
            )
    return found.hexdigest()


def converted(name: str, dtype: str, cache: Path) -> tuple[Path, str]:
    """The folder of a model in CTranslate2's format, made if need be, and its fingerprint.

    Args:
        name: a shipped model, a folder or a hub id.
        dtype: "float32" or "int8".
        cache: the folder of `cache_folder`.

    Raises:
        ModelNotFoundError, HubUnreachableError: as `locate`.
        ParameterError: a model or a cache folder that cannot be used.
    """
    import ctranslate2
    from filelock import FileLock

    source = locate(name)
    weights = fingerprint(source)
    version = ctranslate2.__version__
    target = cache / f"{source.name}-{weights[:16]}-{dtype}-{version}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{target.name}.lock"):  # of several servers, one converts
            if not target.is_dir():
                _clear(cache, target.name)
                _make(name, source, dtype, target)
    except OSError as error:
        wanted = f"a folder that can be written, {error.strerror or error}. {see('fast')}"
        raise ParameterError("engine_cache", str(cache), wanted) from None
    return target, weights


def _clear(cache: Path, name: str) -> None:
    """Remove what an interrupted conversion of the same model has left."""
    for left in cache.glob(f"{_MARK}*-{name}"):
        shutil.rmtree(left, ignore_errors=True)


def _make(name: str, source: Path, dtype: str, target: Path) -> None:
    """Convert into a folder beside the target, then move it there.

    Raises:
        ParameterError: the library cannot convert this model.
        OSError: the folder cannot be written.
    """
    partial = Path(tempfile.mkdtemp(prefix=_MARK, suffix=f"-{target.name}", dir=target.parent))
    try:
        command = [sys.executable, "-m", __name__, str(source.resolve()), str(partial), dtype]
        child = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **own_session(dict(os.environ)),
        )
        try:
            said = _watch(child, name, dtype, partial, _expected(source, dtype))
        finally:
            if child.poll() is None:
                child.kill()
        if child.returncode:
            why = (said.strip().splitlines() or ["the converter ended early"])[-1][:300]
            raise ParameterError("model", name, f"one that CTranslate2 converts: {why}")
        os.replace(partial / "model", target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _expected(source: Path, dtype: str) -> int:
    """About how many bytes will be written."""
    from helpers.memory import shape

    return int(shape(source).parameters * FORMATS[dtype])


def _watch(child: subprocess.Popen[str], name: str, dtype: str, partial: Path, size: int) -> str:
    """Show how much is written until the child has ended; what it said on standard error."""
    from tqdm import tqdm

    title = f"Converting {Path(name).name} for CTranslate2 ({dtype}), once"
    with tqdm(total=size, unit="B", unit_scale=True, desc=title, file=sys.stderr) as bar:
        while True:
            try:
                _, said = child.communicate(timeout=LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                file = partial / "model" / "model.bin"
                bar.n = min(file.stat().st_size, size) if file.is_file() else 0
                bar.refresh()
        bar.n = size if child.returncode == 0 else bar.n
    return said


def main() -> int:
    """The child: convert SOURCE into TARGET/model in the format DTYPE; its exit status."""
    end_with_parent()
    source, target, dtype = sys.argv[1:]
    from ctranslate2.converters import TransformersConverter
    from transformers.utils import logging as messages

    messages.disable_progress_bar()
    folder = Path(target) / "model"
    try:
        TransformersConverter(source).convert(str(folder), quantization=dtype)
    except (ValueError, NotImplementedError, KeyError, AttributeError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    file = folder / "config.json"
    facts = json.loads(file.read_text(encoding="utf-8"))
    # GPT-2's tokenizers know no "unknown" token, and the library's reader refuses null.
    facts["unk_token"] = facts["unk_token"] or facts["eos_token"]
    file.write_text(json.dumps(facts), encoding="utf-8")
    return 0


if __name__ == "__main__":
    startup.run(main)
