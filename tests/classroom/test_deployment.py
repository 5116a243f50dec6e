"""What lesson 10 reads of the container's and the cluster's files, and a server it watches."""

from __future__ import annotations

import asyncio
import io
import tarfile

import pytest

from classroom import deployment
from classroom.waiting_server import main, replica
from serving.client.load_test import Load, run
from system.environment import ROOT


def test_stages_of_a_dockerfile() -> None:
    text = "# words\nARG A=1\nFROM x AS first\nRUN one \\\n    && two\n# note\nFROM y\n"
    text += "COPY a b\nUSER 7"
    assert deployment.dockerfile_stages(text) == [
        {"name": "first", "steps": [("RUN", "one && two")]},
        {"name": "final", "steps": [("COPY", "a b"), ("USER", "7")]},
    ]
    ours = deployment.dockerfile_stages((ROOT / "deploy/Dockerfile").read_text("utf-8"))
    assert [stage["name"] for stage in ours] == ["build", "final"]
    assert ours[-1]["steps"][-1] == ("CMD", '["python", "-m", "serving"]')


def test_manifests_are_found_by_their_kind() -> None:
    found = deployment.manifests("base")
    assert {"Deployment", "Service", "HorizontalPodAutoscaler", "Kustomization"} <= set(found)
    assert deployment.autoscaler_target(found) == 8
    assert deployment.seconds_of({"periodSeconds": 2, "failureThreshold": 60}) == 120
    assert deployment.seconds_of({}) == 30  # Kubernetes' own defaults
    assert deployment.gibibytes("512Mi") == 0.5 and deployment.gibibytes("1.5Gi") == 1.5
    with pytest.raises(ValueError, match="'1G'"):
        deployment.gibibytes("1G")


def test_a_layer_is_a_tar_file_of_changes() -> None:
    for given, name, content in (("key", ".env", b"key"), (None, ".wh..env", b"")):
        with tarfile.open(fileobj=io.BytesIO(deployment.layer(env=given))) as tar:
            (member,) = tar
            held = tar.extractfile(member)
            assert held is not None and (member.name, held.read()) == (name, content)


@pytest.mark.slow
def test_a_waiting_server_is_watched_from_its_start_to_its_end() -> None:
    """Ready only once loaded; each step waits; SIGTERM lets a text end, and says 503 meanwhile."""
    server = replica("course-gpt-1m", 50, slots=2)
    body = {"model": "course-gpt-1m", "prompt": "A", "max_tokens": 40, "ignore_eos": True}
    body["stream"] = True
    with deployment.Watch(server, ["/health", "/live"], every_s=0.02) as watch:
        server.start()
        assert server.process is not None
        assert 0.1 < deployment.peak_gib(server.process.pid) < 8
        load = Load(server.url, requests=2, clients=2, min_tokens=6, max_tokens=6, ignore_end=True)
        report = run(load)
        assert len(report.good) == 2
        found = asyncio.run(deployment.measured(server, load))
        assert found["TTFT (ms)"] > 0 and found["MiB"] > 100
        assert 0 < found["tokens/s"] < 2 / 0.05  # two texts, a step of 50 ms for each token
        assert all(result.per_token > 0.05 for result in report.good)  # it cannot be quicker
        assert "data: [DONE]" in deployment.stopped_while_writing(server, body)
        server.process.wait(60)
    codes = [pair for _, pair in watch.seen]
    ready = codes.index((200, 200))
    assert (503, 200) in codes[:ready] and (503, 200) in codes[ready:]
    assert codes[-1] == (0, 0) and list(watch.table().iloc[-1])[1:] == ["–", "–"]


def test_a_wait_out_of_range_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--wait-ms", "-1"]) == 2
    assert capsys.readouterr().err == "--wait-ms -1 must be from 0 to 10000\n"
