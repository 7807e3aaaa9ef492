"""Gradients that are tensors or `tf.IndexedSlices`: their sum, and in another dtype."""

from typing import Any

import tensorflow as tf


def add(gradients: Any) -> Any:
    """The sum of gradients that are tensors or `tf.IndexedSlices`. Slices stay slices as long as all are."""
    if len(gradients) == 1:
        return gradients[0]
    if all(isinstance(g, tf.IndexedSlices) for g in gradients):
        return tf.IndexedSlices(
            tf.concat([g.values for g in gradients], 0),
            tf.concat([tf.cast(g.indices, tf.int64) for g in gradients], 0),
            gradients[0].dense_shape,
        )
    return tf.add_n([tf.convert_to_tensor(g) for g in gradients])


def cast(x: Any, dtype: Any) -> Any:
    """A gradient, a tensor or `tf.IndexedSlices`, in another dtype."""
    if x.dtype == dtype:
        return x
    if isinstance(x, tf.IndexedSlices):
        return tf.IndexedSlices(tf.cast(x.values, dtype), x.indices, x.dense_shape)
    return tf.cast(x, dtype)
