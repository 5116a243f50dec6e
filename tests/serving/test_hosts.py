"""Names that the server goes by, pages that may write, addresses that it prints."""

from __future__ import annotations

import socket

import httpx
import pytest

from serving.__main__ import address
from serving.api.hosts import host_is_allowed, host_name
from serving.client import Client, ServerProcess
from serving.config import Config

BODY = {"prompt": "x", "max_new_tokens": 1}


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def http(server: ServerProcess):
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:5000", "127.0.0.1.evil.example", "10.0.0.7", "[", "", "[::2]:1"],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/health"), ("POST", "/v1/completions")])
def test_a_foreign_host_is_refused(http: httpx.Client, method: str, path: str, host: str) -> None:
    response = http.request(method, path, headers={"Host": host}, json=BODY)
    assert response.status_code == 421
    assert "LLM_ALLOWED_HOSTS" in response.text and response.json()["error"]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1:1", "127.8.8.8", "[::1]:5000", "lab.localhost"]
)
def test_loopback_goes_by_all_of_its_names(http: httpx.Client, host: str) -> None:
    assert http.get("/health", headers={"Host": host}).status_code == 200


def test_which_names_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUPYTERHUB_SERVICE_PREFIX", raising=False)
    everywhere = Config(host="0.0.0.0")
    assert host_is_allowed(everywhere, "llm.example")
    named = Config(allowed_hosts=("LLM.example",))
    assert host_is_allowed(named, host_name("llm.example:80"))
    assert host_is_allowed(named, host_name("localhost:5000"))
    assert not host_is_allowed(named, "other.example")
    assert not host_is_allowed(Config(host="::", allowed_hosts=("a",)), "other.example")
    assert host_is_allowed(Config(host="box.lan"), "box.lan")
    assert not host_is_allowed(Config(host="::1"), "hub.example")
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ada/")
    assert host_is_allowed(Config(), "hub.example"), "the hub's proxy passes its own name on"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", ["/generate", "/stream", "/v1/completions"])
def test_pages_from_elsewhere_may_not_write(
    http: httpx.Client, path: str, headers: dict[str, str]
) -> None:
    response = http.post(path, json=BODY, headers=headers)
    assert response.status_code in (400, 403) and response.json()["error"]
    assert "Access-Control-Allow-Origin" not in response.headers


def test_programs_and_the_servers_own_page_may_write(http: httpx.Client) -> None:
    own = str(http.base_url).rstrip("/")
    for headers in (
        {},
        {"Origin": own, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ):
        assert http.post("/generate", json=BODY, headers=headers).status_code == 200
    through_a_proxy = {"Host": "localhost:8888", "Origin": "http://localhost:8888"}
    assert http.post("/generate", json=BODY, headers=through_a_proxy).status_code == 200


@pytest.mark.slow
def test_cors_is_off_unless_configured(http: httpx.Client) -> None:
    ask = {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    refused = http.options("/generate", headers=ask)
    assert not any(name.startswith("access-control") for name in refused.headers)
    settings = {"cors_origins": "https://page.example", "allowed_hosts": "llm.example"}
    with ServerProcess("cors", model="course-gpt-1m", **settings) as process:
        allowed = httpx.options(process.url + "/generate", headers=ask)
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://page.example"
        assert "Content-Type" in allowed.headers["Access-Control-Allow-Headers"]
        headers = {"Origin": "https://page.example", "Host": "llm.example"}
        answer = httpx.post(process.url + "/generate", json=BODY, headers=headers, timeout=60)
        assert answer.status_code == 200 and "Origin" in answer.headers["Vary"]
        assert answer.headers["Access-Control-Allow-Origin"] == "https://page.example"
        other = httpx.post(
            process.url + "/generate", json=BODY, headers={"Origin": "https://other.example"}
        )
        assert other.status_code == 403
        assert "Access-Control-Allow-Origin" not in other.headers


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("*", "http://127.0.0.1:80"),
        ("box.lan", "http://box.lan:80"),
    ],
)
def test_the_printed_address_can_be_called(host: str, url: str) -> None:
    assert address(host, 80) == url


@pytest.mark.slow
@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["::", "[::1]"])
def test_addresses_of_version_6_work(host: str) -> None:
    with ServerProcess("v6", model="course-gpt-1m", host=host) as process:
        assert process.url.startswith("http://[::1]:")
        with Client(process.url) as client:
            assert client.health()["status"] == "healthy"
