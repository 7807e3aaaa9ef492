"""What is seen of a training: statistics step by step, where the first value that is no number comes from, findings in words."""

from keras_backprop.watch.history import History
from keras_backprop.watch.statistics import Statistics

__all__ = ["History", "Statistics"]
