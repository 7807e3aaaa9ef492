"""Arithmetic of shapes of which some sizes are unknown while a function is traced."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf


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
