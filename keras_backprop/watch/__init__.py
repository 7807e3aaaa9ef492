"""What observers note of the backward pass while `fit` runs: statistics, step by step, and a history of them."""

from keras_backprop.watch.history import History
from keras_backprop.watch.statistics import Statistics

__all__ = ["History", "Statistics"]
