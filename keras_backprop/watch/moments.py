"""Figures of one tensor, inside the step: sums, extremes, counts. Norms and means are made of them when they are read.

Each figure is an operation or two on its own tensor, while it is in the cache, or on several small ones that are joined
(`joined.py`).
"""

import numpy as np
import tensorflow as tf

EDGES = np.logspace(-10, 4, 29)
"""The bins of histograms, of magnitudes: two for each power of ten from 1e-10 to 1e4, one below and one above."""

BINS = len(EDGES) + 1


def moment(name, x):
    """A figure of a tensor.

    Args:
        name: "squares" Σx²/2 (as TensorFlow's kernel has it), "mean", "spread" Σ(x − mean)²/2, "max", "min", "zeros", "finite"
            (counts), "count", "true" (how many of booleans), "value" (of a scalar),
            "histogram" (counts of |x| between `EDGES`), "alive" and "alive by unit" (units, along the last axis, that are not
            zero for all examples), "by step" (Σx² for each index of the first axis).
        x: tensor of floating-point numbers, of single or double precision.

    Returns:
        A tensor of x's dtype, a scalar or a vector.
    """
    return _MOMENTS[name](x)


def joined_moments(names, tensors):
    """Figures of several tensors of the same shape.

    Args:
        names: list of names, of `JOINED`.
        tensors: list of n tensors of floating-point numbers, of single or double precision.

    Returns:
        A dict, name -> tensor of shape `(n,)`.
    """
    x = tf.stack(tensors)
    inner = tf.constant([*range(1, len(x.shape))])  # one for all, for each is an operation
    means = tf.raw_ops.Mean(input=x, axis=inner, keep_dims=True) if {"mean", "spread"} & set(names) else None

    def squares(x):
        return tf.reduce_sum(tf.square(x), inner) / 2

    def how_many(condition):
        return tf.reduce_sum(tf.cast(condition, x.dtype), inner)

    made = {
        "squares": lambda: squares(x),
        "mean": lambda: tf.reshape(means, [-1]),
        "spread": lambda: squares(x - means),
        "max": lambda: tf.reduce_max(x, inner),
        "min": lambda: tf.reduce_min(x, inner),
        "zeros": lambda: how_many(tf.equal(x, tf.zeros((), x.dtype))),
        "finite": lambda: how_many(tf.math.is_finite(x)),
    }
    return {name: made[name]() for name in names}


JOINED = {"squares", "mean", "spread", "max", "min", "zeros", "finite"}
"""What `joined_moments` knows."""


def _count(x):
    return tf.cast(tf.size(x), x.dtype)


def _how_many(condition, dtype):
    return tf.reduce_sum(tf.cast(condition, dtype))


def _histogram(x):
    magnitudes = tf.reshape(tf.abs(x), [1, -1])
    magnitudes = tf.where(tf.math.is_finite(magnitudes), magnitudes, tf.cast(np.inf, x.dtype))
    bins = tf.searchsorted(tf.constant(EDGES[None], x.dtype), magnitudes, side="right")[0]
    return tf.math.unsorted_segment_sum(tf.ones_like(magnitudes[0]), bins, BINS)


def _alive(x):
    """1 for each unit that is not zero for all examples, else 0."""
    return tf.cast(tf.reduce_any(tf.not_equal(x, 0), list(range(len(x.shape) - 1))), x.dtype)


_MOMENTS = {
    "squares": tf.nn.l2_loss,
    "mean": tf.reduce_mean,
    "max": tf.reduce_max,
    "min": tf.reduce_min,
    "zeros": lambda x: _how_many(tf.equal(x, 0), x.dtype),
    "finite": lambda x: _how_many(tf.math.is_finite(x), x.dtype),
    "count": _count,
    "histogram": _histogram,
    "alive": lambda x: tf.reduce_sum(_alive(x)),
    "alive by unit": _alive,
    "by step": lambda x: tf.reduce_sum(tf.square(x), list(range(1, len(x.shape)))),
    "true": lambda x: _how_many(x, tf.float32),
    "value": lambda x: x,
}
