"""The chain of one batch as data, text, formulas and pictures. It computes nothing of its own: it reads the one backward pass."""

from keras_backprop.explain.comparison import Compared, Comparison
from keras_backprop.explain.exercise import Exercise, exercise
from keras_backprop.explain.explanation import Explanation
from keras_backprop.explain.link import Link, Symbol, Weight
from keras_backprop.explain.observe import explain
from keras_backprop.explain.paths import Chain, Factor, Path
from keras_backprop.explain.sheet import Sheet
from keras_backprop.explain.steps import Steps, steps

__all__ = [
    "Chain",
    "Compared",
    "Comparison",
    "Exercise",
    "Explanation",
    "Factor",
    "Link",
    "Path",
    "Sheet",
    "Steps",
    "Symbol",
    "Weight",
    "exercise",
    "explain",
    "steps",
]
