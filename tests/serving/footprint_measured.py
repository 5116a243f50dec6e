"""What a model takes in a process, measured: for `run_isolated`."""

from __future__ import annotations

import threading
from typing import Any

import psutil

from helpers.settings import GenerationSettings
from serving.config import load_config
from serving.footprint import needed_bytes
from serving.models import MIB, Models
from serving.options import Options
from serving.service import Service


def measure(first: str, name: str, other: str) -> dict[str, float]:
    """Load a second model, fill all of its slots to the greatest length, load another in its place.

    Returns:
        megabytes: "needed" by the formula; "loaded", "peak" and, with the other, "after": above
        what the process had before, with the first model in use.
    """
    settings: dict[str, Any] = {
        "prefix_cache_mb": 1,
        "slots": 16,
        "max_length_limit": 512,
        "device": "cpu",
    }
    config = load_config(model_name=first, models=f"{name},{other}", **settings)
    room = (needed_bytes(first, config) + needed_bytes(name, config)) // MIB + 1
    models = Models(Service(config.model_copy(update={"models_memory_mb": room})))
    models.first.load_now()
    fill(models.first)
    process, peak, done = psutil.Process(), [0], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], process.memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    service = models.pick(name)
    loaded = process.memory_info().rss
    fill(service)
    done.set()
    watching.join()
    models.put_back(service)
    del service
    models.pick(other)
    assert [service.model for service in models.services] == [first, other]
    sizes = {"needed": needed_bytes(name, config) + before, "loaded": loaded}
    sizes |= {"peak": peak[0], "after": process.memory_info().rss}
    return {key: round((size - before) / 1e6, 1) for key, size in sizes.items()}


def fill(service: Service) -> None:
    """Write as many texts at once as there are slots, each of the greatest length."""
    ids = service.tokenizer.encode("A server answers many requests at the same time. " * 8)
    wanted = GenerationSettings(max_length=service.limit, seed=1, temperature=1.0)
    job = service.start([ids] * service.config.slots, wanted, Options(ignore_end=True))
    for _ in job.updates():
        pass
