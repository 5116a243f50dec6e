"""helpers.check: the list behind lesson 00 and `make check`, on this machine and on broken ones."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import pytest

from helpers import check
from system import installed, machine
from tests.conftest import ROOT, writable

pytestmark = pytest.mark.slow  # most tests start processes


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "helpers.check", *arguments]
    env = os.environ | settings
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


def line(ran: subprocess.CompletedProcess[str], name: str) -> str:
    """The line of one check, with its advice."""
    lines = ran.stdout.splitlines()
    at = next(i for i, text in enumerate(lines) if text[2:].startswith(name))
    return " ".join(lines[at : at + 2])


@pytest.fixture
def models_copy(tmp_path: Path) -> Path:
    return writable(shutil.copytree(ROOT / "models", tmp_path / "models"))


def test_this_machine_is_ready() -> None:
    ran = run()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ran.stdout.count("✓ ") == 8 and "✗" not in ran.stdout
    assert check.PROMPT in line(ran, "Generation") and "tokens/s" in line(ran, "Generation")


def test_help_is_explained() -> None:
    ran = run("--help")
    assert ran.returncode == 0 and "--models" in ran.stdout


def test_one_changed_byte_in_a_model_is_found(models_copy: Path) -> None:
    weights = models_copy / "course-gpt-4m/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    found = check.check_models(models_copy)
    assert not found.ok and found.advice == check.RESTORE
    assert "course-gpt-4m/model.safetensors is damaged" in found.found


def test_weights_cut_short_fail_the_generation_in_one_line(models_copy: Path) -> None:
    weights = models_copy / "course-gpt-4m/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    ran = run("--models", str(models_copy))
    assert ran.returncode == 1 and "Traceback" not in ran.stdout + ran.stderr
    assert ran.stdout.count("✗") == 2 and "make setup" not in line(ran, "Generation")


def test_missing_files_are_named(models_copy: Path) -> None:
    (models_copy / "course-gpt-1m/tokenizer.json").unlink()
    found = check.check_models(models_copy)
    assert not found.ok and "course-gpt-1m/tokenizer.json is missing" in found.found
    (models_copy / "SHA256SUMS").unlink()
    found = check.check_models(models_copy)
    assert not found.ok and found.advice == check.RESTORE


def test_every_file_of_the_models_has_a_checksum() -> None:
    sums = (ROOT / "models/SHA256SUMS").read_text().splitlines()
    listed = {entry.partition("  ")[2] for entry in sums}
    models = ROOT / "models"
    there = {p.relative_to(models).as_posix() for p in models.rglob("*") if p.is_file()}
    ignored = ("smollm2-135m/", "smollm2-135m.gguf", ".fetch/")  # by git, too
    fetched = {name for name in there if name.startswith(ignored)}
    assert listed == there - {"SHA256SUMS", "catalogue.json"} - fetched


def test_wrong_and_missing_packages_are_named(tmp_path: Path) -> None:
    project = tmp_path / "pyproject.toml"
    asked = '["pandas==0.1", "no-such-package==1.0"]'
    lab = "[project.optional-dependencies]\nlab = []\n"
    project.write_text(f"[project]\ndependencies = {asked}\n{lab}")
    found = check.check_packages(tmp_path)
    assert not found.ok and found.advice == check.SET_UP
    assert "not 0.1" in found.found and "no-such-package is missing" in found.found
    many = [f"no-such-package-{n}==1.0" for n in range(7)]
    project.write_text(f"[project]\ndependencies = {json.dumps(many)}\n{lab}")
    assert check.check_packages(tmp_path).found.endswith("no-such-package-4 is missing; and 2 more")


def test_a_package_that_has_lost_files_is_named(tmp_path: Path) -> None:
    """As a killed set-up leaves it: a copy of a real one, of which a file is cut or gone."""
    name = f"flask-{version('flask')}.dist-info"
    site = Path(sysconfig.get_path("purelib"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib/python/site").mkdir(parents=True)
    copy = tmp_path / "lib/python/site"
    for part in ("flask", name):
        shutil.copytree(site / part, copy / part)
    shutil.copy(Path(sysconfig.get_path("scripts")) / "flask", tmp_path / "bin/flask")
    for path in [*copy.rglob("*"), copy]:
        path.chmod(0o755)
    # RECORD names the script as seen from site-packages.
    where = os.path.relpath(tmp_path / "bin/flask", copy)
    record = (copy / name / "RECORD").read_text()
    (copy / name / "RECORD").write_text(re.sub(r"(?m)^\.\./.*/flask,", f"{where},", record))

    assert installed.damaged(copy, ["Flask"]) == {}
    os.truncate(copy / "flask/app.py", 100)
    assert "has 100 bytes in flask/app.py" in installed.damaged(copy)[copy / name]
    (copy / "flask/app.py").unlink()
    assert installed.damaged(copy, ["Flask"])[copy / name] == "has lost flask/app.py"
    assert installed.damaged(copy, ["numpy"]) == {}
    (copy / name / "INSTALLER").unlink()
    assert "not installed to its end" in installed.damaged(copy)[copy / name]


def test_damage_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    damage = {Path("torch-2.dist-info"): "has lost torch/nn.py"}
    monkeypatch.setattr(installed, "damaged", lambda site, names: damage)
    found = check.check_packages()
    assert not found.ok and "torch has lost torch/nn.py" in found.found
    assert found.advice == check.SET_UP, "which installs it again"


def test_unknown_device_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICE", "toaster")
    found = check.check_device()
    assert not found.ok and "toaster" in found.found and "DEVICE=auto" in found.advice


def test_little_memory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, ok in ((1.5e9, True), (0.5e9, False)):
        left = machine.Memory(8_000_000_000, int(free))
        monkeypatch.setattr(machine, "physical_memory", lambda left=left: left)
        found = check.check_memory()
        assert found.ok is ok and "close" in found.advice
        assert found.found == f"{free / 1e9:.1f} of 8.0 GB free"


def test_table_for_a_notebook() -> None:
    table = check.as_html([check.Check("A <b>", True, "x & y"), check.Check("B", False, "", "do")])
    assert table.count("<tr>") == 3 and "A &lt;b&gt;" in table and "x &amp; y" in table
    assert "✓" in table and "✗" in table
    assert set(re.findall(r"<t[hd]\b[^>]*>", table)) == {
        '<th style="text-align:left">', '<td style="text-align:left">',
    }  # fmt: skip
