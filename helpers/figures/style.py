"""The style of the course's figures: colours, an empty figure, a figure as an image with alt text.

`show(figure, alt)` returns the figure as an HTML image with its description, because
JupyterLab drops the descriptions of plain images. Colours are Okabe and Ito's, told
apart by colour-blind readers (https://jfly.uni-koeln.de/color/).
"""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.display import HTML
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE, SKY, RED = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00",
)  # fmt: skip
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED)

_STYLE: Any = {
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.prop_cycle": f"cycler('color', {list(COLOURS)!r})",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "white",  # a white card stays readable on a dark page
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.dpi": 130,
}


def new_figure(
    width: float = 7.0, height: float = 3.4, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    """An empty figure in the course's style, with `columns` plots side by side.

    It is not registered with pyplot, so that no notebook shows it twice.

    Args:
        width: inches; 7 fills a laptop's notebook column.
        height: inches.
        columns: plots side by side.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


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
        f'<img alt="{html.escape(alt, quote=True)}" '
        f'style="width:{width}px;max-width:100%;border-radius:6px" '
        f'src="data:image/png;base64,{data}">'
    )


def token_label(token: str) -> str:
    """A token as an axis label: blanks visible, no formula, only characters the font has."""
    shown = token.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥")
    drawn = (c if c.isascii() or c in "·⏎⇥" else c.encode("unicode_escape").decode() for c in shown)
    return "".join(drawn).replace("$", r"\$")
