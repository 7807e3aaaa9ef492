"""Pooling layers: the largest, or the mean, of each window."""

import keras
import tensorflow as tf
from keras import layers

from keras_backprop import kernels
from keras_backprop.convolution_gradient import Window, each
from keras_backprop.registry import backward_rule
from keras_backprop.rule import Gradients


@backward_rule(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D, rowwise=True)
def max_pool(call, dy):
    """y = max of x in a window        dx = Σ over the windows of dy where x was the first largest, else 0"""
    window, size = window_of(call)
    x, y, dy = (window.lift(value) for value in (call.input, call.output, dy))
    dx = kernels.max_pool_grad(x, y, dy, size, window.lifted(window.strides), window.padding.upper())
    return Gradients(window.lower(dx))


@backward_rule(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D, rowwise=True)
def average_pool(call, dy):
    """y = mean of x in a window of k numbers        dx = Σ over the windows of dy/k        (padding is not counted in k)"""
    window, size = window_of(call)
    sizes, dy = window.sizes(call.input), window.lift(dy)
    dx = kernels.average_pool_grad(sizes, dy, size, window.lifted(window.strides), window.padding.upper())
    return Gradients(window.lower(dx))


def window_of(call):
    """The window of a pooling layer or operation, and its size."""
    rank = len(call.input.shape) - 2
    strides = call["pool_size"] if call["strides"] is None else call["strides"]
    window = Window(rank, strides, call["padding"], data_format=call["data_format"])
    return window, window.lifted(each(rank, call["pool_size"]))


@backward_rule(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D, rowwise=True)
def global_max(call, dy):
    """y = max x over the positions        dx = dy·[x = y]/(number of x that equal y)"""
    x, axes = call.input, positions(call.input, call.op.data_format)
    taken = tf.equal(x, with_positions(call, call.output))
    dy = with_positions(call, dy)
    dy = dy / tf.reduce_sum(tf.cast(taken, x.dtype), axes, keepdims=True)
    return Gradients(tf.where(taken, dy, tf.zeros([], dy.dtype)))


@backward_rule(
    layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D, rowwise=True
)
def global_average(call, dy):
    """y = Σ x/k over k positions        dx = dy/k        With a mask the positions that it hides do not count: dx = 0 there."""
    x, mask, dy = call.input, call.arguments.get("mask"), with_positions(call, dy)
    axes = positions(x, call.op.data_format)
    if mask is not None:
        shown = tf.expand_dims(tf.cast(mask, tf.bool), 3 - axes[0])
        dx = tf.where(shown, dy / tf.reduce_sum(tf.cast(shown, dy.dtype), axes, keepdims=True), 0)
        return Gradients(dx, *[None] * (len(call.inputs) - 1))
    k = tf.reduce_prod([keras.ops.shape(x)[axis] for axis in axes])
    wide = dy.dtype if dy.dtype.size > 2 else tf.float32  # Keras averages half precision in single precision
    dx = tf.cast(tf.cast(dy, wide) / tf.cast(k, wide), dy.dtype)
    return Gradients(tf.broadcast_to(dx, tf.shape(x)))


def positions(x, data_format):
    """The spatial axes of x."""
    first = 1 if (data_format or keras.config.image_data_format()) == "channels_last" else 2
    return list(range(first, first + len(x.shape) - 2))


def with_positions(call, value):
    """A value of y's shape with spatial axes of size 1, whether or not the layer kept them."""
    sizes = list(keras.ops.shape(call.input))
    for axis in positions(call.input, call.op.data_format):
        sizes[axis] = 1
    return tf.reshape(value, sizes)
