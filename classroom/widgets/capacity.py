"""A capacity planner to move: users in, replicas, devices and cost out. (Lesson 10.)"""

from __future__ import annotations

import ipywidgets as widgets

from classroom.capacity import Demand, Plan, Replica, plan
from classroom.widgets.pieces import columns, facts_table, panel, problem
from system.errors import ParameterError


class CapacityPlanner(widgets.VBox):
    """Sliders for users and what they ask; slots, price and spare replicas; the plan below.

    Attributes:
        users, per_minute, tokens, wait: the demand, as `Demand` has it.
        slots, milliseconds, devices, price: one replica, as `Replica` has it; time a token in ms.
        spare: replicas beside those that are needed.
        shown: the plan as an HTML table.
    """

    def __init__(self, demand: Demand, replica: Replica) -> None:
        """Show the plan for the given values.

        Args:
            demand: at first; the sliders reach well beyond it.
            replica: at first.
        """

        def number(value: float, name: str, tip: str) -> widgets.BoundedFloatText:
            return widgets.BoundedFloatText(
                value, min=0.001, max=1e6, description=name, tooltip=tip,
                style={"description_width": "110px"}, layout={"width": "auto"},
            )  # fmt: skip

        def count(value: int, name: str, tip: str, least: int = 1) -> widgets.BoundedIntText:
            return widgets.BoundedIntText(
                value, min=least, max=1024, description=name, tooltip=tip,
                style={"description_width": "110px"}, layout={"width": "auto"},
            )  # fmt: skip

        self.users = widgets.IntSlider(
            round(demand.users), 1, max(5000, round(2 * demand.users)), description="users",
            style={"description_width": "110px"}, layout={"width": "95%"},
        )  # fmt: skip
        self.per_minute = number(
            demand.requests_per_user_minute, "requests/min", "of each user, at the busiest time"
        )
        self.tokens = number(demand.tokens, "tokens/answer", "on average")
        self.wait = number(demand.wait_s, "wait p95 (s)", "95 % get a slot within so many seconds")
        self.slots = count(replica.slots, "slots", "texts at a time, of one replica")
        self.milliseconds = number(
            1000 * replica.seconds_per_token, "ms/token", "of one text while all slots are busy"
        )
        self.devices = count(replica.devices, "devices", "that one replica runs on")
        self.price = number(replica.price_hour, "price/hour ($)", "of one device: your own number")
        self.spare = count(0, "spare replicas", "that may fail or be replaced", 0)
        self.shown = widgets.HTML()
        fields = [self.per_minute, self.tokens, self.wait, self.slots, self.milliseconds]
        fields += [self.devices, self.price, self.spare]
        for control in (self.users, *fields):
            control.observe(self._changed, names="value")
        grid = widgets.GridBox(fields, layout=columns("230px"))
        super().__init__([self.users, grid, self.shown])
        self._changed()

    def __repr__(self) -> str:
        return "Capacity planner: run this cell in Jupyter to move its sliders."

    def _changed(self, _: object = None) -> None:
        try:
            found = plan(
                Demand(self.users.value, self.per_minute.value, self.tokens.value, self.wait.value),
                Replica(
                    self.slots.value,
                    self.milliseconds.value / 1000,
                    self.devices.value,
                    self.price.value,
                ),
                self.spare.value,
            )
        except ParameterError as error:
            self.shown.value = problem(error)
            return
        self.shown.value = panel("plan", facts_table(plan_rows(found)))


def plan_rows(found: Plan) -> dict[str, str]:
    """A plan as people read it: name with its unit → value."""
    return {
        "tokens/s asked for": f"{found.tokens_per_s:,.0f}",
        "slots busy on average": f"{found.busy_slots:,.1f}",
        "replicas": f"{found.replicas:,}",
        "devices": f"{found.devices:,}",
        "use of the slots": f"{found.use:.0%}",
        "wait, 95 % at most": f"{found.p95_wait_s:.2f} s",
        "whole answer, mean": f"{found.answer_s:.1f} s",
        "cost of 730 hours ($)": f"{found.cost_month:,.0f}",
        "cost of a million tokens ($)": f"{found.cost_per_million:,.2f}",
    }
