"""Faults put into a copy of the helpers on purpose: nbval must find each of them.

If one of these passes unseen, the stored outputs do not show what their lesson teaches.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.test_notebooks import ROOT, nbval

# name → lesson, file in helpers/, what stands there, what is put in its place.
FAULTS = {
    "token ids off by one": (
        "01",
        "generator.py",
        'return list(self.tokenizer(text, verbose=False)["input_ids"])',
        'return [i + 1 for i in self.tokenizer(text, verbose=False)["input_ids"]]',
    ),
    "softmax of something else": (
        "03",
        "sampling.py",
        "return torch.softmax(logits, dim=-1)",
        "return torch.softmax(1.25 * logits, dim=-1)",
    ),
    "top-p keeps too little": (
        "03",
        "sampling.py",
        "TopPLogitsWarper(settings.top_p)",
        "TopPLogitsWarper(0.8 * settings.top_p)",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_found(fault: str, tmp_path: Path) -> None:
    number, file, right, wrong = FAULTS[fault]
    (lesson,) = (ROOT / "notebooks").glob(f"{number}_*.ipynb")
    library, elsewhere = tmp_path / "library", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for package in ("system", "helpers", "serving", "classroom"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, library / package, ignore=ignored)
    (library / "models").symlink_to(ROOT / "models", target_is_directory=True)
    source = (library / "helpers" / file).read_text(encoding="utf-8")
    assert source.count(right) == 1, f"helpers/{file} changed: put the fault in anew"
    (library / "helpers" / file).write_text(source.replace(right, wrong), encoding="utf-8")

    child = nbval(lesson, elsewhere, "-x", PYTHONPATH=str(library))
    assert child.returncode == 1, f"nobody noticed: {fault}\n{child.stdout[-3000:]}"
    passed = re.search(r"(\d+) passed", child.stdout)
    assert passed and int(passed[1]) >= 2, "the lesson did not even begin: " + child.stdout[-3000:]
    assert "Cell outputs differ" in child.stdout, child.stdout[-3000:]
