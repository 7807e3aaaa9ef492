"""The weight gradient of a table from which rows are taken."""

import math
from typing import Any

import tensorflow as tf

from keras_backprop.weight_gradients import gram
from keras_backprop.weight_gradients.base import WeightGradient, like, only_kept


class Lookup(WeightGradient):
    """The gradient of the rows of a table: dE[k] = Σ dy over the places where row k was looked up.

    Args:
        indices: integer tensor, shape `(n, …)`.
        dy: shape `(n, …, *row)`.
        rows: int, the number of rows of the table.
    """

    def __init__(self, indices: Any, dy: Any, rows: Any) -> None:
        self.indices, self.dy, self.rows = indices, dy, rows

    def total(self) -> Any:
        return self._total(self.dy)

    def _total(self, dy):
        row = dy.shape[len(self.indices.shape) :].as_list()
        return tf.IndexedSlices(
            tf.reshape(dy, [-1, *row]), tf.reshape(self.indices, [-1]), tf.constant([self.rows, *row], tf.int32)
        )

    def per_example(self) -> Any:
        n, row = tf.shape(self.indices)[0], self.dy.shape[len(self.indices.shape) :].as_list()
        indices = tf.cast(tf.reshape(self.indices, [n, -1]), tf.int32)
        places = indices + self.rows * tf.range(n)[:, None]
        summed = tf.math.unsorted_segment_sum(tf.reshape(self.dy, [-1, *row]), tf.reshape(places, [-1]), n * self.rows)
        return tf.reshape(summed, [n, self.rows, *row])

    def squared_norms(self) -> Any:
        # ‖Σₜ eₖ₍ₜ₎·dyₜᵀ‖² = Σₜₛ [kₜ = kₛ]·⟨dyₜ,dyₛ⟩
        n, row = tf.shape(self.indices)[0], self.dy.shape[len(self.indices.shape) :].as_list()
        indices = tf.reshape(self.indices, [n, -1])
        dy = tf.reshape(self.dy, [n, -1, math.prod(row)])
        same = indices[:, :, None] == indices[:, None, :]
        return gram.squared_norms(lambda dtype: tf.cast(same, dtype), dy)

    def weighted_total(self, c: Any) -> Any:
        shape = [-1] + [1] * (len(self.dy.shape) - 1)
        return self._total(self.dy * tf.reshape(tf.cast(c, self.dy.dtype), shape))

    def inner_products(self, V: Any) -> Any:
        rows = tf.gather(tf.cast(V, self.dy.dtype), self.indices)
        return tf.reduce_sum(rows * self.dy, axis=list(range(1, len(self.dy.shape))))

    def only(self, kept: Any) -> "Lookup":
        return like(self, Lookup(self.indices, only_kept(self.dy, kept), self.rows))

    def as_type(self, dtype: Any) -> "Lookup":
        return like(self, Lookup(self.indices, tf.cast(self.dy, dtype), self.rows))
