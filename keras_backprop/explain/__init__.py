"""The chain of one batch as data, text, formulas and a picture. It computes nothing of its own: it reads the record."""

from keras_backprop.explain.explanation import Explanation
from keras_backprop.explain.link import Link, Symbol, Weight
from keras_backprop.explain.observe import explain

__all__ = ["Explanation", "Link", "Symbol", "Weight", "explain"]
