"""From a text file to a stream of token ids: clean, weight, tokenize, shuffle.

The corpus is one text file (or .xz of it) in which every document ends with
`<|endoftext|>`. Everything made here is cached in the work folder and made again only
if it is missing.
"""

from __future__ import annotations

import lzma
import random
import re
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm.auto import tqdm

from system.textfiles import decode

END_OF_TEXT = "<|endoftext|>"
VOCABULARY = 8192

_PAIR = re.compile(r"\n\s*\n(?=Q: |Explain )")
_MACHINE_LEARNING = re.compile(
    r"machine learning|neural network|deep learning|language model|training data"
    r"|tokeniz|classifier|gradient|embedding|inference",
    re.IGNORECASE,
)
_INFRASTRUCTURE = re.compile(r"container|Kubernetes|Docker|cluster|latency|server", re.IGNORECASE)
_VENDOR = re.compile(r"\b(AWS|Amazon|Azure|Microsoft|CloudWatch|SageMaker|PowerShell)\b")
_DEFINITION = re.compile(r"^(An? |The )?[\w\- ]{2,40}(\([^)]*\) )?(is|are|refers to) (an?|the) ")


def read_documents(corpus: Path) -> list[str]:
    """All documents of the corpus; question-answer pages are cut into single pairs.

    A pair that stands alone teaches the model to stop after the answer.
    """
    content = corpus.read_bytes()
    if corpus.suffix == ".xz":
        content = lzma.decompress(content)
    raw = [document.strip() for document in decode(content, corpus).split(END_OF_TEXT)]
    documents: list[str] = []
    for document in raw:
        if document.startswith(("Q: ", "Explain ")):
            documents += [pair.strip() for pair in _PAIR.split(document)]
        elif document:
            documents.append(document)
    return [d for d in documents if len(d) >= 40]


def weight(document: str) -> float:
    """How many times a document is read in one pass: what the course is about, more often."""
    if document.startswith(("Q: ", "Explain ")):
        return 4.0
    kilobytes = len(document) / 1000 + 0.5
    factor = 1.0
    if len(_MACHINE_LEARNING.findall(document)) / kilobytes > 1:
        factor = 3.0
    elif len(_INFRASTRUCTURE.findall(document)) / kilobytes > 2:
        factor = 1.5
    if len(_VENDOR.findall(document)) / kilobytes > 2:
        factor *= 0.4
    if _DEFINITION.match(document):
        factor *= 1.5
    return min(factor, 3.0)


def train_tokenizer(documents: list[str], path: Path) -> Tokenizer:
    """A byte-level BPE tokenizer of 8192 tokens; the last id is end-of-text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(tqdm(documents, desc="tokenizer", unit="doc"), trainer)
    tokenizer.add_special_tokens([END_OF_TEXT])
    path.parent.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(path))
    return tokenizer


def build_stream(documents: list[str], tokenizer: Tokenizer, path: Path, seed: int) -> np.ndarray:
    """One weighted pass over the corpus as uint16 token ids, saved at `path`.

    A document of weight 2.5 stands in it two times, and with probability one half a
    third time. Every document is followed by end-of-text.
    """
    rng = random.Random(seed)
    end = tokenizer.token_to_id(END_OF_TEXT)
    encoded: list[np.ndarray] = []
    for start in tqdm(range(0, len(documents), 1000), desc="tokenize", unit="k docs"):
        batch = documents[start : start + 1000]
        encoded += [np.array([*e.ids, end], np.uint16) for e in tokenizer.encode_batch(batch)]
    order: list[int] = []
    for i, document in enumerate(documents):
        w = weight(document)
        order += [i] * (int(w) + (rng.random() < w - int(w)))
    rng.shuffle(order)
    stream = np.concatenate([encoded[i] for i in order])
    np.save(path, stream)
    return stream


def prepare(corpus: Path, work: Path, tokenizer_file: Path, seed: int) -> np.ndarray:
    """The token stream of the corpus, made on first use and read from `work` afterwards."""
    stream_file = work / "stream.npy"
    if not (stream_file.exists() and tokenizer_file.exists()):
        work.mkdir(parents=True, exist_ok=True)
        documents = read_documents(corpus)
        if tokenizer_file.exists():
            tokenizer = Tokenizer.from_file(str(tokenizer_file))
        else:
            tokenizer = train_tokenizer(documents, tokenizer_file)
        build_stream(documents, tokenizer, stream_file, seed)
    return np.load(stream_file, mmap_mode="r")


class Batches:
    """Batches of token windows, in an order that depends on the seed and the pass alone.

    Resuming needs only the number of tokens read so far: window `i` of a pass is the
    same in every run.
    """

    def __init__(self, stream: np.ndarray, seed: int) -> None:
        self.stream, self.seed = stream, seed

    def read(self, position: int, rows: int, length: int) -> np.ndarray:
        """`rows` windows of `length + 1` tokens, from token `position` of the run on.

        Returns:
            int64 array of shape (rows, length + 1).
        """
        per_pass = (len(self.stream) - length - 1) // length
        first = position // length
        windows = np.empty((rows, length + 1), np.int64)
        for row in range(rows):
            number, index = divmod(first + row, per_pass)
            rng = np.random.default_rng((self.seed, number, length))
            shift = int(rng.integers(length))  # passes do not cut documents at the same places
            start = int(self._order(number, length, per_pass)[index]) * length + shift
            windows[row] = self.stream[start : start + length + 1]
        return windows

    def _order(self, number: int, length: int, per_pass: int) -> np.ndarray:
        key = (number, length)
        if getattr(self, "_key", None) != key:
            rng = np.random.default_rng((self.seed, number, length, 1))
            self._key, self._permutation = key, rng.permutation(per_pass)
        return self._permutation
