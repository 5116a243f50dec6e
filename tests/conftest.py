"""What every test shares. No test talks to a model hub: a stand-in serves where one is needed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from system.environment import PACKAGES

# Before anything imports the model libraries; child processes inherit it.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as helpers does, had it come before torch
os.environ["MODEL_NAME"] = ""  # the course's default, whatever a local .env says
os.environ.setdefault("DEVICE", "cpu")  # where the stored outputs come from
LEFT_OUT = os.environ.get("SMOLLM2", "").lower() == "no"  # the instruct model, on purpose
os.environ["SMOLLM2"] = "no"  # set-ups in tests fetch no model
os.environ["LLM_BASICS_PROGRESS"] = "off"  # no test reads or writes a learner's progress

CHROMIUM = [
    "--no-sandbox",  # inside containers the kernel refuses it one of its own
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

ROOT = Path(__file__).resolve().parent.parent


@pytest.hookimpl(optionalhook=True)  # `make mutants` runs without xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Who runs what, where several workers do."""
    from tests.order import LongestFirst

    return LongestFirst(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first where several workers share the tests; else as they were found."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        from tests.order import rank

        items.sort(key=lambda item: rank(item.nodeid))


def skip_or_fail(reason: str) -> None:
    """Skip on somebody's machine; fail under CI=true, where everything must be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI must run every test")
    pytest.skip(reason)


def copy_packages(folder: Path) -> None:
    """The course's packages, in another folder."""
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)


def writable(folder: Path | str) -> Path:
    """Let a copy be changed, though what was copied may not: somebody's models/ is read-only."""
    for path in (Path(folder), *Path(folder).rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
    return Path(folder)


@pytest.fixture(scope="session")
def smollm2() -> str:
    """The name of the instruct model, where it is there; `make model` fetches it."""
    from helpers.models import cards

    if not cards()["smollm2-135m"].here:
        if LEFT_OUT:
            pytest.skip("SMOLLM2=no leaves the instruct model out")
        skip_or_fail("smollm2-135m is not here (make model)")
    return "smollm2-135m"


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's folder."""
    return ROOT


@pytest.fixture(scope="session")
def require_tool() -> Callable[..., str]:
    """`require_tool("chromium", "google-chrome")`: the path of the first one that is there."""

    def find(*names: str) -> str:
        for name in names:
            path = shutil.which(name)
            if path:
                return path
        skip_or_fail(f"{names[0]} is not installed")
        raise AssertionError("unreachable")

    return find


@pytest.fixture(scope="module")
def browser(require_tool: Callable[..., str]) -> Iterator[Any]:
    """A headless Chromium, driven by Playwright."""
    path = require_tool("chromium", "chromium-browser", "google-chrome")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield started
        started.close()


@pytest.fixture
def nobody(tmp_path: Path) -> dict[str, str]:
    """The environment of a container's user: no home folder, and unknown to the system."""
    folder = tmp_path / "patched"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import pwd\ndef unknown(user):\n    raise KeyError(user)\n"
        "pwd.getpwuid = pwd.getpwnam = unknown\n"
    )
    kept = {k: v for k, v in os.environ.items() if k != "HOME" and not k.startswith("XDG_")}
    paths = [str(folder), str(ROOT), kept.get("PYTHONPATH", "")]
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
