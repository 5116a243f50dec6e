"""A calculator of load: how busy a server is, and how long requests wait for it. (Lesson 09.)"""

from __future__ import annotations

import math

import ipywidgets as widgets

from classroom.queueing import erlang_c, mean_wait, wait_quantile
from classroom.widgets.pieces import facts_table, panel
from system.errors import ParameterError


class LoadCalculator(widgets.VBox):
    """Arrivals, service time and slots: use, waiting time, queue, by M/M/c. (Lesson 09.)

    Attributes:
        arrivals: requests a second.
        service: seconds that one request holds a slot.
        slots: how many share the queue.
        shown: what follows from them, as HTML.
    """

    def __init__(self, arrivals_per_s: float, service_s: float, slots: int) -> None:
        """Show what follows from three first values.

        Args:
            arrivals_per_s: requests a second, above 0.
            service_s: seconds, above 0.
            slots: from 1.

        Raises:
            ParameterError: a value that is not above 0.
        """
        given = {"arrivals_per_s": arrivals_per_s, "service_s": service_s, "slots": slots}
        for name, value in given.items():
            if not 0 < value < math.inf:
                raise ParameterError(name, value, "a number above 0")
        most = 4 * max(arrivals_per_s, slots / service_s)
        wide = {"style": {"description_width": "130px"}, "layout": {"width": "95%"}}
        self.arrivals = widgets.FloatSlider(
            arrivals_per_s, min=0, max=most, step=most / 200, description="requests a second",
            readout_format=".1f", **wide,
        )  # fmt: skip
        self.service = widgets.FloatSlider(
            service_s, min=service_s / 10, max=10 * service_s, step=service_s / 10,
            description="seconds in a slot", readout_format=".3f", **wide,
        )  # fmt: skip
        self.slots = widgets.IntSlider(
            slots, min=1, max=max(64, slots), description="slots", **wide
        )
        self.shown = widgets.HTML()
        for control in (self.arrivals, self.service, self.slots):
            control.observe(self._changed, names="value")
        super().__init__([self.arrivals, self.service, self.slots, self.shown])
        self._changed()

    def __repr__(self) -> str:
        return "Load calculator: run this cell in Jupyter to move its sliders."

    def _changed(self, _: object = None) -> None:
        arrivals, service, slots = self.arrivals.value, self.service.value, self.slots.value
        use = arrivals * service / slots
        wait = mean_wait(slots, arrivals, service)
        late = wait_quantile(slots, arrivals, service, 0.95)
        full = math.isinf(wait)
        figures = {
            "slots in use": f"{min(use, 1):.0%}",
            "a request finds all slots taken": f"{erlang_c(slots, arrivals * service):.0%}",
            "mean wait": "grows without end" if full else f"{wait:,.3f} s",
            "p95 of the wait": "grows without end" if full else f"{late:,.3f} s",
            "requests that wait (L = λW)": "ever more" if full else f"{arrivals * wait:,.1f}",
        }
        self.shown.value = panel("calculator", facts_table(figures))
