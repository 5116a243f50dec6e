"""The widgets of the course: explorers, calculators, the playground's frame."""

from helpers.widgets.calculators import MemoryCalculator, TokenCalculator
from helpers.widgets.explorer import ParameterExplorer
from helpers.widgets.loop import LoopExplorer, greedy_walk
from helpers.widgets.playground import Playground

__all__ = [
    "LoopExplorer",
    "MemoryCalculator",
    "ParameterExplorer",
    "Playground",
    "TokenCalculator",
    "greedy_walk",
]
