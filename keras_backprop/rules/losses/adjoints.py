"""What losses are made of, on the way back: means, sums, and probabilities that are kept off 0 and 1."""

import keras
import tensorflow as tf


def mean_back(dy, x, axis=-1):
    """y = mean x over an axis (or several, or all: None)        dx = dy/k, of size 1 along the axes of the mean"""
    axes = range(len(x.shape)) if axis is None else [axis] if isinstance(axis, int) else axis
    axes = sorted(a % len(x.shape) for a in axes)
    sizes = [x.shape[a] if x.shape[a] is not None else tf.shape(x)[a] for a in axes]
    k = 1
    for size in sizes:
        k = k * size
    return sum_back(dy, x, axes) / tf.cast(k, x.dtype)


def sum_back(dy, x, axis=-1):
    """y = Σ x over an axis (or several, or all: None)        dx = dy, of size 1 along the axes of the sum"""
    axes = range(len(x.shape)) if axis is None else [axis] if isinstance(axis, int) else axis
    for a in sorted(a % len(x.shape) for a in axes):
        dy = tf.expand_dims(dy, a)
    return dy


def clipped(p, highest=None):
    """p kept between Keras's ε and 1 − ε, or the highest, and the adjoint dq -> dp: dq where p was not clipped, else 0.

    Where it was, dq may be infinite: in half precision 1/ε is, and 1 − ε is 1. NaN counts as clipped, as in TensorFlow.
    """
    epsilon = keras.backend.epsilon()
    highest = 1 - epsilon if highest is None else highest
    inside = tf.cast((p >= epsilon) & (p <= highest), p.dtype)
    return tf.clip_by_value(p, epsilon, highest), lambda dq: tf.math.multiply_no_nan(dq, inside)
