"""Faults put into a copy of the helpers on purpose: nbval must find each of them.

If one of these passes unseen, the stored outputs do not show what their lesson teaches.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from classroom import course
from tests.conftest import ROOT
from tests.lessons import (
    REAL_MODEL,
    REAL_MODEL_TAG,
    code_cells,
    course_copy,
    nbval,
    needs_real_model,
    read,
    tags,
)

# name → the lesson that teaches it, the file, what stands there, what is put in its place, and
# which cells run after the lesson's first ones, by words in them. The last one must differ.
FAULTS = {
    "megabytes of 2**20 bytes": (
        "00",
        "helpers/models.py",
        "return sum(f.stat().st_size for f in folder.iterdir() if f.is_file()) / 1e6",
        "return sum(f.stat().st_size for f in folder.iterdir() if f.is_file()) / 2**20",
        ["models.catalogue()"],
    ),
    "token ids off by one": (
        "01",
        "helpers/generator.py",
        'return list(found["input_ids"])',
        'return [i + 1 for i in found["input_ids"]]',
        ["token_strip(tokenizer, sentence"],
    ),
    "max_length does not count the prompt": (
        "02",
        "helpers/settings.py",
        "return self.max_length - prompt_tokens",
        "return self.max_length",
        ["config = generator.model.config", "prompt_ids = ", '("max_length", "max_new_tokens")'],
    ),
    "softmax of something else": (
        "03",
        "helpers/sampling.py",
        "return torch.softmax(logits, dim=-1)",
        "return torch.softmax(1.25 * logits, dim=-1)",
        ["def after("],
    ),
    "top-p keeps too little": (
        "03",
        "helpers/sampling.py",
        "TopPLogitsWarper(settings.top_p)",
        "TopPLogitsWarper(0.8 * settings.top_p)",
        ["def after(", "top_p=0.3"],
    ),
    "keys are kept, values are not": (
        "04",
        "helpers/memory.py",
        "return 2 * of.layers * of.kv_heads * of.head_size",
        "return of.layers * of.kv_heads * of.head_size",
        ['monitor.phase("load")', "bytes computed"],
    ),
    "nats taken for bits": (
        "05",
        "helpers/quality.py",
        "return nats / math.log(2) / n_bytes",
        "return nats / n_bytes",
        ["generator = helpers.load(MODEL_NAME)", "its words, sorted"],
    ),
    "the server's seed is ignored": (
        "06",
        "serving/engine/runner.py",
        "manual_seed(row.seed)",
        "manual_seed(0)",
        [
            "generator = helpers.load(MODEL_NAME)",
            'prompt = "A server is"',
            "ServerProcess(model=MODEL_NAME).start()",
            "client.generate(prompt, **request)",
        ],
    ),
    "bytes of tokens shifted by one": (
        "07",
        "helpers/tokens.py",
        "    spare = 256",
        "    spare = 257",
        ["real, base = ", "def stream(ids, stop)"],
    ),
    "four bits written the other way round": (
        "08",
        "classroom/inference.py",
        "weight.data = changed.t().contiguous() if type(layer) is Conv1D else changed",
        "weight.data = changed.reshape(weight.shape)",
        [
            "here = cards()",
            "def step(model, ids, cache",
            "base, draft = ",
            "class ByHand(",
            "def unpack(raw)",
            "def pack(numbers)",
            "FORMATS = {",
        ],
    ),
    "the cache forgets parameters": (
        "09",
        "serving/guard/cache.py",
        'asked = body.model_dump(mode="json", exclude_unset=True, exclude={"model"})',
        'asked = body.model_dump(mode="json", include={"prompt", "max_new_tokens"})',
        ["guarded = ServerProcess(", "def tutorial("],
    ),
    "sums of devices sent half the way": (
        "10",
        "classroom/parallel.py",
        "summed = 2 * layers * 2 * (tensor - 1) / tensor * vector",
        "summed = 2 * layers * (tensor - 1) / tensor * vector",
        ["LLAMA_405B = "],
    ),
}
WRITTEN = {one.number for one in course.written()}
EVERY_RUN = {  # of three kinds: tokens, probabilities, measurements; `make soak` plants them all
    "token ids off by one",
    "softmax of something else",
    "nats taken for bits",
}


def test_every_lesson_has_its_fault() -> None:
    assert {fault[0] for fault in FAULTS.values()} >= WRITTEN
    assert set(FAULTS) >= EVERY_RUN


def shortened(lesson: Path, wanted: list[str], folder: Path) -> Path:
    """A copy of the lesson with its cells up to the imports, and those with these words."""
    notebook = read(lesson)
    cells = code_cells(notebook)
    (imports,) = [n for n, cell in enumerate(cells) if "require(globals()" in cell.source]
    for words in wanted:
        assert sum(words in cell.source for cell in cells) >= 1, f"no cell has {words}"
    notebook.cells = cells[: imports + 1]
    for cell in cells[imports + 1 :]:
        if any(words in cell.source for words in wanted):
            if REAL_MODEL_TAG in tags(cell):
                cell.metadata["tags"] = [*tags(cell), "nbval-ignore-output"]
            notebook.cells.append(cell)
        if wanted[-1] in cell.source:
            break
    nbformat.write(notebook, folder / lesson.name)
    return folder / lesson.name


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(name, marks=[pytest.mark.soak] * (name not in EVERY_RUN))
        for name, fault in FAULTS.items()
        if fault[0] in WRITTEN
    ],
)
def test_fault_is_found(fault: str, tmp_path: Path) -> None:
    number, file, right, wrong, wanted = FAULTS[fault]
    (lesson,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    library, elsewhere = tmp_path / "library", tmp_path / "elsewhere"
    elsewhere.mkdir()
    short = shortened(lesson, wanted, tmp_path)
    cells = code_cells(read(short))
    # Without the instruct model where a lesson can do without: it is slow, and not everywhere.
    course_copy(library, without=REAL_MODEL if needs_real_model(read(short)) else "")
    source = (library / file).read_text(encoding="utf-8")
    assert source.count(right) == 1, f"{file} changed: put the fault in anew"
    (library / file).write_text(source.replace(right, wrong), encoding="utf-8")

    child = nbval(short, elsewhere, "-x", PYTHONPATH=str(library))
    assert child.returncode == 1, f"nobody noticed: {fault}\n{child.stdout[-3000:]}"
    assert f"1 failed, {len(cells) - 1} passed" in child.stdout, child.stdout[-3000:]
    assert "Cell outputs differ" in child.stdout, child.stdout[-3000:]
