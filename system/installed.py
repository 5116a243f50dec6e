"""Which installed packages are whole: the files on disk, against the lists that pip wrote.

A set-up that was killed, or a disk that was full, leaves packages that have a name and a version
but not all of their files. Needs the standard library only and imports nothing of the course,
because `tools/setup_env.py` runs it before anything else is there.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection
from pathlib import Path


def normal(name: str) -> str:
    """A package's name as indexes compare it: `Flask_OpenAPI3` is `flask-openapi3`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def fault(info: Path) -> str:
    """What is wrong with one package: a few words, or an empty string.

    Args:
        info: its folder `NAME-VERSION.dist-info`, which pip writes INSTALLER into at the end.
    """
    installer = info / "INSTALLER"
    if not installer.is_file():
        return "was not installed to its end"
    try:
        with open(info / "RECORD", encoding="utf-8", newline="") as file:
            listed = [row for row in csv.reader(file) if len(row) == 3]
    except OSError:  # only pip promises a list
        return "has lost the list of its files" if installer.read_text()[:3] == "pip" else ""
    for name, _, size in listed:
        if name.endswith(".pyc"):
            continue
        try:
            found = (info.parent / name).stat().st_size
        except OSError:
            return f"has lost {name}"
        if size and found != int(size):
            return f"has {found} bytes in {name}, not {size}"
    return ""


def damaged(site: Path, names: Collection[str] | None = None) -> dict[Path, str]:
    """Folder `*.dist-info` → what is wrong, for every package that is not whole.

    Args:
        site: the folder site-packages; half a second for a few hundred packages.
        names: look at these packages only; None looks at all.
    """
    wanted = None if names is None else {normal(name) for name in names}
    found = {}
    for info in sorted(site.glob("*.dist-info")):
        package = normal(info.name.partition("-")[0])
        if (wanted is None or package in wanted) and (problem := fault(info)):
            found[info] = problem
    return found
