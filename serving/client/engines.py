"""Other engines with OpenAI's API, as child processes: llama.cpp's, vLLM and others. (Lesson 10.)

    with llama_cpp("smollm2-135m") as server:
        print(server.url)

Each is awaited until it answers and stopped at the end, as a `ServerProcess` is.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import httpx
import psutil

from helpers.models import locate, models_folder
from serving.client.process import ServerError
from system.child import own_session, start_child
from system.environment import ROOT
from system.errors import see

VLLM_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
_VLLM_VARIABLES = {
    "DO_NOT_TRACK": "1",
    "TORCHDYNAMO_DISABLE": "1",  # compiling costs minutes at every start
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB for keys and values, taken at the start
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_TARGET_DEVICE": "cpu",
}


class CommandServer:
    """Any server that a command starts: `{port}` in it becomes a free port.

    Attributes:
        url: where it answers once it is started.
    """

    def __init__(
        self,
        command: list[str],
        environment: Mapping[str, str] | None = None,
        folder: Path = ROOT,
    ) -> None:
        """A server that is not running yet.

        Args:
            command: its words.
            environment: variables beside this process's own.
            folder: where it runs.
        """
        self.command, self.folder, self.url = command, folder, ""
        self._environment = {"HF_HUB_OFFLINE": "1"} | dict(environment or {})
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 120) -> None:
        """Start, and wait until /health answers 200.

        Raises:
            ServerError: it ended instead, or took longer than `timeout` seconds.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{port}"
        with tempfile.TemporaryFile() as log:
            self.process = start_child(
                [part.replace("{port}", port) for part in self.command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                **own_session(os.environ | self._environment),
            )
            try:
                self._wait(timeout)
            except BaseException as error:
                self.stop()
                log.seek(0)
                said = log.read().decode("utf-8", "replace").strip().splitlines()
                if isinstance(error, TimeoutError) and said:
                    raise ServerError(said[-1].strip()) from None
                raise

    def _wait(self, timeout: float) -> None:
        assert self.process is not None
        end = time.monotonic() + timeout
        while not self._healthy():
            if self.process.poll() is not None or time.monotonic() > end:
                raise TimeoutError(f"no answer within {timeout:g} s")
            time.sleep(0.1)

    def _healthy(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self.url}/health", timeout=5, trust_env=False).status_code == 200
        return False

    def stop(self) -> None:
        """End it and what it has started, by force where it does not end by itself."""
        if self.process is not None and self.process.poll() is None:
            children: list[psutil.Process] = []
            with suppress(psutil.NoSuchProcess):
                children = psutil.Process(self.process.pid).children(recursive=True)
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            for child in children:  # vLLM's engine is a process of its own
                with suppress(psutil.NoSuchProcess):
                    child.kill()

    def __enter__(self) -> CommandServer:
        self.start(timeout=300)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def llama_cpp(name: str, slots: int = 8, context: int = 1024) -> CommandServer:
    """llama.cpp's server with a model of `make model`, 4 bits a weight as the file comes.

    Args:
        name: the model; `models/NAME.gguf` is read.
        slots: texts that are written at the same time.
        context: tokens each of them may have.

    Raises:
        ServerError: the package or the file is missing; says how to get it.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise ServerError(f"llama.cpp is not installed: pip install xllamacpp. {see('engines')}")
    file = models_folder() / f"{name}.gguf"
    if not file.is_file():
        raise ServerError(f"models/{file.name} is missing: `make model`. {see('engines')}")
    command = [sys.executable, "-m", "serving.client.llama_cpp", str(file), "--port", "{port}"]
    return CommandServer([*command, "--slots", str(slots), "--context", str(context)])


def vllm(
    name: str, slots: int = 32, context: int = 1024, devices: int = 1, dtype: str = "bfloat16"
) -> CommandServer:
    """A vLLM server, where `make vllm` has set it up.

    Args:
        name: a model as `helpers.load` takes it.
        slots: texts that are written at the same time.
        context: tokens each of them may have.
        devices: processes that share each layer (tensor parallel), each with its own cores; a
            divisor of the model's number of heads.
        dtype: of weights and cache.

    Raises:
        ServerError: vLLM is not set up; says how.
        ModelNotFoundError: as `locate`.
    """
    if not VLLM_PYTHON.is_file():
        raise ServerError(f"vLLM is not set up: `make vllm` (Linux, 3 GB). {see('engines')}")
    folder = locate(name)
    command = [str(VLLM_PYTHON), "-m", "system.child", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(folder), "--served-model-name", Path(name).name]
    command += ["--host", "127.0.0.1", "--port", "{port}", "--dtype", dtype]
    command += ["--max-model-len", str(context), "--max-num-seqs", str(slots), "--enforce-eager"]
    command += ["--tensor-parallel-size", str(devices)]
    return CommandServer(command, _VLLM_VARIABLES | {"VLLM_CPU_OMP_THREADS_BIND": _cores(devices)})


def transformers_serve(name: str) -> CommandServer:
    """`transformers serve`, by the command in TRANSFORMERS_SERVE, else the one on the PATH.

    It needs packages that the course does not have: an environment with `transformers[serving]`.

    Args:
        name: a model as `helpers.load` takes it; its requests name the folder's last part.

    Raises:
        ServerError: there is no such command. One that lacks packages says so at its start.
        ModelNotFoundError: as `locate`.
    """
    wanted = os.environ.get("TRANSFORMERS_SERVE") or "transformers"
    command = shutil.which(wanted)
    if command is None:
        raise ServerError(f"{wanted} is no command here: TRANSFORMERS_SERVE. {see('engines')}")
    folder = locate(name)
    words = [
        os.path.abspath(command),
        "serve",
        folder.name,
        "--host",
        "127.0.0.1",
        "--port",
        "{port}",
    ]
    words += ["--device", "cpu", "--dtype", "float32", "--attn-implementation", "sdpa"]
    # It serves a model under the name by which it was started: a folder, seen from its parent.
    return CommandServer(words, folder=folder.parent)


def playground(url: str, model: str = "") -> CommandServer:
    """The playground page in front of a running engine.

    Args:
        url: where the engine answers.
        model: as it names its model; "" asks it.
    """
    command = [sys.executable, "-m", "serving.client.playground", url, "--port", "{port}"]
    return CommandServer([*command, "--model", model])


def _cores(devices: int) -> str:
    """This machine's cores, shared out as vLLM wants them named: "0-1|2-3" for two devices."""
    count = os.cpu_count() or 1
    each = max(1, count // devices)
    starts = [device * each % count for device in range(devices)]
    return "|".join(f"{start}-{start + each - 1}" for start in starts)
