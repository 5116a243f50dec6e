"""The models of one server: loaded when they are asked for, within a budget. (Lesson 09.)

The first one, MODEL_NAME, is loaded at the start and stays. The others (LLM_MODELS) come when a
request names them, one at a time, while those that are there go on serving. Where the budget
(LLM_MODELS_MEMORY_MB) has no room, the one that was used longest ago goes, but never one with
requests running. Each has an engine, slots and a queue of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from serving.engine.jobs import NotReadyError, QueueFullError
from serving.service import Service
from system.errors import ParameterError

log = logging.getLogger(__name__)
State = Literal["ready", "loading", "not loaded", "failed"]
MIB = 2**20


class UnknownModelError(ValueError):
    """A model that this server does not have; the message names those that it has."""

    def __init__(self, name: str, known: list[str]) -> None:
        self.known = known
        here = f"this is {known[0]}" if len(known) == 1 else f"here are {', '.join(known)}"
        super().__init__(f"model {name!r:.80} is not here: {here}")


@dataclass
class Held:
    """What is known of one model.

    Attributes:
        service: the model behind its engine; None while it is not loaded.
        needs: bytes that it takes by the formula; 0 before it was first computed.
        users: requests that have picked it and are not over.
        used: time.monotonic() when it was last picked.
        loading: somebody is loading it.
        error: why it could not be loaded the last time; "" if it could.
        failed: time.monotonic() of that.
    """

    service: Service | None = None
    needs: int = 0
    users: int = 0
    used: float = 0.0
    loading: bool = False
    error: str = ""
    failed: float = 0.0

    @property
    def running(self) -> Service | None:
        """The service, where its engine runs: one that has died is loaded anew."""
        alive = self.service and self.service.loaded and self.service.loaded.alive
        return self.service if alive else None

    @property
    def idle(self) -> bool:
        """Whether nobody would miss it."""
        engine = self.service.loaded if self.service else None
        return not self.users and not (engine and engine.unanswered)

    @property
    def state(self) -> State:
        """For a person who asks what is loaded."""
        if self.loading:
            return "loading"
        return "ready" if self.running else "failed" if self.error else "not loaded"


class Models:
    """Every model of a server by name; safe to use from several threads.

    Attributes:
        first: the default model, which requests get that name none.
        budget: bytes that all loaded models may take together.
    """

    def __init__(self, first: Service) -> None:
        """Nothing is loaded here: the first one loads itself, the others are waited for."""
        self.first, self.budget = first, first.config.models_memory_mb * MIB
        self._held = {name: Held() for name in (first.model, *first.config.models)}
        self._held[first.model].service = first
        self._changing = threading.Lock()  # of what `_held` says; never held for long
        self._loading = threading.Lock()  # one load at a time
        self._waiting = 0  # requests that wait for a load
        self._closed = False

    @property
    def names(self) -> list[str]:
        """All models, the default first."""
        return list(self._held)

    @property
    def services(self) -> list[Service]:
        """The default model, and the others that are loaded."""
        with self._changing:
            return [held.service for held in self._held.values() if held.service]

    def known(self) -> Iterator[tuple[str, Held]]:
        """Every model and what is known of it now."""
        yield from self._held.items()

    def find(self, name: str) -> str:
        """The name itself, where there is a model of that name.

        Raises:
            NotReadyError: the server does not serve yet, or no more.
            UnknownModelError: there is none.
        """
        _ = self.first.engine
        if name not in self._held:
            raise UnknownModelError(name, self.names)
        return name

    def loaded(self, name: str) -> Service:
        """The service of a model that is there; nothing is loaded for it.

        Raises:
            NotReadyError: the server does not serve.
            ParameterError: it is not loaded.
            UnknownModelError: there is none of this name.
        """
        held = self._held[self.find(name)]
        with self._changing:
            if service := self.first if held.service is self.first else held.running:
                return service
        wanted = "a model that is loaded: it is when a text of it was asked for"
        raise ParameterError("model", name, wanted)

    def pick(self, name: str | None = None) -> Service:
        """The service of a model, loaded if need be; it stays until it is `put_back`.

        Args:
            name: as `names` has it; None is the default.

        Raises:
            NotReadyError: it cannot be loaded, there is no room, or the server is closing.
            QueueFullError: too many wait for a model to be loaded.
            UnknownModelError: there is none of this name.
        """
        held = self._held[self.find(self.first.model if name is None else name)]
        while True:
            with self._changing:
                if service := self.first if held.service is self.first else held.running:
                    held.users += 1
                    held.used = time.monotonic()
                    return service
            with self._turn() as asked:
                if not held.running:
                    self._load(name or "", held, asked)

    def put_back(self, service: Service) -> None:
        """A request that picked this model is over."""
        with self._changing:
            self._held[service.model].users -= 1

    @contextmanager
    def _turn(self) -> Iterator[float]:
        """Wait until no other model is being loaded; gives the time when the waiting began.

        Raises:
            QueueFullError, NotReadyError: too many wait already, or it takes too long.
        """
        config, asked = self.first.config, time.monotonic()
        with self._changing:
            if self._waiting >= config.slots + config.queue_length:
                raise QueueFullError
            self._waiting += 1
        try:
            if not self._loading.acquire(timeout=config.request_timeout):
                raise NotReadyError("other models are being loaded: try again")
            try:
                yield asked
            finally:
                self._loading.release()
        finally:
            with self._changing:
                self._waiting -= 1

    def _load(self, name: str, held: Held, asked: float) -> None:
        """Load a model; one request at a time gets here.

        Raises:
            NotReadyError: there is no room, or it failed, now or while this request waited.
        """
        if held.failed > asked:
            raise NotReadyError(held.error)
        if held.service:  # its engine has died
            self._end(self._take([held]))
        from serving.engine.loading import check_weights
        from serving.footprint import give_back_memory

        held.loading, began = True, time.monotonic()
        try:
            service = Service(self.first.config.model_copy(update={"model_name": name}))
            service.admit = self.first.admit
            check_weights(name)  # before another one goes for nothing
            self._make_room(name, held)
            service.load_now()
            give_back_memory()
        except NotReadyError:
            raise
        except Exception as error:
            told = isinstance(error, ValueError | OSError | TypeError)  # written for a person
            why = str(error) if told else "the server's log has the details"
            log.warning("model %s cannot be loaded", name, exc_info=None if told else error)
            held.error, held.failed = f"model {name} cannot be loaded: {why}", time.monotonic()
            raise NotReadyError(held.error) from None
        finally:
            held.loading = False
        with self._changing:
            held.service, held.error, closed = service, "", self._closed
        if closed:
            service.close()
        seconds = time.monotonic() - began
        log.info("loaded %s (%d MiB) in %.1f s", name, held.needs // MIB, seconds)

    def _make_room(self, name: str, held: Held) -> None:
        """Unload what was used longest ago until a model fits.

        Raises:
            NotReadyError: it would not fit, whatever may go; then nothing goes.
        """
        from serving.footprint import needed_bytes

        config, first = self.first.config, self._held[self.first.model]
        first.needs = first.needs or needed_bytes(self.first.model, config)
        held.needs = needed_bytes(name, config)
        going = []
        with self._changing:
            others = [other for other in self._held.values() if other.service]
            free = self.budget - sum(other.needs for other in others) - held.needs
            for other in sorted(others, key=lambda one: one.used):
                if free < 0 and other is not first and other.idle:
                    free += other.needs
                    going.append(other)
            if free < 0:
                raise NotReadyError(self._no_room(name, held.needs, first.needs))
            gone = self._take(going)
        self._end(gone)

    def _no_room(self, name: str, needs: int, taken: int) -> str:
        left = max(0, self.budget - taken) // MIB
        said = f"no room for model {name}: it needs {needs // MIB} MiB"
        if needs // MIB > left:
            return f"{said}, and LLM_MODELS_MEMORY_MB leaves {left} MiB beside {self.first.model}"
        return f"{said}, and the models that would have to go are answering: try again"

    def _take(self, going: list[Held]) -> list[Service]:
        """Take services out of what may be picked, before they are ended."""
        gone = [held.service for held in going if held.service]
        for held in going:
            held.service = None
        return gone

    def _end(self, gone: list[Service]) -> None:
        """Stop engines and give back the memory of their models."""
        from serving.footprint import give_back_memory

        while gone:
            service = gone.pop()
            service.close()
            log.info("unloaded %s", service.model)
            del service
        give_back_memory()

    def close(self) -> None:
        """Stop every engine; whatever still runs is ended."""
        with self._changing:
            self._closed = True
        for service in self.services:
            service.close()
