"""The widgets of the course: explorers, calculators, the playground's frame."""

from classroom.widgets.calculators import MemoryCalculator, TokenCalculator
from classroom.widgets.capacity import CapacityPlanner, plan_rows
from classroom.widgets.explorer import ParameterExplorer
from classroom.widgets.load import LoadCalculator
from classroom.widgets.loop import LoopExplorer, greedy_walk
from classroom.widgets.pieces import Panel
from classroom.widgets.playground import Playground
from classroom.widgets.roofline import RooflineCalculator
from classroom.widgets.steering import TokenSteering

__all__ = [
    "CapacityPlanner",
    "LoadCalculator",
    "LoopExplorer",
    "MemoryCalculator",
    "Panel",
    "ParameterExplorer",
    "Playground",
    "RooflineCalculator",
    "TokenCalculator",
    "TokenSteering",
    "greedy_walk",
    "plan_rows",
]
