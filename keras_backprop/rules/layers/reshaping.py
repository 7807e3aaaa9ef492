"""Layers that move numbers and change none: the gradient moves back."""

import tensorflow as tf
from keras import layers

from keras_backprop import _keras
from keras_backprop.registry import pullback
from keras_backprop.shapes import reshape_like


def reshape_back(call, dy):
    """y = reshape(x)        dx = reshape(dy)"""
    return reshape_like(dy, call.input)


def flatten_back(call, dy):
    """y = reshape(x), channels first: of x with its channels moved to the end        dx = reshape(dy), moved back"""
    x = call.input
    rank = len(x.shape)
    if not _keras.is_channels_first(call.op) or rank <= 2:
        return reshape_back(call, dy)
    order = [0, *range(2, rank), 1]
    return tf.transpose(reshape_like(dy, x, order), [0, rank - 1, *range(1, rank - 1)])


def permute_back(call, dy):
    """y = xᵀ        dx = dyᵀ by the inverse permutation"""
    order = [0, *call.op.dims]
    return tf.transpose(dy, [order.index(axis) for axis in range(len(order))])


pullback(layers.Reshape, reshape_back, rowwise=True, joins=True)
pullback(layers.Flatten, flatten_back, rowwise=True, joins=True)
pullback(layers.Permute, permute_back, rowwise=True, joins=True)
pullback(layers.RepeatVector, lambda call, dy: tf.reduce_sum(dy, axis=1), rowwise=True, joins=True)
