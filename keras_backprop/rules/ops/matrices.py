"""Operations on diagonals and triangles of matrices."""

import tensorflow as tf

from keras_backprop._keras import ops
from keras_backprop.registry import pullback
from keras_backprop.rules.layers.reshaping import reshape_back


def diagonal_back(call, dy, offset, axis1=0, axis2=1):
    """y = the diagonal of x        dx = dy on the diagonal, else 0"""
    rank = len(call.input.shape)
    first, second = axis1 % rank, axis2 % rank
    rows, columns = tf.shape(call.input)[first], tf.shape(call.input)[second]
    if dy.shape[-1] == 0:
        return tf.zeros_like(call.input)
    dx = tf.linalg.diag(dy, k=offset, num_rows=rows, num_cols=columns)
    return tf.experimental.numpy.moveaxis(dx, (-2, -1), (first, second))


def diag_back(call, dy):
    """y = a matrix with x on its diagonal        dx = the diagonal of dy        (of a matrix: the other way round)"""
    if len(call.input.shape) == 2:
        return diagonal_back(call, dy, call["k"])
    return tf.linalg.diag_part(dy, k=call["k"])


pullback(ops.Diag, diag_back)
pullback(ops.Diagflat, lambda call, dy: reshape_back(call, tf.linalg.diag_part(dy, k=call["k"])))
pullback(ops.Diagonal, lambda call, dy: diagonal_back(call, dy, call["offset"], call["axis1"], call["axis2"]))


def trace_back(call, dy):
    """y = Σ xᵢᵢ        dx = dy on the diagonal, else 0"""
    rank, offset = len(call.input.shape), call["offset"]
    first, second = call["axis1"] % rank, call["axis2"] % rank
    rows, columns = tf.shape(call.input)[first], tf.shape(call.input)[second]
    on = tf.range(rows)[:, None] == tf.range(columns)[None, :] - offset
    dx = tf.where(on, dy[..., None, None], tf.zeros([], dy.dtype))
    return tf.experimental.numpy.moveaxis(dx, (-2, -1), (first, second))


pullback(ops.Trace, trace_back)


def triangle(dy, k, lower):
    """dy below (or above) the k-th diagonal, else 0."""
    if isinstance(k, int) and (k >= 0 if lower else k <= 0):
        return tf.linalg.band_part(dy, *((-1, k) if lower else (-k, -1)))
    i, j = tf.range(tf.shape(dy)[-2])[:, None], tf.range(tf.shape(dy)[-1])[None, :]
    return tf.where(i >= j - k if lower else i <= j - k, dy, tf.zeros([], dy.dtype))


pullback(ops.Tril, lambda call, dy: triangle(dy, call["k"], lower=True))
pullback(ops.Triu, lambda call, dy: triangle(dy, call["k"], lower=False))


def vander_back(call, dy):
    """yᵢₚ = xᵢᵖ        dxᵢ = Σₚ dyᵢₚ·p·xᵢᵖ⁻¹"""
    x, n = call.input, tf.shape(dy)[-1]
    powers = tf.cast(tf.range(n) if call["increasing"] else tf.range(n - 1, -1, -1), dy.dtype)
    return tf.reduce_sum(dy * powers * tf.pow(x[..., None], tf.maximum(powers - 1, 0)), -1)


pullback(ops.Vander, vander_back)
