"""The chain of one batch as data, text, formulas and pictures. It computes nothing of its own: it reads the one backward pass."""

from keras_backprop.explanations.comparing.comparison import Compared, Comparison
from keras_backprop.explanations.exercise import Exercise, exercise
from keras_backprop.explanations.explanation import Explanation
from keras_backprop.explanations.numbers.paths import Chain, Factor, Path
from keras_backprop.explanations.observing.link import Link, Symbol, Weight
from keras_backprop.explanations.observing.observe import explain
from keras_backprop.explanations.sheet import Sheet
from keras_backprop.explanations.steps import Steps, steps

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
