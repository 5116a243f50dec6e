"""The start-up function of the course's command lines, for tools that run without its packages."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

_FILE = Path(__file__).resolve().parent.parent / "system" / "startup.py"
_SPEC = spec_from_file_location("startup_of_the_course", _FILE)
assert _SPEC is not None and _SPEC.loader is not None
_module = module_from_spec(_SPEC)
_SPEC.loader.exec_module(_module)
run = _module.run
