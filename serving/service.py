"""The service behind the routes: loads the model once, checks requests, hands them to the engine.

Importing this module is quick: torch and transformers are imported by the loading
thread, while the port already answers /health and /live.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from helpers.errors import ParameterError, PromptTooLongError
from helpers.settings import GenerationSettings
from serving.config import Config
from serving.engine.jobs import Job, NotReadyError

if TYPE_CHECKING:
    from serving.engine.engine import Engine

log = logging.getLogger(__name__)


class Service:
    """One model behind one engine, from loading to shutdown.

    Attributes:
        config: as it was started.
        model: the model's name.
        device: "CPU", "GPU:0", …, once the model is loaded.
        created: Unix time of the start in seconds.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.model = config, config.model_name
        self.device, self.cuda_available, self.created = "", False, int(time.time())
        self.draining = False
        self._engine: Engine | None = None
        self._tokenizing = threading.Lock()  # fast tokenizers refuse to be used twice at once

    def load(self, on_ready: Callable[[], None], on_error: Callable[[Exception], None]) -> None:
        """Load the model in a thread of its own, then call one of the two."""

        def work() -> None:
            try:
                self._load()
            except Exception as error:
                on_error(error)
            else:
                on_ready()

        threading.Thread(target=work, name="load", daemon=True).start()

    def _load(self) -> None:
        from helpers.device import device_label, resolve_device
        from helpers.models import load_model, locate

        locate(self.config.model_name)  # a name that is wrong is told before anything is loaded

        import torch

        from serving.engine.engine import Engine
        from serving.engine.packed import pack_linear_layers

        where = resolve_device(self.config.device)
        model, tokenizer = load_model(self.config.model_name, where)
        pack_linear_layers(model)
        engine = Engine(
            model,
            tokenizer,
            slots=self.config.slots,
            queue_length=self.config.queue_length,
            prefill_chunk=self.config.prefill_chunk,
            batching=self.config.batching,
        )
        engine.start()
        self.device, self.cuda_available = device_label(where), torch.cuda.is_available()
        self._engine = engine

    @property
    def problem(self) -> str:
        """Why requests cannot be served; empty if they can."""
        if self._engine is None:
            return "Model not loaded"
        if not self._engine.alive:
            return f"Model not loaded: {self._engine.error}"
        return "The server is shutting down" if self.draining else ""

    @property
    def engine(self) -> Engine:
        """The running engine.

        Raises:
            NotReadyError: there is none, or the server is shutting down.
        """
        if self._engine is None or self.problem:
            raise NotReadyError(self.problem)
        return self._engine

    @property
    def limit(self) -> int:
        """Most tokens of a request, prompt and new ones together."""
        return min(self.config.max_length_limit, self.engine.context)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        tokenizer = self.engine.tokenizer
        with self._tokenizing:
            return list(tokenizer(text, verbose=False)["input_ids"])

    def decode(self, ids: list[int]) -> str:
        """Text of token ids."""
        return str(self.engine.tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    @property
    def vocabulary(self) -> int:
        """How many token ids the model knows."""
        return int(self.engine.model.get_input_embeddings().num_embeddings)

    @property
    def has_chat_template(self) -> bool:
        """Whether the tokenizer knows how to write a chat."""
        return bool(getattr(self.engine.tokenizer, "chat_template", None))

    def chat_ids(self, messages: list[dict[str, str]]) -> list[int]:
        """Token ids of a chat, ending where the assistant's turn begins."""
        from helpers.chat import chat_ids

        with self._tokenizing:
            return chat_ids(self.engine.tokenizer, messages)

    def room(self, settings: GenerationSettings, prompt_tokens: int) -> int:
        """How many new tokens the request gets.

        Raises:
            ParameterError: the prompt leaves no room, or the length asked for does not fit.
        """
        try:
            return settings.new_tokens(prompt_tokens, self.limit)
        except PromptTooLongError:
            raise ParameterError(
                "prompt",
                f"… ({prompt_tokens} tokens)",
                f"at most {self.limit - 1} tokens long: this server allows {self.limit} tokens "
                "for the prompt and the new text together",
            ) from None

    def job(
        self,
        stream: bool = False,
        logprobs: int | None = None,
        prompt_logprobs: bool = False,
        ignore_end: bool = False,
    ) -> Job:
        """An empty job with this server's time limit."""
        limit = self.config.request_timeout
        return Job(limit, stream, logprobs, prompt_logprobs, ignore_end)

    def submit(self, job: Job) -> None:
        """Hand the job to the engine.

        Raises:
            QueueFullError, NotReadyError: as the engine's `submit`.
            ParameterError: more texts than this server could ever take.
        """
        places = self.config.slots + self.config.queue_length
        if len(job.sequences) > places:
            raise ParameterError("n", len(job.sequences), f"at most {places} texts on this server")
        self.engine.submit(job)

    def close(self) -> None:
        """Stop the engine; whatever still runs is ended."""
        self.draining = True
        if self._engine is not None:
            self._engine.close()
