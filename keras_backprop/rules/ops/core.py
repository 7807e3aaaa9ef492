"""`keras.ops` that convert: dtype, identity, stopping a gradient."""

import tensorflow as tf

from keras_backprop._keras import ops
from keras_backprop.registry import not_differentiable, pullback

pullback(
    ops.Cast, ops.ConvertToTensor, ops.Array, ops.Copy,
    lambda call, dy: tf.cast(dy, call.input.dtype),
)  # fmt: skip


def saturate_cast_back(call, dy):
    """y = x, held within the range of the new dtype        dx = dy within that range, else 0"""
    x = call.input
    inside = tf.abs(x) <= tf.cast(min(dy.dtype.max, x.dtype.max), x.dtype)
    return tf.where(inside, tf.cast(dy, x.dtype), tf.zeros([], x.dtype))


pullback(ops.SaturateCast, saturate_cast_back)
not_differentiable(ops.StopGradient)
not_differentiable(
    ops.View, because="It reads the bits of numbers as other numbers. Use `keras.ops.cast` to convert them."
)
