"""The course as a site: it builds without a warning, its links arrive, it reads well offline."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from filelock import FileLock

from classroom import course
from tests.conftest import ROOT

pytestmark = pytest.mark.slow
LESSONS = course.written()
READ = [  # lessons with sliders, figures, tables, a traceback, coloured tokens; other kinds of page
    "index.html",
    "notebooks/03_parameter_sliders.html",
    "notebooks/01_tokenization.html",
    "notebooks/glossary.html",
    "reference/api.html",
    "reference/helpers.generator.html",
]
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"], "resultTypes": ["violations"]}
# axe-core looks at every element, a lesson's code has thousands: of each kind three stay.
THIN = """() => {
  const kinds = new Map(), more = [];
  for (const one of document.querySelectorAll("article *, nav li")) {
    let kind = "";
    for (let at = one; at; at = at.parentElement) kind += at.tagName + "." + at.className + " ";
    kinds.set(kind, (kinds.get(kind) || 0) + 1);
    if (kinds.get(kind) > 3) more.push(one);
  }
  for (const one of more.reverse())
    if (!one.childElementCount && !["DT", "DD"].includes(one.tagName)) one.remove();
}"""
# What a page does not show: it ends right of the window, and nothing lets the reader scroll there.
LOST = """() => [...document.querySelectorAll("article *")].filter(one => {
  if (!one.checkVisibility() || one.getBoundingClientRect().right <= innerWidth + 1) return false;
  for (let at = one; at.tagName != "BODY"; at = at.parentElement)
    if (["auto", "scroll"].includes(getComputedStyle(at).overflowX)) return false;
  return true;
}).map(one => one.outerHTML.slice(0, 120))"""


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


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The site, built as `make site` does, every warning an error: once for all workers."""
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent
    folder, said = shared / "site", shared / "site.txt"
    with FileLock(shared / "site.lock"):
        if not said.exists():
            command = [sys.executable, "tools/build_site.py", "--output", str(folder)]
            ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            failed = ran.returncode != 0 or ran.stderr
            said.write_text(ran.stdout + ran.stderr if failed else "", encoding="utf-8")
    assert not said.read_text(encoding="utf-8"), said.read_text(encoding="utf-8")
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
    from serving.models import Models
    from serving.service import Service

    document: Any = (
        create_app(Models(Service(Config.model_validate({}))))
        .test_client()
        .get("/openapi.json")
        .json
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


# --- in a browser -------------------------------------------------------------------------


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1366, "light"), (380, "dark")])
def test_pages_read_well(width: int, scheme: Any, site: Path, browser: Any, tmp_path: Path) -> None:
    """From disk: axe-core finds nothing serious, nothing is out of reach or fetched elsewhere."""
    assert_read_well(READ, width, scheme, site, browser, tmp_path, THIN)


@pytest.mark.browser
@pytest.mark.soak
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1366, 380])
def test_every_page_reads_well(
    width: int, scheme: Any, site: Path, browser: Any, tmp_path: Path
) -> None:
    """The same of every page, whole."""
    names = [str(path.relative_to(site)) for path in site.rglob("*.html")]
    names = [name for name in names if not name.startswith("_static")]
    assert_read_well(names, width, scheme, site, browser, tmp_path, "() => {}")


def assert_read_well(
    names: list[str], width: int, scheme: Any, site: Path, browser: Any, folder: Path, first: str
) -> None:
    """SCREENSHOTS names a folder that keeps a picture of each page."""
    from axe_playwright_python.sync_playwright import Axe

    pictures = Path(os.environ.get("SCREENSHOTS") or folder)
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    fetched: list[str] = []
    context.on("request", lambda request: fetched.append(request.url))
    page = context.new_page()
    problems: list[tuple[str, str, Any]] = []
    for name in names:
        page.goto((site / name).as_uri())
        page.screenshot(path=pictures / f"{Path(name).stem}_{width}_{scheme}.png")
        lost = page.evaluate(LOST)
        wide = page.evaluate("document.documentElement.scrollWidth > innerWidth")
        if lost or wide:
            problems.append((name, "too wide", lost[:4]))
        page.evaluate(first)
        problems += [
            (name, one["id"], [node["html"][:160] for node in one["nodes"][:4]])
            for one in Axe().run(page, options=RULES).response["violations"]
            if one["impact"] in ("serious", "critical")
        ]
    context.close()
    assert not problems, "\n".join(map(str, problems))
    assert fetched and all(url.startswith(("file:", "data:")) for url in fetched), fetched


@pytest.mark.browser
def test_search_works_from_disk(site: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((site / "search.html").as_uri() + "?q=temperature")
    page.locator("#search-results li a").first.wait_for(timeout=20_000)
    found = [link.get_attribute("href") for link in page.locator("#search-results li a").all()]
    assert any("03_parameter_sliders" in str(link) for link in found), found
    page.close()


@pytest.mark.browser
def test_a_handout_is_white_whole_and_without_bars(site: Path, browser: Any) -> None:
    """Printed from the dark scheme, which the reader has again afterwards."""
    page = browser.new_page(viewport={"width": 720, "height": 1000}, color_scheme="dark")
    page.goto((site / READ[1]).as_uri())
    theme = "document.documentElement.dataset.theme"
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(theme) == "dark" and page.evaluate(ground) != "rgb(255, 255, 255)"
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    for bar in (".bd-header", ".bd-header-article", ".bd-sidebar-primary", ".prev-next-footer"):
        assert not page.locator(bar).first.is_visible(), bar
    cut = "[...document.querySelectorAll('article pre')].filter(e => e.scrollWidth > e.clientWidth)"
    assert page.locator("article pre").count() > 20 and page.evaluate(f"{cut}.length") == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(theme) == "dark"
    page.close()
