"""The course as a site: it builds without a warning, its links arrive, it reads well offline."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from classroom import course
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
LESSONS = course.written()


class Page(HTMLParser):
    """What a page links to, loads, and can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.pictures: list[dict[str, str | None]] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids |= {value for key in ("id", "name") if (value := found.get(key))}
        if tag == "a" and (href := found.get("href")):
            self.links.append(href)
        elif tag == "link" and found.get("rel") != "canonical" and (href := found.get("href")):
            self.loads.append(href)
        elif src := found.get("src"):
            self.loads.append(src)
        if tag == "img":
            self.pictures.append(found)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make site` does, every warning an error."""
    folder = tmp_path_factory.mktemp("built") / "site"
    command = [sys.executable, "tools/build_site.py", "--output", str(folder)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0 and not ran.stderr, ran.stdout + ran.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in str(path)}


def test_every_link_and_anchor_arrives(site: Path, pages: dict[Path, Page]) -> None:
    lost = []
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            there = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            inside = there.is_relative_to(site.resolve()) and there.exists()
            anchor = unquote(parts.fragment)
            if not inside or (anchor and there in pages and anchor not in pages[there].ids):
                lost.append(f"{path.relative_to(site)}: {link}")
    assert not lost, lost
    assert sum(len(page.links) for page in pages.values()) > 1000


def test_pages_load_nothing_from_elsewhere(pages: dict[Path, Page]) -> None:
    for path, page in pages.items():
        loaded = [link for link in page.loads if not link.startswith("data:")]
        assert loaded and not [link for link in loaded if "//" in link], path


def test_lessons_are_there_in_order_with_their_titles(pages: dict[Path, Page], site: Path) -> None:
    first = pages[site / "index.html"].text
    listed = re.findall(r'toctree-l1"><a [^>]*href="notebooks/(\d\d_\w+)\.html">([^<]*)<', first)
    assert listed == [(one.file, one.name) for one in LESSONS]
    built = {path.stem for path in (site / "notebooks").glob("*.html")}
    assert built == {one.file for one in LESSONS} | {"glossary"}


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda one: one.number)
def test_a_lesson_reads_without_a_kernel(
    lesson: course.CourseLesson, pages: dict[Path, Page], site: Path
) -> None:
    page = pages[site / "notebooks" / f"{lesson.file}.html"]
    stored = json.loads((course.NOTEBOOKS / lesson.notebook).read_text(encoding="utf-8"))
    outputs = [o for cell in stored["cells"] for o in cell.get("outputs", [])]
    alts = re.findall(r'<img alt=\\?"([^"\\]+)', json.dumps(outputs, ensure_ascii=False))
    shown = {picture.get("alt") for picture in page.pictures}
    assert {text.replace("&#x27;", "'").replace("&quot;", '"') for text in alts} <= shown
    assert all(picture.get("alt") for picture in page.pictures if "logo" not in str(picture))
    questions = sum("# Question " in "".join(cell["source"]) for cell in stored["cells"])
    assert page.text.count("<summary>Solution of question") == questions
    assert "google.colab" not in page.text and "not answered yet" not in page.text
    assert 'href="glossary.html#' in page.text
    for launch in ("mybinder.org/v2/gh/", "colab.research.google.com/github/", "/edit/main/"):
        assert re.search(rf'href="https://[^"]*{launch}[^"]*{lesson.file}', page.text), launch
    source = site / "_sources" / "notebooks" / lesson.notebook
    assert source.read_bytes() == (course.NOTEBOOKS / lesson.notebook).read_bytes()


def test_the_site_is_small_and_names_no_machine(site: Path) -> None:
    files = [path for path in site.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 15e6
    for path in (site / "notebooks").glob("*.html"):
        assert path.stat().st_size < 1.5e6, path.name
    for path in files:
        if path.suffix in (".html", ".js", ".css", ".ipynb", ".txt"):
            text = path.read_text(encoding="utf-8")
            for place in (str(ROOT), str(Path.home()) + "/", "/home/runner", str(site.parent)):
                assert place not in text, f"{path.name} names {place}"


def test_the_service_is_described_as_it_describes_itself(
    pages: dict[Path, Page], site: Path
) -> None:
    from serving.api.app import create_app
    from serving.config import Config
    from serving.service import Service

    document: Any = (
        create_app(Service(Config.model_validate({}))).test_client().get("/openapi.json").json
    )
    page = pages[site / "reference" / "api.html"]
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"{method.upper()} {path}" in page.text
    assert set(document["components"]["schemas"]) <= page.ids


def test_helpers_are_documented(pages: dict[Path, Page], site: Path) -> None:
    import helpers

    ids = set().union(*(pages[path].ids for path in (site / "reference").glob("*.html")))
    for name in helpers.__all__:
        module = getattr(helpers, name).__module__
        assert f"{module}.{name}" in ids, name
