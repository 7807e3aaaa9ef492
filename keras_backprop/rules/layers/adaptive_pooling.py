"""Adaptive pooling: o windows over s positions of an axis, window i from ⌊i·s/o⌋ up to ⌈(i+1)·s/o⌉; they may overlap.

Keras pools one axis after the other, which decides what happens to ties: each axis takes its first largest.
"""

import keras
import tensorflow as tf
from keras import layers

from keras_backprop.convolution_gradient import each
from keras_backprop.registry import backward_rule, forward_rule
from keras_backprop.rule import Gradients
from keras_backprop.rules.layers.pooling import positions


@forward_rule(layers.AdaptiveAveragePooling1D, layers.AdaptiveAveragePooling2D, layers.AdaptiveAveragePooling3D)
def adaptive_average_forward(op, inputs):
    """y = M·x along each axis, row i of M the mean over window i. (Keras pools at every position and keeps a few.)"""
    y = inputs
    for axis, size, windows in windows_of(op, inputs):
        M = tf.constant(means(size, windows), y.dtype)
        y = along(axis, y, len(windows), lambda rows, M=M: tf.matmul(M, rows))
    return y, {}


@backward_rule(layers.AdaptiveAveragePooling1D, layers.AdaptiveAveragePooling2D, layers.AdaptiveAveragePooling3D)
def adaptive_average(call, dy):
    """y = M·x along each axis        dx = Mᵀ·dy"""
    for axis, size, windows in windows_of(call.op, call.input):
        M = tf.constant(means(size, windows), dy.dtype)
        dy = along(axis, dy, size, lambda rows, M=M: tf.matmul(M, rows, transpose_a=True))
    return Gradients(dy)


def means(size, windows):
    """M: a row for each window, 1/k at its k positions. (A first axis of size 1 stands for all that is before.)"""
    return [[[(start <= p < end) / (end - start) for p in range(size)] for start, end in windows]]


@forward_rule(layers.AdaptiveMaxPooling1D, layers.AdaptiveMaxPooling2D, layers.AdaptiveMaxPooling3D)
def adaptive_max_forward(op, inputs):
    """y = max of x over each window, one axis after the other. Saved: `taken`, for each axis the place of the first largest."""
    y, taken = inputs, []
    for axis, _, windows in windows_of(op, inputs):
        width = max(end - start for start, end in windows)
        places = [[start + k if start + k < end else start for k in range(width)] for start, end in windows]
        seen = tf.gather(y, places, axis=axis)  # a narrow window shows its first number again
        starts = tf.reshape([start for start, _ in windows], [-1] + [1] * (len(inputs.shape) - axis - 1))
        taken.append(starts + tf.argmax(seen, axis + 1, output_type=tf.int32))
        y = tf.reduce_max(seen, axis + 1)
    return y, {"taken": taken}


@backward_rule(layers.AdaptiveMaxPooling1D, layers.AdaptiveMaxPooling2D, layers.AdaptiveMaxPooling3D)
def adaptive_max(call, dy):
    """y = max of x over each window        dx = Σ over the windows of dy where x was the first largest, else 0"""
    stages = zip(windows_of(call.op, call.input), call.saved["taken"], strict=True)
    for (axis, size, _), taken in reversed(list(stages)):
        dy = along(axis, dy, size, lambda rows, taken=taken, size=size: _put(rows, taken, size))
    return Gradients(dy)


def _put(rows, places, size):
    """The numbers of `rows` (before, o, behind) added up at their places along an axis of the given size."""
    before, _, behind = keras.ops.shape(rows)
    places = tf.reshape(places, tf.shape(rows))
    flat = (tf.range(before)[:, None, None] * size + places) * behind + tf.range(behind)
    put = tf.math.unsorted_segment_sum(tf.reshape(rows, [-1]), tf.reshape(flat, [-1]), before * size * behind)
    return tf.reshape(put, [before, size, behind])


def along(axis, dy, size, function):
    """`function` on dy as (what is before the axis, the axis, what is behind); afterwards the axis has the given size."""
    sizes = list(keras.ops.shape(dy))
    behind = tf.reduce_prod(sizes[axis + 1 :]) if sizes[axis + 1 :] else 1
    rows = function(tf.reshape(dy, [-1, sizes[axis], behind]))
    return tf.reshape(rows, [*sizes[:axis], size, *sizes[axis + 1 :]])


def windows_of(op, x):
    """For each spatial axis: the axis, its size, and (start, end) of its windows."""
    axes = positions(x, op.data_format)
    for axis, count in zip(axes, each(len(axes), op.output_size), strict=True):
        size = x.shape[axis]
        yield axis, size, [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
