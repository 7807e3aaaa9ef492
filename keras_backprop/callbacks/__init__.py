"""Callbacks for `fit`."""

from keras_backprop.callbacks.backward_monitor import BackwardMonitor
from keras_backprop.callbacks.example_recorder import ExampleRecorder
from keras_backprop.callbacks.gradient_check import GradientCheck
from keras_backprop.callbacks.locate_nan import LocateNaN
from keras_backprop.callbacks.stop_at_error import StopAtError
from keras_backprop.watch.faults import NonFiniteError

__all__ = ["BackwardMonitor", "ExampleRecorder", "GradientCheck", "LocateNaN", "NonFiniteError", "StopAtError"]
