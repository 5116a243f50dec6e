"""Train one course model: `make train CORPUS=corpus.txt MODEL=course-gpt-4m`.

The recipe, for a CPU as for a GPU: GPT-2 architecture, Muon for the hidden matrices and
AdamW for the rest, a constant rate after a short warm-up and then a linear decay to
zero, short windows first and full-length ones at the end. Stop it at any time: started
again, it goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from system import startup

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from helpers.models import models_folder
from helpers.quality import bits_per_byte
from system.textfiles import read_text
from training.data import END_OF_TEXT, VOCABULARY, Batches, prepare

CONTEXT = 512


@dataclass(frozen=True)
class Shape:
    """Width, layers and heads of one member of the family."""

    width: int
    layers: int
    heads: int


SHAPES = {
    "course-gpt-1m": Shape(width=96, layers=4, heads=2),
    "course-gpt-4m": Shape(width=256, layers=3, heads=4),
    "course-gpt-16m": Shape(width=512, layers=4, heads=8),
}


def new_model(shape: Shape, end: int) -> GPT2LMHeadModel:
    """A GPT-2 of the given shape with random weights."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=CONTEXT,
            n_embd=shape.width,
            n_layer=shape.layers,
            n_head=shape.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
        )
    )


def has_bf16() -> bool:
    """Whether this machine computes in bfloat16; a CPU without it takes a hundred times as long."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def orthogonal(
    grad: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """The Newton-Schulz iteration of Muon in the gradient's own format.

    torch's version of it (https://kellerjordan.github.io/posts/muon/) always computes in bfloat16.
    """
    a, b, c = coefficients
    wide = grad if grad.size(0) <= grad.size(1) else grad.T
    wide = wide / wide.norm().clamp(min=eps)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if grad.size(0) <= grad.size(1) else wide.T


def make_optimizers(model: nn.Module, muon_lr: float, adam_lr: float) -> list:
    """Muon for the matrices inside the blocks, AdamW for embeddings, norms and biases."""
    if not has_bf16():
        # Muon has no option for it.
        torch.optim._muon._zeropower_via_newtonschulz = orthogonal  # type: ignore[assignment]
    hidden = [p for n, p in model.named_parameters() if p.ndim == 2 and ".h." in n]
    chosen = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(hidden, lr=muon_lr, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def rate(done: float, warmup: float, decay: float) -> float:
    """Warm-up, constant, linear decay: the factor on every learning rate at `done` in 0..1."""
    return min(1.0, (done + 1e-4) / warmup, (1.0 - done) / decay)


def average_gradients(model: nn.Module, workers: int) -> None:
    """Mean of the gradients of all worker processes, in one message."""
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= workers
    offset = 0
    for g in grads:
        g.copy_(flat[offset : offset + g.numel()].view_as(g))
        offset += g.numel()


class Trainer:
    """One training process: `run` trains to the end; process 0 also logs, saves, measures."""

    def __init__(self, args: argparse.Namespace, worker: int) -> None:
        self.args, self.worker = args, worker
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.out: Path = args.work / args.model
        self.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(args.seed)
        if self.device == "cuda":
            torch.set_float32_matmul_precision("high")
        tokenizer_file = args.work / "tokenizer.json"
        self.batches = Batches(
            prepare(args.corpus, args.work, tokenizer_file, args.seed), args.seed
        )
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(tokenizer_file), eos_token=END_OF_TEXT, bos_token=END_OF_TEXT
        )
        self.model = new_model(SHAPES[args.model], self.tokenizer.eos_token_id).to(self.device)
        self.optimizers = make_optimizers(self.model, args.muon_lr, args.adam_lr)
        self.tokens, self.seconds, self.started = 0, 0.0, time.time()
        self.resume()
        self.compiled_loss = torch.compile(self.loss, dynamic=False) if args.compile else self.loss

    def loss(self, x: torch.Tensor, y: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Mean nats per token; x and y of shape (rows, length), positions (1, length)."""
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.args.bf16):
            logits = self.model(input_ids=x, position_ids=positions, use_cache=False).logits
        return F.cross_entropy(logits.float().flatten(0, 1), y.flatten())

    def resume(self) -> None:
        """Go on from the last checkpoint; without one, from the shipped weights if asked to."""
        checkpoint = self.out / "checkpoint.pt"
        if not checkpoint.exists():
            if self.args.shipped:
                self.begin_with_shipped()
            return
        state = torch.load(checkpoint, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.tokens, self.seconds = state["tokens"], state["seconds"]
        if self.worker == 0:
            print(f"resumed at {self.tokens:,} tokens")

    def begin_with_shipped(self) -> None:
        """Take the weights of `models/`; the optimizers know nothing of the past then."""
        folder = models_folder() / self.args.model
        shipped = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32)
        self.model.load_state_dict(shipped.state_dict())
        facts = json.loads((folder / "training.json").read_text(encoding="utf-8"))
        self.tokens, self.seconds = facts["training_tokens"], facts["training_minutes"] * 60
        if self.worker == 0:
            print(f"begins with the shipped weights, at {self.tokens:,} tokens")

    def spent(self) -> float:
        """Seconds of training so far, earlier processes included."""
        return self.seconds + time.time() - self.started

    def save(self, name: str) -> None:
        """Write all that a later process needs; an interruption never leaves half a file."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "tokens": self.tokens,
            "seconds": self.spent(),
        }
        part = self.out / f"{name}.part"
        torch.save(state, part)
        part.replace(self.out / name)

    def step(self) -> tuple[float, float]:
        """Read one batch and update the weights: (loss in nats per token, rate factor)."""
        args = self.args
        done = self.tokens / args.tokens
        length = CONTEXT if done >= 1 - args.long_share else CONTEXT // 2
        rows = args.batch_tokens // length
        windows = self.batches.read(self.tokens, rows, length)[self.worker :: args.workers]
        data = torch.from_numpy(np.ascontiguousarray(windows)).to(self.device)
        # Short windows start at a random place, so that every position is trained.
        rng = np.random.default_rng((args.seed, self.tokens))
        offset = int(rng.integers(CONTEXT - length + 1))
        positions = torch.arange(offset, offset + length, device=self.device).unsqueeze(0)
        loss = self.compiled_loss(data[:, :-1], data[:, 1:].contiguous(), positions)
        loss.backward()
        if args.workers > 1:
            average_gradients(self.model, args.workers)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        factor = rate(done, args.warmup, args.decay)
        for optimizer, base in zip(self.optimizers, (args.muon_lr, args.adam_lr), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = base * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.tokens += rows * length
        return loss.detach().item(), factor

    def run(self) -> None:
        """Train until the asked number of tokens is read."""
        args, lead = self.args, self.worker == 0
        bar = tqdm(total=args.tokens, initial=self.tokens, unit="tok", unit_scale=True,
                   mininterval=5, desc=args.model, disable=not lead)  # fmt: skip
        recent: list[float] = []
        last_save = last_log = time.time()
        self.model.train()
        while self.tokens < args.tokens:
            before = self.tokens
            # A longer run can start here later: before the rate came down.
            if lead and before >= args.tokens * (1 - args.decay) and not self.has("stable.pt"):
                self.save("stable.pt")
            loss, factor = self.step()
            if not lead:
                continue
            recent.append(loss)
            bar.update(self.tokens - before)
            over, now = self.tokens >= args.tokens, time.time()
            if over or now - last_log > args.log_seconds:
                mean = sum(recent) / len(recent)
                bar.set_postfix(loss=f"{mean:.3f}", rate=f"{factor:.2f}")
                self.log(mean, factor)
                recent, last_log = [], now
            if over or now - last_save > args.save_seconds:
                self.save("checkpoint.pt")
                last_save = now
        bar.close()
        if lead:
            self.finish()

    def has(self, name: str) -> bool:
        """Whether the model's work folder holds this file."""
        return (self.out / name).exists()

    def log(self, loss: float, factor: float) -> None:
        """One line of the training log."""
        new = not self.has("log.csv")
        with (self.out / "log.csv").open("a", newline="") as f:
            writer = csv.writer(f)
            if new:
                writer.writerow(["tokens", "seconds", "loss_nats_per_token", "rate_factor"])
            writer.writerow([self.tokens, round(self.spent(), 1), round(loss, 4), round(factor, 4)])

    def finish(self) -> None:
        """Measure the finished model on the held-out text."""
        print(f"{self.args.model}: {self.tokens:,} tokens in {self.spent() / 60:.0f} minutes")
        if self.args.validation:
            text = read_text(self.args.validation)
            value = bits_per_byte(self.model.eval(), self.tokenizer, text)
            print(f"held-out bits per byte: {value:.3f}")
        print(f"To put it into models/: python -m training.export --model {self.args.model} …")


def _worker(worker: int, args: argparse.Namespace) -> None:
    """One of several processes of one thread each, which share their gradients."""
    torch.set_num_threads(1)
    where = f"file://{args.work}/rendezvous"
    dist.init_process_group("gloo", init_method=where, rank=worker, world_size=args.workers)
    Trainer(args, worker).run()
    dist.destroy_process_group()


def parse() -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    p.add_argument("--corpus", type=Path, required=True, help="text file (.txt or .txt.xz)")
    p.add_argument("--model", choices=SHAPES, required=True)
    p.add_argument("--work", type=Path, default=Path("training/work"), help="cache, checkpoints")
    p.add_argument(
        "--shipped", action="store_true",
        help="without a checkpoint, begin with the weights and the tokenizer in models/",
    )  # fmt: skip
    p.add_argument("--validation", type=Path, help="held-out text for the final measurement")
    p.add_argument("--tokens", type=float, default=14e6, help="training tokens in all")
    p.add_argument("--batch-tokens", type=int, default=4096)
    p.add_argument("--muon-lr", type=float, default=0.02)
    p.add_argument("--adam-lr", type=float, default=0.003)
    p.add_argument("--warmup", type=float, default=0.02, help="share of the run")
    p.add_argument("--decay", type=float, default=0.5, help="share of the run")
    p.add_argument("--long-share", type=float, default=0.2, help="share with full-length windows")
    p.add_argument("--workers", type=int, default=None, help="processes (CPU); default: 2")
    p.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=has_bf16())
    p.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--save-seconds", type=float, default=180)
    p.add_argument("--log-seconds", type=float, default=20)
    args = p.parse_args()
    args.tokens, args.work = int(args.tokens), args.work.resolve()
    for path in (args.corpus, args.validation):
        if path is not None and not path.is_file():
            p.error(f"{path}: no such file")
    if args.workers is None:
        args.workers = 1 if torch.cuda.is_available() else min(2, os.cpu_count() or 1)
    return args


def main() -> None:
    """Train on one GPU, or on a CPU with a process a core."""
    args = parse()
    tokenizer_file = args.work / "tokenizer.json"
    if args.shipped and not tokenizer_file.exists():
        args.work.mkdir(parents=True, exist_ok=True)
        shutil.copy(models_folder() / args.model / "tokenizer.json", tokenizer_file)
    if args.workers == 1:
        Trainer(args, worker=0).run()
        return
    prepare(args.corpus, args.work, tokenizer_file, args.seed)
    (args.work / "rendezvous").unlink(missing_ok=True)
    torch.multiprocessing.spawn(_worker, (args,), nprocs=args.workers)


if __name__ == "__main__":
    startup.run(main)
