"""Callbacks for `fit`."""

from keras_backprop.callbacks.gradient_check import GradientCheck
from keras_backprop.callbacks.locate_nan import LocateNaN
from keras_backprop.callbacks.stop_at_error import StopAtError
from keras_backprop.watch.faults import NonFiniteError

__all__ = ["GradientCheck", "LocateNaN", "NonFiniteError", "StopAtError"]
