"""API keys: who gets in, who does not, and that no key is shown anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import openai
import pytest
from httpx import Client as HTTPClient
from httpx import WSGITransport

from serving.config import ConfigError, load_config
from serving.guard.keys import known_keys, warning
from serving.guard.logs import flush_logs
from serving.settings_shown import in_force, table
from tests.conftest import ROOT
from tests.serving.guard.conftest import MODEL, Client, Serve, samples

ONE, OTHER = "sk-first-of-all-keys", "sk-another-of-the-keys"
ASKED = {"prompt": "A server", "max_new_tokens": 3}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
def client(serve: Serve, tmp_path: Path) -> Client:
    file = tmp_path / "keys"
    digest = hashlib.sha256(OTHER.encode()).hexdigest()
    file.write_text(f"# the class of 2026\n\nsha256:{digest}\n", encoding="utf-8")
    return serve(api_keys=ONE, api_keys_file=str(file), log_file=str(tmp_path / "log"))


@pytest.mark.parametrize("key", [ONE, OTHER])
def test_each_key_opens_every_route(client: Client, key: str) -> None:
    assert client.post("/generate", json=ASKED, headers=bearer(key)).status_code == 200
    assert client.get("/v1/models", headers=bearer(key)).status_code == 200
    assert client.get("/metrics", headers=bearer(key)).status_code == 200
    lower = {"Authorization": f"bearer  {key}"}
    assert client.get("/info", headers=lower).status_code == 200


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", f"Basic {ONE}", f"Bearer {ONE}x", f"Bearer {ONE} {OTHER}", "Bearer é", ONE]
    + [f"Bearer {hashlib.sha256(ONE.encode()).hexdigest()}"],
)
def test_whoever_has_none_is_refused(client: Client, header: str) -> None:
    headers = {"Authorization": header} if header else {}
    for path in ("/info", "/metrics", "/v1/models", "/openapi.json", "/nowhere"):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
    answer = client.post("/v1/completions", data="no JSON at all", headers=headers)
    error = answer.json["error"]
    assert (answer.status_code, error["code"]) == (401, "invalid_api_key")
    assert error["type"] == "invalid_request_error" and "API key" in error["message"]
    assert client.post("/generate", json=ASKED, headers=headers).json["error"] == error["message"]


def test_a_load_balancer_and_a_preflight_need_none(client: Client) -> None:
    assert client.get("/health").status_code == client.get("/live").status_code == 200
    assert client.get("/").status_code == 200
    assert client.options("/v1/completions").status_code == 200


def test_openais_client_says_what_is_wrong(client: Client) -> None:
    http = HTTPClient(transport=WSGITransport(client.application))
    settings = {"base_url": "http://127.0.0.1/v1", "http_client": http, "max_retries": 0}
    with pytest.raises(openai.AuthenticationError, match="not known"):
        openai.OpenAI(api_key="sk-somebody-elses-key", **settings).models.list()
    (found,) = openai.OpenAI(api_key=ONE, **settings).models.list()
    assert found.id == MODEL


def test_no_key_is_shown_or_kept(client: Client, tmp_path: Path) -> None:
    client.post("/generate", json=ASKED, headers=bearer(ONE))
    client.post("/generate", json=ASKED, headers=bearer("sk-not-one-of-the-keys"))
    flush_logs()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert lines[0]["client"] == hashlib.sha256(ONE.encode()).hexdigest()[:8]
    assert lines[1]["error"] == "unauthorized" and "client" not in lines[1]
    assert "sk-" not in (tmp_path / "log").read_text()
    config = load_config(api_keys=f"{ONE},{OTHER}")
    for said in (repr(config), table(config), in_force(config)):
        assert "sk-" not in said
    assert "(2 of them)" in table(config)
    with_key = client.get("/metrics", headers=bearer(ONE)).text
    assert 'llm_errors_total{error_type="unauthorized"} 1.0' in with_key


@pytest.mark.parametrize(
    "key", ["short", "with blanks in the key", "ümläute-in-the-key", "x" * 257]
)
def test_what_is_no_key_is_told_without_it(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="^--api_keys=… is not allowed: .* 16 to 256") as caught:
        load_config(api_keys=key)
    file = tmp_path / "keys"
    file.write_text(f"{ONE}\n{key}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 2 must be a key of 16 to 256") as in_file:
        known_keys(load_config(api_keys_file=str(file)))
    assert key not in str(caught.value) and key not in str(in_file.value)


def test_a_file_without_keys_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# nothing\n", encoding="utf-8")
    for path, why in ((tmp_path / "keys", "holds no key"), (tmp_path / "no", "cannot be read")):
        with pytest.raises(ConfigError, match=why):
            known_keys(load_config(api_keys_file=str(path)))


def test_the_description_names_the_key(serve: Serve) -> None:
    paths = serve(api_keys=ONE).get("/openapi.json", headers=bearer(ONE)).json["paths"]
    assert paths["/generate"]["post"]["security"] == [{"key": []}]
    assert "401" in paths["/v1/completions"]["post"]["responses"]
    assert "security" not in paths["/health"]["get"]
    without = serve().get("/openapi.json").json
    assert "401" not in json.dumps(without) and not without["components"]["securitySchemes"]


def test_without_keys_nothing_is_asked_for(serve: Serve) -> None:
    client = serve()
    assert client.get("/info", headers=bearer("anything")).status_code == 200
    assert samples(client)['llm_errors_total{error_type="unauthorized"}'] == 0


def test_an_open_server_is_told_loudly(tmp_path: Path) -> None:
    assert warning(load_config(host="0.0.0.0")).startswith("NO API KEYS: whoever reaches 0.0.0.0")
    assert not warning(load_config(host="0.0.0.0", api_keys=ONE))
    assert not any(warning(load_config(host=host)) for host in ("127.0.0.1", "::1", "localhost"))
    command = [sys.executable, "-m", "serving", "--host", "0.0.0.0", "--model", "no-such-model"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.stderr.splitlines()[0].startswith("NO API KEYS")
    bad = os.environ | {"LLM_API_KEYS": "sk-short"}
    ended = subprocess.run(command, cwd=ROOT, env=bad, capture_output=True, text=True)
    assert ended.returncode == 2 and "sk-short" not in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
