"""Penalties on weights and on activities: y = R(x), a scalar."""

import keras
import tensorflow as tf
from keras import regularizers

from keras_backprop.registry import backward_rule
from keras_backprop.rule import Gradients
from keras_backprop.rules.ops.normalization import normalize_back


@backward_rule(regularizers.L1)
def l1(call, dy):
    """y = λ₁·Σ|x|        dx = dy·λ₁·sign(x)"""
    x = call.input
    return Gradients(dy * tf.cast(call.op.l1, x.dtype) * tf.sign(x))


@backward_rule(regularizers.L2)
def l2(call, dy):
    """y = λ₂·Σx²        dx = dy·2λ₂·x"""
    x = call.input
    return Gradients(dy * tf.cast(2 * call.op.l2, x.dtype) * x)


@backward_rule(regularizers.L1L2)
def l1_l2(call, dy):
    """y = λ₁·Σ|x| + λ₂·Σx²        dx = dy·(λ₁·sign(x) + 2λ₂·x)"""
    if not call.op.l1:
        return l2(call, dy)
    dx = l1(call, dy).inputs[0]
    return Gradients(dx + l2(call, dy).inputs[0] if call.op.l2 else dx)


@backward_rule(regularizers.OrthogonalRegularizer)
def orthogonal(call, dy):
    """y = c·Σ |G| off the diagonal, G = X̂·X̂ᵀ, X̂ the rows of x (or its columns) over their lengths, c = λ/2 over the pairs

    dG = dy·c·sign(G) off the diagonal, symmetric        dX̂ = 2·dG·X̂        dx = (dX̂ − X̂·Σ X̂·dX̂)/‖x‖
    """
    x, by_rows = call.input, call.op.mode == "rows"
    axis = 1 if by_rows else 0
    unit = keras.ops.normalize(x, axis)
    size = x.shape[1 - axis]
    gram = tf.matmul(unit, unit, transpose_a=not by_rows, transpose_b=by_rows)
    factor = dy * tf.cast(call.op.factor, x.dtype) / (size * (size - 1.0))  # twice λ/2 over the size·(size − 1)/2 pairs
    dgram = 2 * factor * tf.linalg.set_diag(tf.sign(gram), tf.zeros([size], x.dtype))
    dunit = tf.matmul(dgram, unit) if by_rows else tf.matmul(unit, dgram)
    return Gradients(normalize_back(x, unit, dunit, axis, 2, keras.backend.epsilon()))
