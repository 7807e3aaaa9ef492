"""Check explicit gradients against the tape and against finite differences."""

from keras_backprop.check.gradients import check_gradients, check_layer
from keras_backprop.check.report import Report

__all__ = ["Report", "check_gradients", "check_layer"]
