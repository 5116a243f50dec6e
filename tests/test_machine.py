"""What a container leaves of a machine, by small trees of control groups and by a real group."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from helpers.device import get_system_info
from system.machine import Memory, physical_memory, processor_name, processors
from tests.conftest import ROOT

MIB = 2**20
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
NO_LIMIT = 9223372036854771712  # as version 1 writes it


def tree(folder: Path, own: str, **files: str) -> tuple[Path, Path]:
    """Control groups with these files, `__` for `/` and `___` for `.`, and the process's own."""
    for name, text in files.items():
        file = folder / "groups" / name.replace("___", ".").replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="ascii")
    (folder / "own").write_text(own + "\n", encoding="utf-8")
    return folder / "groups", folder / "own"


def test_version_2(tmp_path: Path) -> None:
    files = {
        "a__memory___max": str(700 * MIB),
        "a__memory___current": str(500 * MIB),
        "a__memory___stat": f"anon 1\nfile 2\ninactive_file {100 * MIB}\nactive_file 9",
        "a__cpu___max": "50000 100000",
    }
    found = tree(tmp_path, "0::/a", **files)
    assert physical_memory(*found) == Memory(700 * MIB, 300 * MIB)  # 100 of 500 are only cached
    assert processors(*found) == 0.5


def test_version_1(tmp_path: Path) -> None:
    files = {
        "memory__a__memory___limit_in_bytes": str(700 * MIB),
        "memory__a__memory___usage_in_bytes": str(500 * MIB),
        "memory__a__memory___stat": f"inactive_file 1\ntotal_inactive_file {100 * MIB}",
        "memory__memory___limit_in_bytes": str(NO_LIMIT),
        "memory__memory___usage_in_bytes": str(10**12),
        "cpu,cpuacct__a__cpu___cfs_quota_us": "150000",
        "cpu,cpuacct__a__cpu___cfs_period_us": "100000",
        "cpu,cpuacct__cpu___cfs_quota_us": "-1",
        "cpu,cpuacct__cpu___cfs_period_us": "100000",
    }
    own = "11:name=systemd:/a\n5:memory:/a\n4:cpu,cpuacct:/a\n0::/a"
    found = tree(tmp_path, own, **files)
    assert physical_memory(*found) == Memory(700 * MIB, 300 * MIB)
    assert processors(*found) == min(1.5, CPUS)


def test_one_kind_of_limit_may_lie_in_a_folder_of_its_own(tmp_path: Path) -> None:
    quota = {"cpu__cpu___cfs_quota_us": "25000", "cpu__cpu___cfs_period_us": "50000"}
    assert processors(*tree(tmp_path, "4:cpu,cpuacct:/", **quota)) == 0.5


@pytest.mark.parametrize("tightest", ["", "a__", "a__b__"])
def test_the_tightest_level_counts(tmp_path: Path, tightest: str) -> None:
    files = {}
    for level in ("", "a__", "a__b__"):
        tight = level == tightest
        files[f"{level}memory___max"] = str(300 * MIB if tight else 900 * MIB)
        files[f"{level}memory___current"] = str(250 * MIB)
        files[f"{level}cpu___max"] = "25000 100000" if tight else "max 100000"
    found = tree(tmp_path, "0::/a/b", **files)
    assert physical_memory(*found) == Memory(300 * MIB, 50 * MIB)
    assert processors(*found) == 0.25


def test_the_fullest_level_decides_what_is_free(tmp_path: Path) -> None:
    """A limit that is shared with others may be used up while one's own is not."""
    files = {"memory___max": str(900 * MIB), "memory___current": str(899 * MIB)}
    files |= {"a__memory___max": str(500 * MIB), "a__memory___current": str(50 * MIB)}
    assert physical_memory(*tree(tmp_path, "0::/a", **files)) == Memory(500 * MIB, MIB)


def test_more_than_the_limit_leaves_nothing(tmp_path: Path) -> None:
    files = {"memory___max": str(100 * MIB), "memory___current": str(101 * MIB)}
    assert physical_memory(*tree(tmp_path, "0::/", **files)) == Memory(100 * MIB, 0)


def test_a_path_of_the_host_means_the_top_of_what_is_mounted(tmp_path: Path) -> None:
    files = {"memory__memory___limit_in_bytes": str(200 * MIB)}
    files |= {"memory__memory___usage_in_bytes": "0"}
    found = tree(tmp_path, "4:memory:/docker/0123", **files)
    assert physical_memory(*found).total == 200 * MIB


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("", {}),
        ("0::/", {}),
        ("0::/", {"memory___max": "max", "memory___current": "5", "cpu___max": "max 100000"}),
        ("0::/", {"memory___max": "", "cpu___max": ""}),
        ("0::/", {"memory___max": "nonsense", "cpu___max": "nonsense"}),
        ("0::/", {"cpu___max": "50000"}),
        ("0::/", {"cpu___max": "50000 0"}),
        ("0::/", {"cpu___max": f"{10**9} 100000", "memory___max": str(10**15)}),
        ("4:memory:/\n3:cpu:/", {"memory__memory___limit_in_bytes": str(NO_LIMIT)}),
        ("nonsense", {"memory___max": "1"}),
    ],
)
def test_without_a_limit_the_machine_counts(
    tmp_path: Path, own: str, files: dict[str, str]
) -> None:
    found = tree(tmp_path, own, **files)
    total, free = physical_memory(*found)
    assert total == psutil.virtual_memory().total
    assert free == pytest.approx(psutil.virtual_memory().available, rel=0.2)
    assert processors(*found) == CPUS
    missing = (tmp_path / "no groups", tmp_path / "no such file")
    assert physical_memory(*missing).total == total and processors(*missing) == CPUS


def test_system_info_says_what_may_be_used() -> None:
    info = get_system_info()
    memory, cpus = physical_memory(), processors()
    assert info["memory_mb"] == round(memory.total / 1e6)
    assert 0 < info["available_mb"] <= info["memory_mb"]
    assert info["cpus"] == pytest.approx(cpus, abs=0.01) and info["threads"] >= 1
    assert info["processor"] == processor_name() != ""
    json.dumps(info)


LOOK = """
import json, sys
for name in sys.argv[1:]:
    open(name, "w").write("0")  # into the group, before anything is measured
import helpers, os
from helpers.check import check_memory
from helpers.device import get_system_info
check = check_memory()
info = get_system_info()
print(json.dumps([check.found, check.ok, info["memory_mb"], info["available_mb"], info["cpus"],
      os.environ["OMP_NUM_THREADS"]]))
"""


@pytest.fixture
def group() -> Iterator[dict[str, Path]]:
    """Real control groups of 700 MiB and half a processor: the files that take a process in."""
    top, name = Path("/sys/fs/cgroup"), f"llm-basics-test-{os.getpid()}"
    if (top / "cgroup.controllers").is_file():
        settings = {"memory.max": 700 * MIB, "cpu.max": "50000 100000"}
        wanted = {file: top / name / file for file in settings}
    else:
        settings = {"memory.limit_in_bytes": 700 * MIB, "cpu.cfs_quota_us": 50000}
        wanted = {file: top / file.partition(".")[0] / name / file for file in settings}
    made: dict[str, Path] = {}
    try:
        for file, path in wanted.items():
            path.parent.mkdir(exist_ok=True)
            made[file.partition(".")[0]] = path.parent / "cgroup.procs"
            try:
                path.write_text(str(settings[file]))
            except OSError:
                made.pop(file.partition(".")[0])
        yield made
    except OSError:
        yield {}
    finally:
        for folder in {path.parent for path in wanted.values()}:
            if folder.is_dir():
                folder.rmdir()


@pytest.mark.parametrize("kind", ["memory", "cpu"])
def test_in_a_real_group(group: dict[str, Path], kind: str) -> None:
    if kind not in group:
        pytest.skip(f"no control group with a limit of its {kind} can be made here")
    environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    ran = subprocess.run(
        [sys.executable, "-c", LOOK, str(group[kind])],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found, ok, total, free, cpus, threads = json.loads(ran.stdout)
    if kind == "memory":
        assert found.endswith(" of 0.7 GB free") and not ok
        assert total == 734 and 400 < free < 734
    else:
        assert (cpus, threads) == (0.5, "1")
