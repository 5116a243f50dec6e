"""One model on several devices: what each holds, what they send; and two processes that do it.

- Tensor parallel: every layer is cut, each device computes a part of it and the parts are added
  up twice a layer, after attention and after the MLP (all-reduce). Shoeybi et al. 2019,
  "Megatron-LM", section 3, https://arxiv.org/abs/1909.08053.
- Pipeline parallel: each device has some layers, one vector a token passes each border. Huang et
  al. 2019, "GPipe", https://arxiv.org/abs/1811.06965.
- Data parallel: whole copies. To write text they send each other nothing.

Compared in Pope et al. 2022, "Efficiently Scaling Transformer Inference", section 3,
https://arxiv.org/abs/2211.05102. (Lesson 10.)
"""

from __future__ import annotations

import inspect
import json
import socket
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from helpers.isolated import run_isolated
from helpers.memory import Shape, kv_cache_bytes
from helpers.models import locate
from system.errors import ParameterError

IN_PLACE = "course-gpt-16m"  # where a model of another form was asked for


def device_gb(
    of: Shape,
    tensor: int = 1,
    pipeline: int = 1,
    tokens: int = 4096,
    texts: int = 1,
    number_bytes: float = 2,
) -> dict[str, float]:
    """GB (10⁹ bytes) that one device holds of weights and of the KV cache.

    Weights are taken as cut evenly. Keys and values are cut by heads: with fewer KV heads than
    devices each head is held by several.

    Args:
        of: the model's shape.
        tensor: devices that share each layer.
        pipeline: groups of layers, one after the other.
        tokens: of each text, prompt and new ones.
        texts: at the same time.
        number_bytes: bytes a number of weights and cache: 2 in 16-bit formats.

    Raises:
        ParameterError: a count below 1, or more stages than layers.
    """
    _check(of, tensor, pipeline)
    weights = of.parameters * number_bytes / tensor / pipeline
    cache = kv_cache_bytes(of, tokens, texts, number_bytes) / min(tensor, of.kv_heads) / pipeline
    return {"weights": weights / 1e9, "KV cache": cache / 1e9}


def token_bytes_sent(
    of: Shape, tensor: int = 1, pipeline: int = 1, number_bytes: float = 2
) -> float:
    """Bytes that one device sends for each token that it reads or writes, at most.

    A ring adds up n vectors by sending 2 (n - 1) / n vectors from each device; there are two
    such sums a layer. At a border of the pipeline one vector a token goes on; the devices of a
    tensor group each send their share of it.

    Args:
        of: the model's shape.
        tensor: devices that share each layer.
        pipeline: groups of layers, one after the other.
        number_bytes: bytes a number.

    Raises:
        ParameterError: a count below 1, or more stages than layers.
    """
    _check(of, tensor, pipeline)
    vector = of.hidden * number_bytes
    layers = -(-of.layers // pipeline)
    summed = 2 * layers * 2 * (tensor - 1) / tensor * vector
    return summed + (vector / tensor if pipeline > 1 else 0)


def on_two(*functions: Callable[..., Any], **arguments: Any) -> list[list[Any]]:
    """Run functions in two fresh processes that can talk to each other (torch.distributed, gloo).

    Args:
        *functions: each called with `rank` (0 or 1) and the arguments, one after the other. They
            may use `torch`, `dist` (torch.distributed) and `helpers`, and import all else.
        **arguments: anything that JSON can hold.

    Returns:
        what each function returned: [of rank 0, of rank 1] for each of them.

    Raises:
        ChildFailed: a process raised; the other one is given up then.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    names = [function.__name__ for function in functions]
    source = "\n\n".join(textwrap.dedent(inspect.getsource(f)) for f in functions)
    with ThreadPoolExecutor(2) as pool:
        sent = [
            pool.submit(
                run_isolated,
                together,
                timeout_s=240,
                rank=rank,
                port=port,
                source=source,
                names=names,
                arguments=arguments,
            )
            for rank in (0, 1)
        ]
        both = [one.result() for one in sent]
    return [list(pair) for pair in zip(*both, strict=True)]


def together(
    rank: int, port: int, source: str, names: list[str], arguments: dict[str, Any]
) -> list[Any]:
    """One of the two processes: joins the other, then calls every function.

    Args:
        rank: 0 or 1.
        port: where rank 0 waits for rank 1.
        source: of all functions.
        names: of those to call, in order.
        arguments: for each call.
    """
    import gc
    import os
    import sys
    from datetime import timedelta

    loopback = "lo0" if sys.platform == "darwin" else "lo"
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)  # nobody outside can join
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)  # the other process has the other core
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=120),
    )
    import helpers

    space: dict[str, Any] = {"dist": dist, "helpers": helpers, "torch": torch}
    exec(source, space)
    results: list[Any] = []
    with torch.inference_mode():
        for name in names:
            results.append(space[name](rank, **arguments))
            gc.collect()  # a model with hooks holds itself: the next one would lie beside it
    dist.barrier()
    dist.destroy_process_group()
    return results


def _check(of: Shape, tensor: int, pipeline: int) -> None:
    for name, count, most in (("tensor", tensor, None), ("pipeline", pipeline, of.layers)):
        good = isinstance(count, int) and not isinstance(count, bool) and count >= 1
        if not good or (most is not None and count > most):
            until = "" if most is None else f", at most the {most} layers"
            raise ParameterError(name, count, f"a whole number of at least 1{until}")


def gpt2_form(name: str) -> str:
    """The model, or the course's largest where the lesson cannot cut it, and it says so.

    The lesson takes layers by the names that GPT-2 gives them.

    Args:
        name: as `helpers.load` takes it.
    """
    kind = json.loads((locate(name) / "config.json").read_text(encoding="utf-8"))["model_type"]
    if kind == "gpt2":
        return name
    print(f"{name} is not of GPT-2's form: {IN_PLACE} is cut")
    return IN_PLACE
