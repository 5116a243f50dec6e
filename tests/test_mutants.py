"""`make mutants`: what it is told to try is there. The run itself comes before a release."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib

import pytest

from tests.conftest import ROOT

GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["course"]["mutants"]


@pytest.mark.parametrize("name", GROUPS)
def test_modules_and_tests_are_there(name: str) -> None:
    group = GROUPS[name]
    assert set(group) == {"modules", "tests"} and all(group.values())
    for path in (*group["modules"], *group["tests"]):
        assert (ROOT / path).is_file(), path
    tests = "".join((ROOT / path).read_text(encoding="utf-8") for path in group["tests"])
    reached = []
    for module in group["modules"]:
        package, _, part = module.removesuffix(".py").replace("/", ".").rpartition(".")
        ways = rf"from {package}\.{part} import|from {package} import [\w, ]*\b{part}\b"
        reached += re.findall(ways, tests)
    assert reached, "no test imports any of the modules"


def test_no_module_is_tried_twice() -> None:
    modules = [module for group in GROUPS.values() for module in group["modules"]]
    assert len(modules) == len(set(modules))


def test_a_group_that_is_none_lists_the_groups() -> None:
    command = [sys.executable, "tools/mutants.py", "setings"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"No group setings: there are {', '.join(GROUPS)}.\n"


def test_tests_are_found_without_plugins() -> None:
    """That is how a fault's tests are started: no worker, no rerun, no notebook."""
    command = [sys.executable, "-m", "pytest", "-q", "--co", "-p", "no:cacheprovider"]
    command += ["-p", "pytest_timeout", "tests/test_settings.py"]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
