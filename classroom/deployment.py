"""Reads the course's own container and Kubernetes files, and watches a server live and die.

(Lesson 10.)
"""

from __future__ import annotations

import io
import re
import tarfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import httpx
import psutil

from serving.client import load_test
from system.environment import ROOT
from system.machine import peak_bytes
from system.polling import Polling

if TYPE_CHECKING:
    import pandas as pd

    from serving.client.engines import CommandServer
    from serving.client.load_report import Load

Manifest = dict[str, Any]


def dockerfile_stages(text: str) -> list[dict[str, Any]]:
    """The stages of a Dockerfile, in order.

    Args:
        text: the file's content.

    Returns:
        for each stage: name, and `steps`, a list of (instruction, value) with its lines joined.
    """
    joined = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^\s*#.*\n", "", text))
    stages: list[dict[str, Any]] = []
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, value = line.partition(" ")
        if word == "FROM":
            name = re.search(r"(?i)\sAS\s+(\S+)$", value)
            stages.append({"name": name[1] if name else "final", "steps": []})
        elif stages:  # arguments before the first stage belong to none
            stages[-1]["steps"].append((word, value.strip()))
    return stages


def manifests(folder: str = "base") -> dict[str, Manifest]:
    """The Kubernetes objects of deploy/kubernetes/FOLDER, by their kind."""
    import yaml

    found: dict[str, Manifest] = {}
    for path in sorted((ROOT / "deploy" / "kubernetes" / folder).glob("*.yaml")):
        for item in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            found[item["kind"]] = item
    return found


def seconds_of(probe: Manifest) -> int:
    """How long a Kubernetes probe fails before Kubernetes acts: period × failureThreshold."""
    return int(probe.get("periodSeconds", 10)) * int(probe.get("failureThreshold", 3))


def autoscaler_target(objects: dict[str, Manifest]) -> float:
    """What the HorizontalPodAutoscaler wants its first metric to be, on average, in each pod."""
    metric = objects["HorizontalPodAutoscaler"]["spec"]["metrics"][0]
    return float(metric["pods"]["target"]["averageValue"])


def gibibytes(quantity: str) -> float:
    """A quantity of memory as Kubernetes writes it, such as 512Mi or 1Gi, in GiB."""
    units = {"Ki": 2**-20, "Mi": 2**-10, "Gi": 1.0, "Ti": 2.0**10}
    number = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]i)", quantity)
    if number is None:
        raise ValueError(f"{quantity!r} is no number with Ki, Mi, Gi or Ti")
    return float(number[1]) * units[number[2]]


def peak_gib(pid: int) -> float:
    """The most memory (GiB) that a process and its children each held so far, added up.

    Elsewhere than on Linux: what they hold now.
    """
    first = psutil.Process(pid)
    processes = (first, *first.children(recursive=True))
    return sum(peak_bytes(process.pid) for process in processes) / 2**30


async def measured(engine: CommandServer, load: Load) -> dict[str, float]:
    """What a running engine does under a load, after two requests to warm it up.

    Args:
        engine: started; its address is the load's.
        load: what is sent.

    Returns:
        tokens a second over all clients, median time to the first token in ms, MiB held at most.
    """
    assert engine.process is not None
    await load_test.run_async(replace(load, requests=2))
    found = (await load_test.run_async(load)).summary()
    ttft_ms = 1000 * found["time_to_first_token"]["p50"]
    memory = 1024 * peak_gib(engine.process.pid)
    return {"tokens/s": found["tokens_per_second"], "TTFT (ms)": ttft_ms, "MiB": memory}


def stopped_while_writing(server: CommandServer, body: Manifest) -> list[str]:
    """Stop a server (SIGTERM) as soon as it has sent the first token of a text.

    Args:
        server: started.
        body: a completion's, with `stream`.

    Returns:
        the lines of the stream that came after it.
    """
    address = f"{server.url}/v1/completions"
    with (
        ThreadPoolExecutor(1) as pool,
        httpx.stream("POST", address, json=body, timeout=60, trust_env=False) as stream,
    ):
        lines = stream.iter_lines()
        next(lines)
        pool.submit(server.stop)
        return list(lines)


def layer(**files: str | None) -> bytes:
    """A layer of an image: a tar archive of what one step changed.

    Args:
        **files: name → content; None deletes it, by an empty file `.wh.NAME` (OCI image
            specification, "whiteouts"). `env` stands for `.env`.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            path = f".{name}" if name == "env" else name
            data = (content or "").encode()
            info = tarfile.TarInfo(path if content is not None else f".wh.{path}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return packed.getvalue()


class Watch(Polling):
    """Asks a server's paths again and again, as Kubernetes' probes do, and notes each change.

        with Watch(server, ["/health", "/live"]) as watch: …
        watch.table()

    Attributes:
        seen: (seconds since the start, answers by path); 0 where nothing answered.
    """

    def __init__(self, server: CommandServer, paths: Sequence[str], every_s: float = 0.05) -> None:
        """Nothing is asked yet.

        Args:
            server: need not run yet.
            paths: what to ask.
            every_s: seconds between two rounds.
        """
        super().__init__(every_s)
        self._server, self._paths = server, list(paths)
        self.seen: list[tuple[float, tuple[int, ...]]] = []
        self._http = httpx.Client(timeout=5, trust_env=False)
        self._start = 0.0

    def __enter__(self) -> Self:
        self._start = time.monotonic()
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._http.close()

    def look(self) -> None:
        """Ask every path once."""
        now = tuple(_status(self._http, self._server.url + path) for path in self._paths)
        if not self.seen or self.seen[-1][1] != now:
            self.seen.append((time.monotonic() - self._start, now))

    def table(self) -> pd.DataFrame:
        """A row for each change: seconds, and the status code of every path ("–": no answer)."""
        import pandas as pd

        rows = [[round(at, 1), *(code or "–" for code in codes)] for at, codes in self.seen]
        return pd.DataFrame(rows, columns=["from second", *self._paths])


def _status(http: httpx.Client, url: str) -> int:
    try:
        return http.get(url).status_code
    except httpx.HTTPError:
        return 0
