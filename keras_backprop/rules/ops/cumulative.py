"""Operations whose every number depends on those before it: sums and products so far, differences."""

import tensorflow as tf

from keras_backprop._keras import ops
from keras_backprop.registry import backward_rule, pullback
from keras_backprop.rule import Gradients
from keras_backprop.rules.layers.reshaping import reshape_back


def _flat(call, x):
    return (tf.reshape(x, [-1]), 0) if call["axis"] is None else (x, call["axis"])


@backward_rule(ops.Cumsum, ops.Nancumsum)
def cumulative_sum(call, dy):
    """yᵢ = Σⱼ≤ᵢ xⱼ        dxᵢ = Σⱼ≥ᵢ dyⱼ        (NaN counts as 0 in nancumsum and gets no gradient)"""
    dy, axis = _flat(call, dy)
    return Gradients(_not_replaced(call, reshape_back(call, tf.cumsum(dy, axis=axis, reverse=True))))


@backward_rule(ops.Cumprod, ops.Nancumprod)
def cumulative_product(call, dy):
    """yᵢ = ∏ⱼ≤ᵢ xⱼ        dxᵢ = Σⱼ≥ᵢ dyⱼ·yⱼ / xᵢ        (NaN counts as 1 in nancumprod and gets no gradient)

    Where xᵢ = 0 TensorFlow takes 0.
    """
    x, axis = _flat(call, tf.cast(call.input, call.output.dtype))
    back = tf.cumsum(dy * call.output, axis=axis, reverse=True)
    return Gradients(_not_replaced(call, reshape_back(call, tf.math.divide_no_nan(back, x))))


def _not_replaced(call, dx):
    """dx, and 0 where the operation put a number in the place of NaN or infinity."""
    if isinstance(call.op, (ops.Nancumsum, ops.Nancumprod)):
        return tf.where(tf.math.is_finite(call.input), dx, tf.zeros([], dx.dtype))
    return dx


def difference_back(call, dy):
    """yᵢ = xᵢ₊₁ − xᵢ        dxᵢ = dyᵢ₋₁ − dyᵢ        n times over"""
    rank = len(dy.shape)
    axis = call["axis"] % rank
    for _ in range(call["n"]):
        dy = tf.pad(dy, [[1, 0] if i == axis else [0, 0] for i in range(rank)]) - tf.pad(
            dy, [[0, 1] if i == axis else [0, 0] for i in range(rank)]
        )
    return dy


pullback(ops.Diff, difference_back)


def trapezoid_back(call, dy):
    """y = Σ wᵢ·(xᵢ + xᵢ₊₁)/2        dxᵢ = dy·(wᵢ₋₁ + wᵢ)/2        with the widths w of the intervals"""
    x, dtype = call.input, dy.dtype
    axis, rank = call["axis"] % len(x.shape), len(x.shape)
    widths = tf.cast(call["dx"], dtype)
    if call["x"] is not None:
        places = tf.cast(call["x"], dtype)
        last = places if len(places.shape) == 1 else tf.experimental.numpy.moveaxis(places, call["axis"], -1)
        widths = last[..., 1:] - last[..., :-1]
    moved = tf.experimental.numpy.moveaxis(x, axis, -1)
    inner = tf.broadcast_to(
        dy[..., None] * widths * 0.5, tf.concat([tf.shape(moved)[:-1], [tf.shape(moved)[-1] - 1]], 0)
    )
    rows = [[0, 0]] * (rank - 1)
    return tf.experimental.numpy.moveaxis(tf.pad(inner, [*rows, [1, 0]]) + tf.pad(inner, [*rows, [0, 1]]), -1, axis)


pullback(ops.Trapezoid, trapezoid_back)
