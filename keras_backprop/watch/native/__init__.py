"""Figures of several tensors by one operation of our own, where a C compiler is at hand."""

from keras_backprop.watch.native.figures import Measured, measures, parts, vector_of

__all__ = ["Measured", "measures", "parts", "vector_of"]
