"""Sphinx's settings for the course as a site: tools/build_site.py lays out what it reads."""

from __future__ import annotations

import inspect
import sys
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pygments.lexers.special import TextLexer

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # this folder's helpers, whichever ones are installed
COURSE = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["course"]
REPOSITORY = f"https://github.com/{COURSE['repository']}"
MODULES = {  # each module and the file that it stands in
    ".".join(path.with_suffix("").parts).removesuffix(".__init__"): path.as_posix()
    for package in ("system", "helpers", "classroom")
    for path in (file.relative_to(ROOT) for file in (ROOT / package).rglob("*.py"))
}

project = "LLM Basics"
author = "the authors of LLM Basics"
project_copyright = "the authors of LLM Basics: text CC BY 4.0, code MIT"
html_title = project
html_baseurl = COURSE["site"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_*"]
highlight_language = "text"
# Anchors are plain HTML in our pages, which MyST does not know; a test follows every link.
suppress_warnings = ["myst.xref_missing"]
myst_ref_domains = ["std"]
myst_heading_anchors = 4

nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, Any] = {}  # no script from elsewhere; widgets need a kernel anyway
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # as written, not as a path of this machine
autodoc_typehints = "signature"
toc_object_entries_show_parents = "hide"
napoleon_use_ivar = True  # a class's fields once, where its docstring explains them
default_role = "literal"  # docstrings write code in single backticks

html_theme = "sphinx_book_theme"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_theme_options = {
    "repository_url": REPOSITORY,
    "repository_branch": "main",
    "use_repository_button": True,
    "use_edit_page_button": True,
    "use_download_button": True,
    "launch_buttons": {
        "binderhub_url": "https://mybinder.org",
        "colab_url": "https://colab.research.google.com",
        "notebook_interface": "jupyterlab",
    },
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "collapse_navbar": True,
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_context = {
    # Where a page's text is edited, when that is not the file of its name.
    "edited_in": {
        "index.md": "README.md",
        "reference/api.md": "serving/api/schemas.py",
        **{f"reference/{name}.rst": path for name, path in MODULES.items()},
    },
    "edit_page_provider_name": "GitHub",
    "edit_page_url_template": (REPOSITORY + "/edit/main/{{ edited_in.get(file_name, file_name) }}"),
}


def complete(app: Any, what: str, name: str, thing: object, options: Any, lines: list[str]) -> None:
    """Make a docstring's indented examples code, and list a settings class's fields."""
    if what == "property":  # its first words are no type, whatever napoleon takes them for
        lines[:] = inspect.cleandoc(thing.__doc__ or "").split("\n")
    if what == "module":
        for n in range(len(lines) - 1, 1, -1):
            starts = lines[n].startswith("    ") and not lines[n - 1]
            if starts and not lines[n - 2].startswith((" ", "*", "-")):
                lines[n:n] = ["::", ""]
    if isinstance(thing, type) and issubclass(thing, BaseModel):
        for key, field in thing.model_fields.items():
            if field.description:
                lines += ["", f"* **{key}**: {field.description}"]
        lines.append("")


def setup(app: Any) -> None:
    """What settings alone cannot say."""
    app.add_lexer("error", TextLexer)
    app.connect("autodoc-process-docstring", complete)
