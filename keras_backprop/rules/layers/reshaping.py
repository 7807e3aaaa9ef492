"""Layers that move numbers and change none: the gradient moves back."""

import tensorflow as tf
from keras import layers

from keras_backprop import _keras
from keras_backprop.registry import pullback


def reshape_back(call, dy):
    """y = reshape(x)        dx = reshape(dy)"""
    return _reshaped(dy, call.input.shape.as_list(), lambda: tf.shape(call.input))


def _reshaped(dy, sizes, shape):
    if sizes.count(None) <= 1:
        return tf.reshape(dy, [-1 if size is None else size for size in sizes])
    return tf.reshape(dy, shape())


def flatten_back(call, dy):
    """y = reshape(x), channels first: of x with its channels moved to the end        dx = reshape(dy), moved back"""
    x = call.input
    rank = len(x.shape)
    if not _keras.is_channels_first(call.op) or rank <= 2:
        return reshape_back(call, dy)
    order = [0, *range(2, rank), 1]
    moved = _reshaped(dy, [x.shape[axis] for axis in order], lambda: tf.gather(tf.shape(x), order))
    return tf.transpose(moved, [0, rank - 1, *range(1, rank - 1)])


def permute_back(call, dy):
    """y = xᵀ        dx = dyᵀ by the inverse permutation"""
    order = [0, *call.op.dims]
    return tf.transpose(dy, [order.index(axis) for axis in range(len(order))])


pullback(layers.Reshape, reshape_back, rowwise=True, joins=True)
pullback(layers.Flatten, flatten_back, rowwise=True, joins=True)
pullback(layers.Permute, permute_back, rowwise=True, joins=True)
pullback(layers.RepeatVector, lambda call, dy: tf.reduce_sum(dy, axis=1), rowwise=True, joins=True)
