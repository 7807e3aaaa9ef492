"""Layers that pad, crop and enlarge."""

import keras
import tensorflow as tf
from keras import layers

from keras_backprop import kernels
from keras_backprop.convolution_gradient import each
from keras_backprop.registry import pullback
from keras_backprop.rules.layers.pooling import positions


def inside(call, dy):
    """y = x with a border of zeros        dx = dy without the border"""
    return dy[tuple(slice(before, -after or None) for before, after in borders(call, call.op.padding))]


def outside(call, dy):
    """y = x without a border        dx = dy with a border of zeros"""
    return tf.pad(dy, borders(call, call.op.cropping))


def borders(call, sizes):
    """(before, after) for every axis."""
    pairs = dict(zip(spatial_axes(call), sizes if isinstance(sizes[0], tuple) else [sizes], strict=True))
    return [pairs.get(axis, (0, 0)) for axis in range(len(call.input.shape))]


def enlarge_back(call, dy):
    """y = x with every number repeated        dx = Σ dy over the copies        (interpolation: TensorFlow's adjoint kernel)"""
    if getattr(call.op, "interpolation", "nearest") != "nearest":
        return interpolate_back(call, dy)
    axes = spatial_axes(call)
    for axis, copies in zip(axes, each(len(axes), call.op.size), strict=True):
        sizes = list(keras.ops.shape(dy))
        behind = tf.reduce_prod(sizes[axis + 1 :]) if sizes[axis + 1 :] else 1
        sizes[axis] //= copies
        # One axis at a time, as rows: a reduction of several axes at once is many times slower on a CPU.
        dy = tf.reshape(tf.reduce_sum(tf.reshape(dy, [-1, copies, behind]), 1), sizes)
    return dy


def interpolate_back(call, dy):
    """y = A·x, the rows of A the weights of the interpolation        dx = Aᵀ·dy"""
    x = call.input
    if call.op.data_format == "channels_last":
        return kernels.resize_grad(x, dy, call.op.interpolation)
    x, dy = tf.transpose(x, [0, 2, 3, 1]), tf.transpose(dy, [0, 2, 3, 1])
    return tf.transpose(kernels.resize_grad(x, dy, call.op.interpolation), [0, 3, 1, 2])


def spatial_axes(call):
    return positions(call.input, getattr(call.op, "data_format", "channels_last"))


pullback(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D, inside, rowwise=True)
pullback(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D, outside, rowwise=True)
pullback(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D, enlarge_back, rowwise=True)
