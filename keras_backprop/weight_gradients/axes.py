"""Axes of the factors of a product, merged and summed, with static sizes where they are known."""

import math

import tensorflow as tf

from keras_backprop.shapes import sizes_of


def last_sizes(x, count):
    """The sizes of the last `count` axes."""
    return sizes_of(x, len(x.shape) - count)


def as_rows(x, count):
    """(n, t…, i…) -> (n·t…, ∏i), untouched where it is so already."""
    if count == 1 and len(x.shape) == 2:
        return x
    sizes = last_sizes(x, count)
    return tf.reshape(x, [-1, product_of(sizes)])


def product_of(sizes):
    return math.prod(sizes) if all(isinstance(size, int) for size in sizes) else tf.reduce_prod(sizes)


def sum_leading(x, keep):
    """Sum over all but the last `keep` axes, by the kernel of the bias gradient where it applies."""
    if keep == 1 and len(x.shape) >= 2:
        return tf.raw_ops.BiasAddGrad(out_backprop=x)
    return tf.reduce_sum(x, axis=list(range(len(x.shape) - keep)))


def joined_shape(*parts):
    """A shape from pieces that are lists of ints, TensorShapes or shape tensors; static where it can be."""
    if not any(tf.is_tensor(part) or any(tf.is_tensor(s) for s in part) for part in parts):
        return [s for part in parts for s in part]
    return tf.concat(
        [
            part if tf.is_tensor(part) else tf.stack([tf.cast(s, tf.int32) for s in part])
            for part in parts
            if tf.is_tensor(part) or len(part)
        ],
        0,
    )
