"""The style of the course's figures: colours, an empty figure, a figure as an image with alt text.

`show(figure, alt)` returns the figure as an HTML image with its description, because
JupyterLab drops the descriptions of plain images. Colours are Okabe and Ito's, told
apart by colour-blind readers (https://jfly.uni-koeln.de/color/).
"""

from __future__ import annotations

import base64
import io
import unicodedata
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Any

from system.markup import attribute, reveal, visible

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, SKY, RED = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00",
)  # fmt: skip
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)

FONT = "DejaVu Sans"  # matplotlib brings it; it has most alphabets and many symbols
MONOSPACE = ("DejaVu Sans Mono", FONT)  # the second one draws what the first has not
LONGEST_NAME = 24  # characters of a name in a label; a longer one is given as a number

_STYLE: Any = {
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.prop_cycle": f"cycler('color', {list(COLOURS)!r})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",  # a white card stays readable on a dark page
    "font.sans-serif": [FONT],
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.dpi": 130,
}


def new_figure(
    width: float = 7.0, height: float = 3.4, columns: int = 1, rows: int = 1
) -> tuple[Figure, list[Axes]]:
    """An empty figure in the course's style, with `columns` plots side by side, in `rows`.

    It is not registered with pyplot, so that no notebook shows it twice.

    Args:
        width: inches; 7 fills a laptop's notebook column.
        height: inches.
        columns: plots side by side.
        rows: so many of these below each other; the plots come row by row.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).flatten()
    return figure, list(axes)


def from_zero(axes: Axes) -> None:
    """Let the vertical axis begin at 0, and end a little above what is drawn."""
    axes.set_ylim(0, 1.07 * float(axes.dataLim.y1) or 1)


def show(figure: Figure, alt: str) -> HTML:
    """The figure as an HTML image that carries its description.

    Args:
        figure: from `new_figure`.
        alt: what the figure shows, for those who do not see it: the message, not the look.

    Raises:
        ValueError: an empty description.
    """
    import matplotlib
    from IPython.display import HTML

    if not alt.strip():
        raise ValueError("alt: describe what the figure shows (got an empty description)")
    image = io.BytesIO()
    with matplotlib.rc_context(_STYLE):
        figure.savefig(image, format="png", metadata={"Software": None})
    data = base64.b64encode(image.getvalue()).decode("ascii")
    width = int(figure.get_figwidth() * 100)
    return HTML(
        f'<img alt="{attribute(alt)}" '
        f'style="width:{width}px;max-width:100%;border-radius:6px" '
        f'src="data:image/png;base64,{data}">'
    )


def label(text: object) -> str:
    """A text as the font can draw it, and no formula.

    A character without a glyph (most emoji, Chinese, Japanese) is written by its name,
    ⟨thumbs up sign⟩, or its number; three and more of them are counted.
    """
    shown = "".join(
        _written(list(run)) if missing else "".join(run)
        for missing, run in groupby(reveal(str(text)), lambda c: c != "\n" and not _drawable(c))
    )
    return shown.replace("$", r"\$")


def token_label(token: str) -> str:
    """A token as a label: spaces and line breaks as signs."""
    return label(visible(token))


def _written(missing: list[str]) -> str:
    if len(missing) > 2:
        return f"⟨{len(missing)} characters from U+{ord(missing[0]):04X}⟩"
    names = (unicodedata.name(c, "").lower() for c in missing)
    return "".join(
        f"⟨{name}⟩" if 0 < len(name) <= LONGEST_NAME else f"⟨U+{ord(c):04X}⟩"
        for c, name in zip(missing, names, strict=True)
    )


def _drawable(char: str) -> bool:
    return ord(char) in _glyphs()


@cache
def _glyphs() -> frozenset[int]:
    """Code points that `FONT` can draw."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(FONT)).get_charmap())
