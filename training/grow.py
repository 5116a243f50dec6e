"""Begin a large model where a small one of half its width ended (Net2Net).

    python -m training.grow --source course-gpt-4m --model course-gpt-16m

Every unit is doubled so that the grown model computes exactly what the small one did:
what reads a doubled input gets weights W/2 + N and W/2 - N, with noise N that makes the
two halves learn different things; added layers begin by passing their input through.
(Chen, Goodfellow, Shlens: Net2Net, 2015, https://arxiv.org/abs/1511.05641, section 2)
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from system import startup
from training.train import SHAPES, make_optimizers, new_model

NOISE = 0.5  # standard deviation of N in standard deviations of W/2


def twice(weight: Tensor) -> Tensor:
    """The same outputs two times: shape (…, n) to (…, 2n)."""
    return torch.cat([weight, weight], dim=-1)


def shared(weight: Tensor) -> Tensor:
    """Read a doubled input with the same result: shape (n, m) to (2n, m)."""
    noise = torch.randn_like(weight) * weight.std() / 2 * NOISE
    return torch.cat([weight / 2 + noise, weight / 2 - noise], dim=0)


def grow(small: dict[str, Tensor], large: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a model of twice the width that computes the same logits.

    Args:
        small: state of the trained model.
        large: state of a new model of twice the width and at least as many layers.
    """
    grown = dict(large)
    for name, new in large.items():
        if name not in small:  # an added layer: attention and MLP write nothing yet
            if name.endswith("c_proj.weight"):
                grown[name] = torch.zeros_like(new)
            continue
        old = small[name]
        if name.endswith("c_attn.weight"):  # queries, keys, values lie side by side
            grown[name] = torch.cat([twice(part) for part in shared(old).chunk(3, -1)], dim=-1)
        elif name.endswith("c_attn.bias"):
            grown[name] = torch.cat([twice(part) for part in old.chunk(3, -1)], dim=-1)
        elif name.endswith(("c_fc.weight", "c_proj.weight")):
            grown[name] = twice(shared(old))
        elif ".ln_f." in name:  # the output embedding reads both halves
            grown[name] = twice(old) / 2
        else:
            grown[name] = twice(old)
    return grown


def main() -> None:
    """The command line: writes the grown model's first checkpoint."""
    p = argparse.ArgumentParser(prog="python -m training.grow", description=__doc__)
    p.add_argument("--source", choices=SHAPES, required=True)
    p.add_argument("--model", choices=SHAPES, required=True)
    p.add_argument("--work", type=Path, default=Path("training/work"))
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    small, large = SHAPES[args.source], SHAPES[args.model]
    if large.width != 2 * small.width or large.layers < small.layers:
        p.error(f"{args.model} must be twice as wide as {args.source}, and at least as deep")
    target = args.work / args.model
    if (target / "checkpoint.pt").exists():
        p.error(f"{target / 'checkpoint.pt'} exists: move it away first")
    torch.manual_seed(args.seed)
    state = torch.load(args.work / args.source / "checkpoint.pt", weights_only=True)
    model = new_model(large, end=0)
    model.load_state_dict(grow(state["model"], model.state_dict()))
    target.mkdir(parents=True, exist_ok=True)
    optimizers = [o.state_dict() for o in make_optimizers(model, 0.0, 0.0)]
    torch.save(
        {"model": model.state_dict(), "optimizers": optimizers, "tokens": 0, "seconds": 0.0},
        target / "checkpoint.pt",
    )
    print(f"{target / 'checkpoint.pt'}: {args.model}, grown from {args.source}")


if __name__ == "__main__":
    startup.run(main)
