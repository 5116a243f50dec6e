"""The helpers of the LLM Basics course: a small package that every lesson imports.

    import helpers
    generator = helpers.load("course-gpt-4m")
    print(generator.generate("Machine learning is").text)

Importing it is quick: torch and transformers are loaded when a model is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from helpers.device import configure_threads
from system.environment import load_environment
from system.markup import guard_tables

load_environment()
configure_threads()
guard_tables()

__version__ = "0.1.0"

# Name → the module that defines it, imported at first use.
_PUBLIC = {
    "GenerationSettings": "helpers.settings",
    "ParameterError": "system.errors",
    "TextGenerator": "helpers.generator",
    "catalogue": "helpers.models",
    "load": "helpers.generator",
}
__all__ = [
    "GenerationSettings",
    "ParameterError",
    "TextGenerator",
    "catalogue",
    "load",
]

if TYPE_CHECKING:
    from helpers.generator import TextGenerator, load
    from helpers.models import catalogue
    from helpers.settings import GenerationSettings
    from system.errors import ParameterError


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'helpers' has no attribute {name!r}")
