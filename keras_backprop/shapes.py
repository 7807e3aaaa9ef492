"""Arithmetic of shapes of which some sizes are unknown while a function is traced."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from keras_backprop import _tensorflow


def sizes_of(x: Any, start: int = 0) -> list:
    """The sizes of x from an axis on: ints where they are known, scalar tensors elsewhere."""
    return [tf.shape(x)[i] if x.shape[i] is None else x.shape[i] for i in range(start, len(x.shape))]


def reshape_like(v: Any, x: Any, axes: Iterable | None = None, tail: Iterable = ()) -> Any:
    """v with the sizes that x has along `axes`, all by default, followed by those of `tail`.

    A single unknown size is left to TensorFlow (-1), which then knows as much of the result's shape as it knew of x.
    """
    axes = range(len(x.shape)) if axes is None else list(axes)
    known = [x.shape[axis] for axis in axes]
    if known.count(None) <= 1:
        return tf.reshape(v, [*(-1 if size is None else size for size in known), *tail])
    sizes = tf.shape(x)
    return tf.reshape(
        v, [*(sizes[axis] if size is None else size for axis, size in zip(axes, known, strict=True)), *tail]
    )


def summed_to(v: Any, x: Any, other: Any) -> Any:
    """v summed over the axes along which x was broadcast.

    Args:
        v: a tensor of the shape that x and `other` have together.
        x, other: tensors that were broadcast against each other.

    Returns:
        A tensor of x's shape.
    """
    if _tensorflow.have_same_sizes(v, x):
        return v
    if None in (x.shape.rank, other.shape.rank) or _may_be_broadcast(x.shape, other.shape):
        return summed_at_run_time(v, x, other)
    return summed_by_shape(v, x, other)


def summed_at_run_time(v: Any, x: Any, other: Any) -> Any:
    """`summed_to`, where only the sizes at run time tell the axes."""
    axes = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(x), s1=tf.shape(other)).r0
    return tf.ensure_shape(tf.reshape(tf.reduce_sum(v, axes), tf.shape(x)), x.shape)


def summed_by_shape(v: Any, x: Any, other: Any) -> Any:
    """`summed_to`, where the axes are those that x does not have, and those that are known to be of size 1."""
    extra = max(other.shape.rank - x.shape.rank, 0)
    ones = [extra + i for i, size in enumerate(x.shape) if size == 1 and v.shape[extra + i] != 1]
    summed = tf.reduce_sum(v, ones, keepdims=True) if ones else v
    return tf.reduce_sum(summed, list(range(extra))) if extra else summed


def _may_be_broadcast(shape, other):
    """Whether an axis of unknown size is broadcast if its size is 1."""
    aligned = zip(reversed(shape.as_list()), reversed(other.as_list()), strict=False)
    return any(size is None and against != 1 for size, against in aligned)
