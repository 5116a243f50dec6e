"""`import helpers` is light, and sets the environment up before the model libraries load."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("torch", "transformers", "pandas", "matplotlib", "IPython", "ipywidgets", "numpy")


def python(code: str, path: Path | None = None, **environment: str | None) -> str:
    """What a fresh process prints; a variable given as None is taken out of its environment."""
    env = {k: v for k, v in {**os.environ, **environment}.items() if v is not None}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    child = subprocess.run(
        [sys.executable, "-c", code],
        env=env,
        cwd=path,  # the working directory comes before all else in the search path
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert child.returncode == 0, child.stderr
    return child.stdout + child.stderr


def test_nothing_heavy_is_imported() -> None:
    """Half a second would be over before torch is there."""
    code = f"import helpers, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert python(code).strip() == "[]"


@pytest.mark.parametrize(
    "module",
    [
        "system.environment",
        "system.errors",
        "helpers.device",
        "helpers.models",
        "classroom.records",
    ],
)
def test_light_modules_stay_light(module: str) -> None:
    code = f"import {module}, sys; print('torch' in sys.modules)"
    assert python(code).strip() == "False"


def test_every_public_name_is_there_and_others_are_not() -> None:
    import helpers

    for name in helpers.__all__:
        assert getattr(helpers, name).__module__.startswith(("helpers.", "system."))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = helpers.nonsense


@pytest.mark.slow
def test_threads_are_configured_before_torch() -> None:
    code = (
        "import helpers, system.machine, os, json; before = dict(os.environ); import torch\n"
        "print(json.dumps([before['OMP_WAIT_POLICY'], before['OMP_NUM_THREADS'],"
        " torch.get_num_threads(), system.machine.processors()]))"
    )
    policy, count, threads, cpus = json.loads(
        python(code, OMP_WAIT_POLICY=None, OMP_NUM_THREADS=None)
    )
    assert policy == "passive"
    assert int(count) == threads == max(1, min(4, int(cpus)))


def test_what_the_user_set_about_threads_stays() -> None:
    code = "import helpers, os; print(os.environ['OMP_WAIT_POLICY'], os.environ['OMP_NUM_THREADS'])"
    assert python(code, OMP_WAIT_POLICY="active", OMP_NUM_THREADS="1").split() == ["active", "1"]


@pytest.mark.slow
def test_threads_when_torch_was_there_first() -> None:
    code = "import torch; torch.set_num_threads(7); import helpers; print(torch.get_num_threads())"
    assert python(code, OMP_NUM_THREADS="2").strip() == "2"


@pytest.fixture
def copy_of_helpers(tmp_path: Path, root: Path) -> Path:
    """The package elsewhere, where a `.env` may lie beside it."""
    for name in ("system", "helpers"):
        ignored = shutil.ignore_patterns("__pyc*")
        shutil.copytree(root / name, tmp_path / name, ignore=ignored)
    return tmp_path


def test_env_file_is_read_and_a_set_variable_wins(copy_of_helpers: Path) -> None:
    (copy_of_helpers / ".env").write_text("MODEL_NAME=from-file\nDEVICE=cpu\nHF_HOME=/cache/a\n")
    code = (
        "import helpers, os; from system.environment import default_model\n"
        "print(helpers.__file__, default_model(), os.environ['DEVICE'], os.environ['HF_HOME'])"
    )
    settings = {"MODEL_NAME": None, "DEVICE": None, "HF_HOME": None}
    where, *found = python(code, copy_of_helpers, **settings).split()
    assert Path(where).parent.parent == copy_of_helpers
    assert found == ["from-file", "cpu", "/cache/a"]
    settings |= {"MODEL_NAME": "from-shell"}
    assert python(code, copy_of_helpers, **settings).split()[1:] == [
        "from-shell",
        "cpu",
        "/cache/a",
    ]


LINES = "# f\u00fcr Ada\nMODEL_NAME=gpt2\nHF_HOME=/cache/Jos\u00e9\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_env_file_is_read_by_its_byte_order_mark(copy_of_helpers: Path, encoding: str) -> None:
    """PowerShell's `>` writes UTF-16, Windows' editor may put a mark first."""
    (copy_of_helpers / ".env").write_bytes(LINES.replace("\n", "\r\n").encode(encoding))
    code = "import helpers, os; print([os.environ[n] for n in ('MODEL_NAME', 'HF_HOME')])"
    settings = {"MODEL_NAME": None, "HF_HOME": None, "PYTHONIOENCODING": "utf-8"}
    assert python(code, copy_of_helpers, **settings).strip() == "['gpt2', '/cache/Jos\u00e9']"


@pytest.mark.parametrize("command", [["-c", "import helpers"], ["-m", "helpers.check"]])
def test_env_file_in_another_encoding_is_one_line(
    copy_of_helpers: Path, command: list[str]
) -> None:
    (copy_of_helpers / ".env").write_bytes(LINES.encode("latin-1").partition(b"\n")[2])
    ran = subprocess.run(
        [sys.executable, *command],
        cwd=copy_of_helpers,
        env=os.environ | {"PYTHONPATH": str(copy_of_helpers)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1 and ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith("error: ") and ".env, line 2: the byte 0xe9 is not UTF-8" in line


def test_default_model_without_any_setting() -> None:
    code = "from system.environment import default_model; print(default_model())"
    assert python(code, MODEL_NAME=" ").strip() == "course-gpt-4m"
    assert python(code, MODEL_NAME=" gpt2 ").strip() == "gpt2"


def test_older_cache_variable_is_understood_with_a_hint() -> None:
    code = "import helpers\nfrom huggingface_hub import constants\nprint('HOME', constants.HF_HOME)"
    out = python(code, TRANSFORMERS_CACHE="/old/cache", HF_HOME=None)
    assert "HOME /old/cache" in out
    assert "TRANSFORMERS_CACHE is the older name" in out and "HF_HOME=/old/cache" in out
    out = python(code, TRANSFORMERS_CACHE="/old/cache", HF_HOME="/new/home")
    assert "HOME /new/home" in out and "older name" not in out


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, "None"),
        ({"NO_PROXY": "corp.example"}, "corp.example"),
        ({"http_proxy": "http://p:1"}, "localhost,127.0.0.1,::1"),
        ({"ALL_PROXY": "x", "NO_PROXY": "a, ::1 ,"}, "a,::1,localhost,127.0.0.1"),
        ({"HTTPS_PROXY": "x", "no_proxy": "*"}, "*"),
    ],
)
def test_a_proxy_is_not_asked_for_this_machine(given: dict[str, str], kept: str) -> None:
    """Without one nothing is set: NO_PROXY alone would hide what macOS and Windows configure."""
    code = "import helpers, os; print(os.environ.get('no_proxy') or os.environ.get('NO_PROXY'))"
    names = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    environment: dict[str, str | None] = dict.fromkeys([*names, *map(str.upper, names)])
    assert python(code, **environment | given).strip() == kept


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:5000/v1", True),
        ("http://127.9.9.9", True),
        ("https://LOCALHOST:1", True),
        ("http://me.localhost", True),
        ("http://[::1]:5000", True),
        ("http://0.0.0.0:5000", True),
        ("http://10.0.0.1", False),
        ("http://localhost.example", False),
        ("http://127.0.0.1.example", False),
        ("http://[::2]", False),
        ("127.0.0.1", False),
        ("http://[nonsense", False),
        ("", False),
    ],
)
def test_addresses_of_this_machine(url: str, here: bool) -> None:
    from system.environment import is_loopback

    assert is_loopback(url) is here


NO_HOME = """
import os, pwd
def nobody(number):
    raise KeyError(number)
pwd.getpwuid = nobody
del os.environ["HOME"]
import helpers
from huggingface_hub import constants
print(constants.HF_HOME)
"""


@pytest.mark.skipif(os.name == "nt", reason="users without an entry in passwd")
def test_downloads_have_a_place_where_the_user_has_no_home(tmp_path: Path) -> None:
    """As in `docker run --user 12345`; the hub's library would make a folder named `~` here."""
    settings = {"HF_HOME": None, "TRANSFORMERS_CACHE": None, "XDG_CACHE_HOME": None}
    where = Path(python(NO_HOME, TMPDIR=str(tmp_path), **settings).strip())
    assert where == tmp_path / "huggingface"
    assert python(NO_HOME, **settings | {"HF_HOME": "/mine"}).strip() == "/mine"
    assert python(NO_HOME, **settings | {"XDG_CACHE_HOME": "/x"}).strip() == "/x/huggingface"
    assert "/old" in python(NO_HOME, **settings | {"TRANSFORMERS_CACHE": "/old"})
