"""What `kubectl kustomize` does, as far as deploy/kubernetes uses it: no cluster, no binary.

Resources, another folder as a base, a namespace, images, a ConfigMap from literals (here
without the hash at its name's end) and JSON patches (RFC 6902: add, replace, remove).
Anything else in a kustomization.yaml is an error, so that nothing is passed over.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

KNOWN = {"apiVersion", "kind", "namespace", "resources", "images", "configMapGenerator", "patches"}
Manifest = dict[str, Any]


def render(folder: Path) -> list[Manifest]:
    """Every object that `kubectl apply -k` would send, in the order of the files."""
    rules = _load(folder / "kustomization.yaml")[0]
    if unknown := set(rules) - KNOWN:
        raise ValueError(f"{folder}: {sorted(unknown)} is not rendered here")
    objects: list[Manifest] = []
    for name in rules.get("resources", []):
        path = folder / name
        objects += render(path) if path.is_dir() else _load(path)
    objects += [_config_map(entry) for entry in rules.get("configMapGenerator", [])]
    for entry in rules.get("patches", []):
        (target,) = [o for o in objects if _is(o, entry["target"])]  # one each, or it is a mistake
        for change in _load(folder / entry["path"])[0]:
            patch(target, change)
    for entry in rules.get("images", []):
        for container in containers(objects):
            name, _, tag = container["image"].rpartition(":")
            if not name or "/" in tag:
                name, tag = container["image"], ""
            if name == entry["name"]:
                tag = entry.get("newTag", tag)
                container["image"] = entry.get("newName", name) + (f":{tag}" if tag else "")
    if "namespace" in rules:
        for item in objects:
            if item["kind"] != "Namespace":
                item["metadata"]["namespace"] = rules["namespace"]
    return objects


def containers(objects: list[Manifest]) -> Iterator[Manifest]:
    """Every container of every Deployment."""
    for item in objects:
        if item["kind"] == "Deployment":
            yield from item["spec"]["template"]["spec"]["containers"]


def patch(target: Any, change: Manifest) -> None:
    """Carry out one operation of a JSON patch, in place."""
    words = [w.replace("~1", "/").replace("~0", "~") for w in change["path"].split("/")[1:]]
    for word in words[:-1]:
        target = target[int(word) if isinstance(target, list) else word]
    key = int(words[-1]) if isinstance(target, list) else words[-1]
    if change["op"] != "add":
        target[key]  # what is replaced or removed must be there
    if change["op"] == "remove":
        del target[key]
    elif change["op"] == "add" and isinstance(target, list):
        target.insert(key, copy.deepcopy(change["value"]))
    elif change["op"] in ("add", "replace"):
        target[key] = copy.deepcopy(change["value"])
    else:
        raise ValueError(f"the operation {change['op']!r} is not rendered here")


def _load(path: Path) -> list[Any]:
    return [d for d in yaml.safe_load_all(path.read_text(encoding="utf-8")) if d is not None]


def _config_map(entry: Manifest) -> Manifest:
    data = dict(literal.split("=", 1) for literal in entry["literals"])
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": entry["name"]},
        "data": data,
    }


def _is(item: Manifest, wanted: Manifest) -> bool:
    return item["kind"] == wanted["kind"] and item["metadata"]["name"] == wanted["name"]
