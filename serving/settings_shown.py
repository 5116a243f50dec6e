"""How settings are shown: at the start, and by `--show-config`. What is secret never is."""

from __future__ import annotations

import os

from serving.config import PREFIX, SHARED, Config
from serving.guard.settings import SECRET


def passed_over(config: Config) -> list[str]:
    """Variables of the environment that look meant for the service and are not read."""
    return [
        f"{short}={'…' if name in SECRET else os.environ[short]}"
        for name in Config.model_fields
        if name not in SHARED
        and os.environ.get(short := name.upper())
        and f"{short} in .env" != config.sources.get(name)
    ]


def in_force(config: Config) -> str:
    """One line: the settings that are not defaults, and where each comes from."""
    own = [f"{n}={_shown(config, n)} ({source})" for n, source in config.sources.items()]
    line = f"Settings: {', '.join(own) or 'all defaults'}"
    if ignored := passed_over(config):
        line += f"; not read: {', '.join(ignored)} (the service reads {PREFIX}…)"
    return f"{line} : python -m serving --show-config lists all"


def table(config: Config) -> str:
    """Every setting, its value and where it comes from, a line each."""
    rows = [
        (PREFIX + name.upper(), _shown(config, name), config.sources.get(name, "default"))
        for name in Config.model_fields
    ]
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    lines = [f"{name:{widths[0]}}  {value:{widths[1]}}  {source}" for name, value, source in rows]
    lines += [f"not read: {text} (the service reads {PREFIX}…)" for text in passed_over(config)]
    return "\n".join(lines)


def _shown(config: Config, name: str) -> str:
    value = getattr(config, name)
    if name in SECRET:
        return f"({len(value)} of them)" if value else ""
    return ",".join(value) if isinstance(value, tuple) else str(value)
