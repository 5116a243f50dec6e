"""The service behind the routes: loads the model once, checks requests, hands them to the engine.

Importing this module is quick: the loading thread imports torch, while the port answers already.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from helpers.settings import DEFAULT_NEW_TOKENS, GenerationSettings, parameter_ranges
from serving.config import Config
from serving.engine.jobs import Job, NotReadyError, QueueFullError
from serving.options import USUAL, Options
from serving.tokenizer import SharedTokenizer
from system.errors import ParameterError

if TYPE_CHECKING:
    from serving.engine.interface import TextEngine


class Service:
    """One model behind one engine, from loading to shutdown.

    Attributes:
        config, model: as it was started, and the model's name.
        device: "CPU", "GPU:0", …, once the model is loaded.
        created, weights: Unix time of the start; the weights' fingerprint for the cache.
        loaded: the engine, running or not; None while the model is being loaded.
        admit: called with every job before it is queued; may refuse it by raising.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.model = config, config.model_name
        self.device, self.cuda_available, self.draining = "", False, False
        self.created, self.weights = int(time.time()), ""
        self.admit: Callable[[Job], None] = lambda job: None
        self.loaded: TextEngine | None = None
        self._tokenizer: SharedTokenizer | None = None

    def load(self, on_ready: Callable[[], None], on_error: Callable[[Exception], None]) -> None:
        """Load the model in a thread of its own, then call one of the two."""

        def work() -> None:
            try:
                self.load_now()
            except Exception as error:
                on_error(error)
            else:
                on_ready()

        threading.Thread(target=work, name="load", daemon=True).start()

    def load_now(self) -> None:
        """Load the model and start its engine.

        Raises:
            ParameterError, OSError, TypeError: it cannot be loaded or served.
        """
        from helpers.device import device_label, resolve_device
        from helpers.models import locate

        locate(self.config.model_name)  # a name that is wrong is told before anything is loaded
        import torch

        from serving.engine.build import build

        where = resolve_device(self.config.device)
        engine, tokenizer, self.weights = build(self.config, where)
        engine.start()
        self.device, self.cuda_available = device_label(where), torch.cuda.is_available()
        self._tokenizer, self.loaded = SharedTokenizer(tokenizer), engine

    @property
    def problem(self) -> str:
        """Why requests cannot be served; empty if they can."""
        if self.loaded is None:
            return "Model not loaded"
        if not self.loaded.alive:
            return f"Model not loaded: {self.loaded.error}"
        return "The server is shutting down" if self.draining else ""

    @property
    def dead(self) -> bool:
        """Whether the engine has ended by itself: it never comes back."""
        return self.loaded is not None and not self.loaded.alive and not self.draining

    @property
    def engine(self) -> TextEngine:
        """The running engine.

        Raises:
            NotReadyError: there is none, or the server is shutting down.
        """
        if self.loaded is None or self.problem:
            raise NotReadyError(self.problem)
        return self.loaded

    @property
    def limit(self) -> int:
        """Most tokens of a request, prompt and new ones together."""
        return min(self.config.max_length_limit, self.engine.context)

    @property
    def default_length(self) -> int:
        """Tokens in all, prompt included, of a request that names no length."""
        return min(self.config.default_max_length, self.limit)

    def largest(self, length: str) -> int:
        """The most that `max_length` or `max_new_tokens` may ever be on this server."""
        most = self.limit if length == "max_length" else self.limit - 1
        return min(most, int(parameter_ranges()[length].maximum))

    @property
    def vocabulary(self) -> int:
        """How many token ids the model knows."""
        return self.engine.vocabulary

    @property
    def tokenizer(self) -> SharedTokenizer:
        """Text to token ids and back.

        Raises:
            NotReadyError: as `engine`.
        """
        _ = self.engine
        assert self._tokenizer is not None
        return self._tokenizer

    def refuse_if_full(self) -> None:
        """Say what `start` would say, before a prompt is tokenized for nothing.

        Under overload most requests get no further: they shall neither take the processor from
        those that are written nor wait for each other at the tokenizer.

        Raises:
            QueueFullError, NotReadyError: as `start`.
        """
        if self.engine.unanswered >= self.engine.slots + self.config.queue_length:
            raise QueueFullError

    def start(
        self,
        prompts: Sequence[list[int]],
        settings: GenerationSettings,
        options: Options = USUAL,
    ) -> Job:
        """The one way into the engine: fill in defaults, check limits, put it in the queue.

        Args:
            prompts: token ids; every prompt gets the texts that `settings` asks for.
            settings: what the request names; for the rest this server has its defaults.
            options: how it is answered.

        Returns:
            the running job: its settings are those in force.

        Raises:
            ParameterError: a length that does not fit, unknown token ids, too many texts,
                a form that no text can have.
            QueueFullError, NotReadyError: as the engine's `submit`.
        """
        engine = self.engine
        if "temperature" not in settings.model_fields_set:
            settings = self._with_temperature(settings)
        job = Job(
            self.config.request_timeout,
            options.stream,
            options.logprobs,
            options.prompt_logprobs,
            options.ignore_end,
            engine.grammars.guide(options.structure),
        )
        for ids in prompts:
            job.add(settings, ids, self._new_tokens(len(ids), settings, options))
        if len(job.sequences) > (places := self.config.slots + self.config.queue_length):
            raise ParameterError("n", len(job.sequences), f"at most {places} texts on this server")
        self.admit(job)
        engine.submit(job)
        return job

    def _with_temperature(self, settings: GenerationSettings) -> GenerationSettings:
        """The same with this server's temperature.

        Raises:
            ParameterError: at 0 there are no several texts.
        """
        default = self.config.default_temperature
        try:
            return GenerationSettings(
                **settings.model_dump(exclude_unset=True), temperature=default
            )
        except ValueError:
            raise ParameterError(
                "num_return_sequences",
                settings.num_return_sequences,
                f"1 unless a temperature is named: this server's is {default:g}, and greedy "
                "decoding writes the same text every time",
            ) from None

    def _new_tokens(
        self, prompt_tokens: int, settings: GenerationSettings, options: Options
    ) -> int:
        """How many new tokens a prompt gets.

        Raises:
            ParameterError: the prompt leaves no room, or the length asked for does not fit.
        """
        left = self.limit - prompt_tokens
        if left < (0 if options.only_prompt else 1):
            raise ParameterError(
                "prompt",
                f"… ({prompt_tokens} tokens)",
                f"at most {self.limit - 1} tokens long: this server allows {self.limit} tokens "
                "for the prompt and the new text together",
            )
        if options.only_prompt:
            return 0
        if settings.max_length is not None or settings.max_new_tokens is not None:
            return settings.new_tokens(prompt_tokens, self.limit)
        if options.default_new_tokens is not None:
            return min(options.default_new_tokens, left)
        if prompt_tokens < self.default_length:
            return self.default_length - prompt_tokens
        return min(DEFAULT_NEW_TOKENS, left)

    def close(self) -> None:
        """Stop the engine; whatever still runs is ended."""
        self.draining = True
        if self.loaded:
            self.loaded.close()
