"""Figures of tensors by operations of our own, where a C compiler is at hand."""

from keras_backprop.watch.native.figures import Measured, columns_of, measures, vector_of

__all__ = ["Measured", "columns_of", "measures", "vector_of"]
