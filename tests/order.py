"""How several workers (`make test`) share the tests: the longest pieces first, whole modules after.

The tests of a module go to one worker, since they share servers, models and folders. A run of a
lesson shares nothing and takes long: each goes where there is room. Whatever is long starts
early, so that no worker has much left when the others are done.
"""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling

# From the longest piece down; what is not here takes less, and comes after, as pytest finds it.
FIRST = (
    "tests/test_lesson_runs.py",
    "tests/browser/",
    "tests/test_setup.py",
    "tests/classroom/grade/test_grade.py",
    "tests/test_site.py",
    "tests/test_hub.py",
    "tests/test_colab.py",
    "tests/test_faults.py",
    "tests/test_new_lesson.py",
)
SINGLY = ("tests/test_lesson_runs.py", "tests/test_faults.py")  # each test by itself
TOGETHER = ("tests/browser/",)  # one JupyterLab for them all


def rank(nodeid: str) -> int:
    """Where a test's piece stands in the queue: 0 is first."""
    places = [place for place, name in enumerate(FIRST) if nodeid.startswith(name)]
    return places[0] if places else len(FIRST)


class LongestFirst(LoadScopeScheduling):
    """Pieces of tests in the order of `rank`, each for one worker."""

    def __init__(self, config: Any, log: Any = None) -> None:
        config.option.loadscopereorder = False  # else by the number of tests
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith(SINGLY):
            return nodeid
        folder = [name for name in TOGETHER if nodeid.startswith(name)]
        return folder[0] if folder else nodeid.partition("::")[0]
