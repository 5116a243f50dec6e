"""A queue's wait over its use, computed and measured. (Lesson 10.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from classroom.figures.style import BLUE, GREEN, ORANGE, new_figure, show
from classroom.queueing import mean_wait

if TYPE_CHECKING:
    import pandas as pd
    from IPython.display import HTML


def waits_over_use(found: pd.DataFrame, slots: int, service_s: float, alt: str) -> HTML:
    """The formula's curve, and points of what was measured and what was played through.

    Args:
        found: index use (share of the slots that is busy, 0 to 1); columns measured and played,
            in milliseconds.
        slots: of the server.
        service_s: mean seconds of an answer.
        alt: what the figure shows.
    """
    figure, (axes,) = new_figure(height=3.0)
    uses = [n / 100 for n in range(1, 100)]
    curve = [1000 * mean_wait(slots, use * slots / service_s, service_s) for use in uses]
    axes.plot([100 * use for use in uses], curve, color=BLUE, label="formula (M/M/c)")
    at = [100 * use for use in found.index]
    axes.plot(at, found["played"], "s", color=GREEN, label="the same arrivals, played through")
    axes.plot(at, found["measured"], "o", color=ORANGE, label="measured")
    axes.set(xlabel="slots busy (%)", ylabel="mean wait (ms)", xlim=(0, 100))
    axes.set_ylim(0, 1.6 * max(found["measured"].max(), found["played"].max(), 1))
    axes.legend()
    return show(figure, alt)
