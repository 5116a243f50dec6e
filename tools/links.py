"""Make every badge and link follow the repository named in pyproject.toml.

    python tools/links.py            rewrite them, after [tool.course] repository changed
    python tools/links.py --check    only say which files are behind (`make lint`)

A lesson that lacks the cell that fetches the course on Google Colab gets it, below its badges.
"""

import argparse
import json
import os
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = ["README.md", "CONTRIBUTING.md", "CITATION.cff", "notebooks/*.ipynb"]
OWNER_NAME = r"[\w.-]+/[\w-]+(?:\.[\w-]+)*"
# Launch links always lead to this repository; on github.com others are linked to, too.
LAUNCH = re.compile(
    rf"(mybinder\.org/v2/gh/|colab\.research\.google\.com/github/)({OWNER_NAME})(?=/)"
)
# On Colab a lesson is alone: its first cell of code fetches the rest. Elsewhere it does nothing.
COLAB = """\
import sys

if "google.colab" in sys.modules:  # on Google Colab only: fetch the course and what is missing
    course = "https://github.com/{repository}"
    get_ipython().system(f"test -d course || git clone -q --depth 1 {{course}} course")
    get_ipython().run_line_magic("run", "course/tools/colab.py")"""
COLAB_LINE = '"google.colab" in sys.modules'
LESSON = re.compile(r"\d\d_\w+\.ipynb")
RECORD = re.compile(rf'(?m)^repository-code: "?https://github\.com/({OWNER_NAME})"?$')


def repository() -> str:
    """The setting: owner/name."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    name = str(settings["tool"]["course"]["repository"])
    if not re.fullmatch(OWNER_NAME, name):
        sys.exit(f"pyproject.toml: [tool.course] repository = {name!r} is not owner/name.")
    return name


def follow(text: str, old: str, new: str) -> str:
    """The text with every link to the repository leading to `new`."""
    text = LAUNCH.sub(rf"\g<1>{new}", text)
    return re.sub(rf"(?<=github\.com/){re.escape(old)}(?![\w-])", new, text)


def with_colab_cell(text: str, repository: str) -> str:
    """A lesson's text with its Colab cell in place; every other cell keeps its bytes."""
    notebook = json.loads(text)
    source = COLAB.format(repository=repository).splitlines(keepends=True)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code" and COLAB_LINE in "".join(cell["source"]):
            if "".join(cell["source"]) == "".join(source):
                return text
            cell["source"] = source
            break
    else:
        cell = {"cell_type": "code", "execution_count": None, "id": "colab", "metadata": {}}
        notebook["cells"].insert(1, cell | {"outputs": [], "source": source})
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"  # as nbformat writes it


def write(path: Path, text: str) -> None:
    """Replace the file at once: whoever reads it meanwhile sees the old or the new one."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(text.encode("utf-8"))
    os.replace(new, path)


def main() -> int:
    """Rewrite or check; exit status 1 when --check finds a file behind."""
    parser = argparse.ArgumentParser(description="Make badges and links follow one setting.")
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    new = repository()
    found = RECORD.search((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    old = found[1] if found else new  # what the links say now
    behind = []
    for path in sorted(p for pattern in FILES for p in ROOT.glob(pattern)):
        before = path.read_bytes().decode("utf-8")
        after = follow(before, old, new)
        if LESSON.fullmatch(path.name):
            after = with_colab_cell(after, new)
        if after != before:
            behind.append(str(path.relative_to(ROOT)))
            if not check:
                write(path, after)
    if behind:
        verb = "Not yet on" if check else "Rewritten for"
        print(f"{verb} {new}: {', '.join(behind)}" + (" (python tools/links.py)" if check else ""))
    return 1 if behind and check else 0


if __name__ == "__main__":
    sys.exit(main())
