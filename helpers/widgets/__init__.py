"""The widgets of the course: explorers, calculators, the playground's frame."""

from helpers.widgets.calculators import MemoryCalculator, TokenCalculator
from helpers.widgets.explorer import ParameterExplorer
from helpers.widgets.loop import LoopExplorer, greedy_walk
from helpers.widgets.playground import Playground
from helpers.widgets.steering import TokenSteering

__all__ = [
    "LoopExplorer",
    "MemoryCalculator",
    "ParameterExplorer",
    "Playground",
    "TokenCalculator",
    "TokenSteering",
    "greedy_walk",
]
