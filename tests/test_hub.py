"""Models from the hub, against a stand-in on this machine that answers as the hub does.

Every question is asked by a process of its own (huggingface_hub reads its variables when it
is imported), with an empty download cache unless a test says otherwise.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from helpers.models import locate

pytestmark = pytest.mark.slow  # most tests start processes

NAME = "somebody/tiny-gpt2"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = "model.safetensors"
CUT = 12 * 2**20  # bytes: more than one of huggingface_hub's pieces of 10 MB
SECONDS = 3.0  # how soon an unreachable hub must be reported

CHILD = """
import json, sys, time
from helpers.models import locate
import httpx
from huggingface_hub import snapshot_download, get_token, constants
start = time.perf_counter()
try:
    answer = {"path": str(locate(sys.argv[1]))}
    if sys.argv[2:]:
        from helpers.generator import load
        result = load(sys.argv[1], "cpu").generate("The", temperature=0, max_new_tokens=3)
        answer["ids"] = result.new_ids[0]
except Exception as error:
    answer = {"error": type(error).__name__, "message": str(error)}
print(json.dumps(answer | {"seconds": time.perf_counter() - start}))
"""


class Hub(ThreadingHTTPServer):
    """Serves one model; `cut` bytes of weights at most, and what `status` says instead."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = {f.name: f.read_bytes() for f in sorted(folder.iterdir())}
        self.requests: list[tuple[str, str, str]] = []  # method, path, Range
        self.weight_bytes = 0  # how many were sent so far
        self.cut: int | None = None  # close the connection after so many bytes of weights …
        self.stays_cut_then = False  # … and every later one at once:
        self.stays_cut = False
        self.status, self.page = 200, b""

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is part of these tests."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def asked(self, method: str, file: str) -> list[str]:
        """The Range headers of the requests for one file."""
        return [r for m, path, r in self.requests if m == method and path.endswith(f"/{file}")]


class Answer(BaseHTTPRequestHandler):
    """What the hub answers to huggingface_hub 2.4."""

    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Quiet."""

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        headers.setdefault("Content_Type", "application/json")
        headers.setdefault("Content_Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        hub.requests.append((self.command, path, self.headers.get("Range", "")))
        if hub.stays_cut:
            self.close_connection = True
            return
        if hub.status != 200 or hub.page:
            self.reply(hub.status, hub.page, Content_Type="text/html")
            return
        info = f"/api/models/{NAME}"
        if path in (info, f"{info}/revision/main", f"{info}/revision/{COMMIT}"):
            files = [{"rfilename": name} for name in hub.files]
            self.reply(200, json.dumps({"id": NAME, "sha": COMMIT, "siblings": files}).encode())
        elif path == f"{info}/tree/{COMMIT}":
            tree = [
                {"type": "file", "path": name, "size": len(data), "oid": self.etag(data)}
                for name, data in hub.files.items()
            ]
            self.reply(200, json.dumps(tree).encode())
        elif match := re.fullmatch(f"/{NAME}/resolve/(?:main|{COMMIT})/([^/]+)", path):
            self.send_file(match[1])
        else:
            self.reply(404, b'{"error":"not found"}', X_Error_Code="RepoNotFound")

    @staticmethod
    def etag(data: bytes) -> str:
        return hashlib.sha1(data).hexdigest()

    def send_file(self, name: str) -> None:
        hub = self.server
        if name not in hub.files:
            self.reply(404, b"", X_Error_Code="EntryNotFound")
            return
        data, status = hub.files[name], 200
        headers = {"ETag": f'"{self.etag(data)}"', "X_Repo_Commit": COMMIT}
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            begin, status = int(match[1]), 206
            headers["Content_Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            data = data[begin:]
        headers["Content_Length"] = str(len(data))
        if self.command == "GET" and name == WEIGHTS:
            if hub.cut is not None:
                data, hub.cut = data[: hub.cut], None  # less than Content-Length says
                self.close_connection, hub.stays_cut = True, hub.stays_cut_then
            hub.weight_bytes += len(data)
        self.reply(status, data, **headers)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of random numbers, with the course's tokenizer: about 15 MB."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=8192, n_embd=256, n_layer=2, n_head=4, n_positions=128,
                        bos_token_id=8191, eos_token_id=8191)  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(locate("course-gpt-1m")).save_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"the same weights again, in the older format")
    assert (folder / WEIGHTS).stat().st_size > CUT + 2**20
    return folder


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[Hub]:
    server = Hub(checkpoint)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def ask(
    endpoint: str, cache: Path, name: str = NAME, use: bool = False, **more: str
) -> dict[str, Any]:
    """What `locate` (and with `use` a generation) says in a fresh process."""
    removed = ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE", "TRANSFORMERS_CACHE", "http_proxy")
    env = {k: v for k, v in os.environ.items() if k not in removed}
    env |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "no_proxy": "127.0.0.1", **more}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, name, *(["use"] if use else [])],
        env=env,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert child.returncode == 0, child.stderr
    answer = json.loads(child.stdout.splitlines()[-1])
    return {**answer, "stderr": child.stderr}


def greedy_ids(folder: Path) -> list[int]:
    """What the checkpoint writes after "The", without our code."""
    model = GPT2LMHeadModel.from_pretrained(folder).eval()
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)("The")["input_ids"]])
    width = ids.shape[1]
    for _ in range(3):
        with torch.inference_mode():
            ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids[0, width:].tolist()


def test_download_then_cache_then_offline(hub: Hub, checkpoint: Path, tmp_path: Path) -> None:
    shown_anywhere = {"TQDM_POSITION": "-1"}  # progress bars also where there is no terminal
    first = ask(hub.url, tmp_path, use=True, **shown_anywhere)
    assert first.get("ids") == greedy_ids(checkpoint), first
    assert hub.weight_bytes == len(hub.files[WEIGHTS])
    assert "Fetching" in first["stderr"] and "%" in first["stderr"], "no progress was shown"
    assert not hub.asked("GET", "pytorch_model.bin"), "the weights came twice"

    hub.requests.clear()
    again = ask(hub.url, tmp_path, use=True)
    assert again["ids"] == first["ids"] and again["path"] == first["path"]
    assert hub.asked("GET", WEIGHTS) == []

    hub.requests.clear()
    offline = ask(hub.url, tmp_path, use=True, HF_HUB_OFFLINE="1")
    assert offline["ids"] == first["ids"]
    assert hub.requests == []


def test_interruption_within_one_call(hub: Hub, checkpoint: Path, tmp_path: Path) -> None:
    """A connection that breaks once is taken up again at once."""
    hub.cut, hub.stays_cut_then = CUT, False
    answer = ask(hub.url, tmp_path)
    assert "path" in answer, answer
    found = (Path(answer["path"]) / WEIGHTS).read_bytes()
    assert found == (checkpoint / WEIGHTS).read_bytes()
    first, second = hub.asked("GET", WEIGHTS)
    assert first == "" and int(second.removeprefix("bytes=").rstrip("-")) > 0


def test_interruption_and_a_second_try(hub: Hub, checkpoint: Path, tmp_path: Path) -> None:
    """A connection that stays broken: a clear error; the next process fetches what is missing."""
    hub.cut, hub.stays_cut_then = CUT, True
    answer = ask(hub.url, tmp_path)
    assert answer.get("error") == "HubUnreachableError", answer
    for words in (NAME, hub.url, "Run it again", "shipped model"):
        assert words in answer["message"]

    offline = ask(hub.url, tmp_path, HF_HUB_OFFLINE="1")
    assert offline.get("error") == "HubUnreachableError", "half a model must not be used"

    hub.stays_cut = False
    hub.requests.clear()
    answer = ask(hub.url, tmp_path, use=True)
    assert answer.get("ids") == greedy_ids(checkpoint), answer
    assert not hub.asked("GET", "config.json"), "a whole file that has arrived is kept"


def test_only_older_weights(hub: Hub, tmp_path: Path) -> None:
    """A repository without safetensors: its .bin files are taken."""
    del hub.files[WEIGHTS]
    answer = ask(hub.url, tmp_path)
    assert (Path(answer["path"]) / "pytorch_model.bin").is_file()
    hub.requests.clear()
    assert ask(hub.url, tmp_path)["path"] == answer["path"]
    assert hub.requests == []


def test_part_of_a_model_in_the_cache_is_completed(hub: Hub, tmp_path: Path) -> None:
    """Other programs fetch a config alone; that must not count as the model."""
    code = "from huggingface_hub import hf_hub_download as d; d('" + NAME + "', 'config.json')"
    env = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=120)
    answer = ask(hub.url, tmp_path)
    assert (Path(answer["path"]) / WEIGHTS).is_file()


# --- no model to be had: each within three seconds, by name, with advice


def no_model(answer: dict[str, Any], error: str, *words: str) -> None:
    assert answer.get("error") == error, answer
    for word in words:
        assert word in answer["message"], answer["message"]
    assert answer["seconds"] < SECONDS


def test_name_not_found(hub: Hub, tmp_path: Path) -> None:
    answer = ask(hub.url, tmp_path, "distilgpt3")
    no_model(
        answer, "ModelNotFoundError", "'distilgpt3'", "Did you mean distilgpt2", "course-gpt-4m"
    )


def test_what_the_hub_says_to_strangers(hub: Hub, tmp_path: Path) -> None:
    """401 stands for a name that does not exist, too."""
    hub.status, hub.page = 401, b"{}"
    answer = ask(hub.url, tmp_path, "somebody/nothing")
    no_model(answer, "ModelNotFoundError", "'somebody/nothing'", "course-gpt-4m")


def test_gated_model(hub: Hub, tmp_path: Path) -> None:
    hub.status, hub.page = 403, b"{}"
    answer = ask(hub.url, tmp_path, HF_TOKEN="hf_not_a_real_one")
    no_model(answer, "ModelNotFoundError", NAME, "accept its terms", "hf auth login")


@pytest.mark.parametrize(
    ("status", "page", "cause"), [(503, b"busy", "answered 503"), (200, b"<html>log in", "no hub")]
)
def test_hub_that_answers_nonsense(
    hub: Hub, tmp_path: Path, status: int, page: bytes, cause: str
) -> None:
    hub.status, hub.page = status, page
    no_model(ask(hub.url, tmp_path), "HubUnreachableError", NAME, hub.url, cause, "shipped")


def test_refused_connection(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    answer = ask(url, tmp_path)
    no_model(
        answer, "HubUnreachableError", NAME, url, "HF_HUB_OFFLINE=1", "shipped", "ConnectError"
    )


def test_port_that_never_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=8) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        answer = ask(url, tmp_path, "gpt2-meduim")
    advice = ("HF_HUB_OFFLINE=1", "hf download gpt2-meduim", "shipped", "Did you mean gpt2-medium")
    no_model(answer, "HubUnreachableError", "'gpt2-meduim'", url, *advice)


def test_shipped_models_never_ask_the_hub(hub: Hub, tmp_path: Path) -> None:
    assert "ids" in ask(hub.url, tmp_path, "course-gpt-1m", use=True)
    assert hub.requests == []


@pytest.mark.parametrize(
    "proxy", ["socks://127.0.0.1:9", "no-such-scheme://x", "http://127.0.0.1:9"]
)
def test_a_proxy_that_cannot_be_used_is_named_in_one_line(tmp_path: Path, proxy: str) -> None:
    """Company laptops set ALL_PROXY; no traceback of a thread may show."""
    more = {"ALL_PROXY": proxy, "all_proxy": proxy, "no_proxy": "", "NO_PROXY": ""}
    answer = ask("http://hub.invalid", tmp_path, **more)
    assert answer.get("error") == "HubUnreachableError", answer
    assert answer["seconds"] < SECONDS and "Traceback" not in answer["stderr"]
    assert len(answer["message"].splitlines()) == 1
    if not proxy.startswith("http"):
        assert "proxy" in answer["message"].lower()
