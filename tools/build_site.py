"""Build the course as a site to read, from the stored notebooks (`make site`).

    python tools/build_site.py                 into build/site
    python tools/build_site.py --output DIR    elsewhere

Nothing is run: Sphinx and MyST-NB do the work, docs/site/conf.py sets them up. First the pages
are laid out beside it: what only makes sense in Jupyter is taken out, links to what is no page
lead to the repository. Open build/site/index.html; no server is needed.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import startup

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this folder's course, whichever one is installed

from sync import COLAB_LINE, NAVIGATION, repository, source  # noqa: E402

from classroom import course  # noqa: E402

SETTINGS = ROOT / "docs" / "site"
LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
BADGE = re.compile(r"\[!\[([^\]]*)\]\([^)]*\)\]\(([^)]*)\)\s*")
ENTRY = re.compile(r'(?m)^<a id="([^"]+)"></a>\*\*([^*]+)\*\*(?: \(also: ([^)]+)\))?')
BOLD = re.compile(r"(?<!\[)\*\*([^*\n]+)\*\*(?!\])")
NEEDS_KERNEL = re.compile(r"^[^\n]+: run this cell in Jupyter to [^\n]+\.$")
OURS = "application/vnd.llm-basics."  # what reports and marking read
DIAGRAM = re.compile(r"```mermaid\n.*?```\n", re.DOTALL)
REFERENCE = {  # packages, and which modules of theirs: all where none is named
    "helpers": (),
    "classroom": ("limits", "records"),
    "classroom.figures": (),
    "classroom.widgets": (),
    "system": (),
}

Cell = dict[str, Any]


class Layout:
    """The pages, and where each of them comes from.

    Attributes:
        target: the folder that Sphinx reads.
        repository: the repository's owner and name.
        pages: for each file of the repository that becomes a page, the page's path.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.repository = repository()
        guides = [*sorted(ROOT.glob("docs/*.md")), ROOT / "CONTRIBUTING.md"]
        cards = sorted(ROOT.glob("models/*/README.md"))
        others = [*guides, ROOT / "benchmarks/README.md", *cards, course.NOTEBOOKS / "glossary.md"]
        self.pages = {ROOT / "README.md": Path("index.md")}
        self.pages |= {path: path.relative_to(ROOT) for path in (*course.notebooks(), *others)}
        self.groups = {
            "Lessons": [Path("notebooks", lesson.file) for lesson in course.written()],
            "Words": [Path("notebooks/glossary")],
            "Guides": [path.relative_to(ROOT).with_suffix("") for path in guides],
            "Results and models": [
                path.relative_to(ROOT).with_suffix("")
                for path in (ROOT / "benchmarks/README.md", *cards)
            ],
            "Reference": [Path("reference", name) for name in ("api", *REFERENCE)],
        }

    def put(self, page: Path, content: str) -> None:
        """Write a page for Sphinx."""
        path = self.target / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")

    def linked(self, text: str, origin: Path) -> str:
        """A page's text with each relative link leading to a page, a picture, or the repository.

        Raises:
            SystemExit: a link leads to nothing.
        """
        page = self.pages[origin]

        def follow(match: re.Match[str]) -> str:
            path = Path(os.path.normpath(origin.parent / match[1]))
            if not path.exists() or not path.is_relative_to(ROOT):
                sys.exit(f"{origin.relative_to(ROOT)} links to {match[1]}, which is not there.")
            if path in self.pages or path.suffix in (".png", ".svg", ".jpg"):
                there = self.pages.get(path, path.relative_to(ROOT))
                if path not in self.pages:
                    (self.target / there).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, self.target / there)
                return os.path.relpath(there, page.parent).replace(os.sep, "/") + (match[2] or "")
            kind = "tree" if path.is_dir() else "blob"
            name = path.relative_to(ROOT).as_posix()
            return f"https://github.com/{self.repository}/{kind}/main/{name}{match[2] or ''}"

        text = LINK.sub(follow, text)
        # A badge is a picture on somebody else's server: here it is a link in words.
        return re.sub(
            rf"(?m)^(?:{BADGE.pattern})+",
            lambda run: " · ".join(f"[{a}]({b})" for a, b in BADGE.findall(run[0])) + "\n\n",
            text,
        )


# --- a lesson -----------------------------------------------------------------------------


def terms() -> dict[str, str]:
    """Every name of every term of the glossary, in small letters, and its anchor."""
    found = {}
    text = (course.NOTEBOOKS / "glossary.md").read_text(encoding="utf-8")
    for anchor, name, also in ENTRY.findall(text):
        for one in (name, *filter(None, also.split(", "))):
            found[one.casefold()] = anchor
    return found


def with_terms(text: str, anchors: dict[str, str]) -> str:
    """Prose whose bold terms lead to the glossary."""

    def link(match: re.Match[str]) -> str:
        name = match[1].casefold()
        anchor = anchors.get(name) or anchors.get(name.removesuffix("s"))
        return f"[{match[0]}](glossary.md#{anchor})" if anchor else match[0]

    return BOLD.sub(link, text)


def markdown(name: str, text: str) -> Cell:
    """A cell of text, with its id."""
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": text}


def outputs(cell: Cell) -> Iterator[dict[str, Any]]:
    """A cell's outputs that mean something on paper: a widget leaves a note."""
    for output in cell["outputs"]:
        data = output.get("data", {})
        plain = "".join(data.get("text/plain", ""))
        if data.get(OURS + "answer+json", {}).get("answer") == {"missing": True}:
            continue
        if NEEDS_KERNEL.match(plain):
            data = {"text/html": f'<p class="needs-kernel">{html.escape(plain)}</p>'}
        if data:
            data = {kind: value for kind, value in data.items() if not kind.startswith(OURS)}
            output = output | {"data": data}
        yield output


def solutions(number: str, folder: Path) -> dict[str, Cell]:
    """For each question ("# Question 1") the fold with its solution and why."""
    path = next(folder.glob(f"solutions/{number}_*.ipynb"), None)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"] if path else []
    folds: dict[str, Cell] = {}
    for code, why in zip(cells, cells[1:], strict=False):
        name = source(code).split("\n")[0]
        if code["cell_type"] == "code" and name.startswith("# Question "):
            text = source(code).removeprefix(name + "\n")
            folds[name] = markdown(
                f"solution-{len(folds) + 1}",
                f"<details><summary>Solution of {name[2:].lower()}</summary>\n\n"
                f"```python\n{text}\n```\n\n{source(why)}\n\n</details>",
            )
    return folds


def lesson_page(notebook: dict[str, Any], number: str, anchors: dict[str, str]) -> dict[str, Any]:
    """A lesson as it is read: no navigation of its own, solutions behind a fold."""
    folds = solutions(number, course.NOTEBOOKS)
    cells: list[Cell] = []
    exercises = False
    for cell in notebook["cells"]:
        text = source(cell)
        if cell["cell_type"] != "code":
            exercises = (exercises or "## Exercises" in text) and "## Recap" not in text
            parts = [part for part in text.split("\n\n") if not NAVIGATION.fullmatch(part)]
            text = "\n\n".join(parts)
            cells.append(cell | {"source": text if exercises else with_terms(text, anchors)})
        elif COLAB_LINE not in text:
            cells.append(cell | {"outputs": list(outputs(cell))})
            if fold := folds.get(text.split("\n")[0]):
                cells.append(fold)
    return notebook | {"cells": cells}


# --- the pages ----------------------------------------------------------------------------


def lay_out_lessons(layout: Layout) -> None:
    """Every lesson that is written."""
    anchors = terms()
    for lesson, path in zip(course.written(), course.notebooks(), strict=True):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        page = lesson_page(notebook, lesson.number, anchors)
        for cell in page["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = layout.linked(source(cell), path)
        layout.put(layout.pages[path], json.dumps(page, ensure_ascii=False, indent=1))


def contents(layout: Layout) -> str:
    """The tables of contents, one a group."""
    titles = {f"notebooks/{lesson.file}": lesson.name for lesson in course.written()}
    text = ""
    for caption, pages in layout.groups.items():
        lines = []
        for page in pages:
            name = page.as_posix()
            lines.append(f"{titles[name]} <{name}>" if name in titles else name)
        text += (
            f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(lines) + "\n```\n"
        )
    return text


def lay_out_texts(layout: Layout) -> None:
    """The README as the first page, the guides, the results, the models' cards."""
    for path, page in layout.pages.items():
        if path.suffix == ".md":
            text = layout.linked(path.read_text(encoding="utf-8"), path)
            if path.name == "README.md" and path.parent == ROOT:
                text = DIAGRAM.sub("", text) + contents(layout)
            layout.put(page, text)


def lay_out_reference(layout: Layout) -> None:
    """A page for each package that lessons import, and one for each module, from docstrings."""
    for package, named in REFERENCE.items():
        files = sorted((ROOT / package.replace(".", "/")).glob("[a-z]*.py"))
        modules = [f"{package}.{name}" for name in named or (path.stem for path in files)]
        listed = "\n".join(f"   {module}" for module in modules)
        about = f".. automodule:: {package}\n\n.. toctree::\n   :titlesonly:\n\n{listed}\n"
        pages = {package: about} | {m: f".. automodule:: {m}\n   :members:\n" for m in modules}
        for name, text in pages.items():
            layout.put(Path("reference", f"{name}.rst"), f"{name}\n{'=' * len(name)}\n\n{text}")


def lay_out_api(layout: Layout) -> None:
    """The service's API, from the description that the service gives of itself."""
    from jinja2 import Environment, FileSystemLoader

    from serving.api.app import create_app
    from serving.config import Config
    from serving.models import Models
    from serving.service import Service

    client = create_app(
        Models(Service(Config.model_validate({})))
    ).test_client()  # no model is loaded
    document = client.get("/openapi.json").json
    jinja = Environment(loader=FileSystemLoader(SETTINGS), keep_trailing_newline=True)
    jinja.filters["cell"] = lambda text: " ".join(text.split()).replace("|", "\\|")
    jinja.globals |= {"kind": kind, "limits": limits}
    text = jinja.get_template("api.md.j2").render(document=document)
    layout.put(Path("reference/api.md"), text)


def kind(schema: dict[str, Any]) -> str:
    """A JSON schema's type in words, with links to the schemas on the page."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name})"
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(kind(choice) for choice in choices)
    if "allOf" in schema:
        return kind(schema["allOf"][0])
    if values := schema.get("enum"):
        return " or ".join(f"`{json.dumps(value)}`" for value in values)
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if schema.get("type") == "array":
        return f"list of {kind(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {kind(schema['additionalProperties'])}"
    return str(schema.get("type", "anything"))


LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most"}
LIMITS |= {"maxLength": "characters at most", "maxItems": "items at most"}


def limits(schema: dict[str, Any]) -> str:
    """What a value may be, for the table."""
    for one in (schema, *schema.get("anyOf", [])):
        if said := [f"{words} {one[key]:.12g}" for key, words in LIMITS.items() if key in one]:
            return ", " + ", ".join(said)
    return ""


# --- the command --------------------------------------------------------------------------


def build(output: Path, work: Path) -> int:
    """Lay the pages out in `work`, and have Sphinx make the site in `output`; its exit status."""
    from sphinx.cmd.build import main as sphinx

    layout = Layout(work / "source")
    lay_out_lessons(layout)
    lay_out_texts(layout)
    lay_out_reference(layout)
    lay_out_api(layout)
    command = ["-b", "html", "-c", str(SETTINGS), "-d", str(work / "doctrees"), "-W"]
    status = sphinx([*command, "--keep-going", "-q", str(layout.target), str(output)])
    for path in course.notebooks():  # to download: the lesson itself, which runs
        shutil.copyfile(path, output / "_sources" / path.relative_to(ROOT))
    for path in output.rglob("*.map"):  # for the theme's developers only
        path.unlink()
    if status == 0:  # pictures that lessons show by HTML of their own
        shutil.copytree(ROOT / "docs/images", output / "docs/images", dirs_exist_ok=True)
    return status


def main() -> int:
    """Build; the exit status is Sphinx's."""
    parser = argparse.ArgumentParser(description="Build the course as a site.")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "site", metavar="DIR")
    output = parser.parse_args().output.resolve()
    if (output / "searchindex.js").exists():
        shutil.rmtree(output)  # an earlier build
    elif output.is_file() or (output.exists() and any(output.iterdir())):
        sys.exit(f"--output {output} holds something else: name a new folder.")
    with tempfile.TemporaryDirectory() as work:
        status = build(output, Path(work))
    if status == 0:
        print(f"The site is in {output}: open {output / 'index.html'}")
    return int(status)


if __name__ == "__main__":
    startup.run(main)
