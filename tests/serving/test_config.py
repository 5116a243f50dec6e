"""The settings of the service: where each may come from, which source wins, what is shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from serving.config import Config, ConfigError, load_config
from serving.settings_shown import in_force, table

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `.env`, and an environment that says nothing of the service."""
    for name in Config.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(f"LLM_{name.upper()}", raising=False)
    path = tmp_path / ".env"
    path.write_text("", encoding="utf-8")
    return path


def test_variables_of_other_software_neither_stop_nor_move_the_server(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "DEBUG": "release",
        "HOST": "build-7",
        "PORT": "http",
        "SLOTS": "x",
    }.items():
        monkeypatch.setenv(name, value)
    config = load_config(env_file)
    assert config == Config()
    assert config.sources == {}
    for said in (table(config), in_force(config)):
        assert "not read" in said and "HOST=build-7" in said and "DEBUG=release" in said


def test_the_ranks(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def port() -> tuple[int, str | None]:
        config = load_config(env_file)
        return config.port, config.sources.get("port")

    assert port() == (5000, None)
    env_file.write_text("PORT=5001\n", encoding="utf-8")
    assert port() == (5001, "PORT in .env")
    monkeypatch.setenv("PORT", "7777")
    assert port() == (5001, "PORT in .env")
    env_file.write_text("PORT=5001\nLLM_PORT=5002\n", encoding="utf-8")
    assert port() == (5002, "LLM_PORT in .env")
    monkeypatch.setenv("LLM_PORT", "5002")  # the course copies `.env` into the environment
    assert port() == (5002, "LLM_PORT in .env")
    monkeypatch.setenv("LLM_PORT", "5003")
    assert port() == (5003, "LLM_PORT in the environment")
    config = load_config(env_file, port=5004)
    assert (config.port, config.sources["port"]) == (5004, "--port")


def test_the_lessons_names_count_in_the_environment(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_NAME", "course-gpt-1m")
    monkeypatch.setenv("DEVICE", "cpu")
    config = load_config(env_file)
    assert (config.model_name, config.device) == ("course-gpt-1m", "cpu")
    monkeypatch.setenv("LLM_MODEL_NAME", "course-gpt-16m")
    assert load_config(env_file).model_name == "course-gpt-16m"


def test_a_wrong_value_is_told_with_the_name_that_it_was_set_by(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file.write_text("SLOTS=many\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^SLOTS='many' \(in .env\) is not allowed: SLOTS must"):
        load_config(env_file)
    monkeypatch.setenv("LLM_SLOTS", "0")
    with pytest.raises(ConfigError, match=r"^LLM_SLOTS='0' is not allowed: .* from 1 to 1024"):
        load_config(env_file)
    with pytest.raises(ConfigError, match=r"^--slots=-1 is not allowed"):
        load_config(env_file, slots=-1)


def test_lists_and_addresses(env_file: Path) -> None:
    config = load_config(env_file, allowed_hosts="llm.example, other.example ,", host="[::1]")
    assert config.allowed_hosts == ("llm.example", "other.example")
    assert config.host == "::1"


def test_show_config_names_every_setting_and_its_source() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "serving", "--show-config", "--port", "0"],
        cwd=ROOT,
        env=os.environ | {"LLM_SLOTS": "3", "HOST": "build-7", "LLM_DEBUG": ""},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0 and not ended.stderr
    lines = {line.split()[0]: line for line in ended.stdout.splitlines()}
    assert {f"LLM_{name.upper()}" for name in Config.model_fields} <= set(lines)
    assert lines["LLM_SLOTS"].split() == ["LLM_SLOTS", "3", "LLM_SLOTS", "in", "the", "environment"]
    assert lines["LLM_PORT"].split() == ["LLM_PORT", "0", "--port"]
    assert lines["LLM_DRAIN_SECONDS"].endswith("default")
    assert "HOST=build-7" in lines["not"]


def test_the_page_of_settings_lists_each_with_its_default() -> None:
    lines = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8").splitlines()
    listed = [tuple(line.strip("| ").split(" | ")) for line in lines if line.startswith("| `LLM_")]
    expected = []
    for name, setting in Config.model_fields.items():
        value = setting.default
        shown = str(value).lower() if isinstance(value, bool) else value or "–"
        shown = value if value == 0 and value is not False else shown
        expected.append((f"`LLM_{name.upper()}`", str(shown), setting.description))
    assert [(name, default.strip("`"), what) for name, default, what in listed] == expected


def test_env_files_of_other_editors(env_file: Path) -> None:
    env_file.write_bytes("PORT=5001\r\n".encode("utf-16"))  # as PowerShell's > writes it
    assert load_config(env_file).port == 5001
    env_file.write_bytes(b"PORT=5001\n#caf\xe9\n")
    with pytest.raises(ConfigError, match=r"\.env, line 2"):
        load_config(env_file)


def test_the_example_of_an_env_file_has_every_setting_with_its_default() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    shown = dict(re.findall(r"(?m)^#([A-Z_]+)=(.*)$", text))
    for name, field in Config.model_fields.items():
        if name not in ("model_name", "device"):
            default = field.default if isinstance(field.default, str) else json.dumps(field.default)
            assert shown.get(name.upper()) == default.replace("[]", ""), name
