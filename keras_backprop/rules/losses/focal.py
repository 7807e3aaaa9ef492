"""Focal cross-entropies: examples that are right already count less."""

import keras
import tensorflow as tf
from keras import losses

from keras_backprop.registry import backward_rule
from keras_backprop.rule import Gradients
from keras_backprop.rules.losses.adjoints import clipped, mean_back, sum_back
from keras_backprop.rules.losses.crossentropy import normalised, smoothed_binary, smoothed_categorical


def power_and_slope(x, gamma):
    """xᵞ and its derivative γ·xᵞ⁻¹; where γ = 0 the derivative is 0 everywhere."""
    return tf.pow(x, gamma), (gamma * tf.pow(x, gamma - 1) if gamma else tf.zeros_like(x))


@backward_rule(losses.binary_focal_crossentropy, reads_logits=True)
def binary_focal_crossentropy(call, dy):
    """y = mean w·f·c, f = (1 − pₜ)ᵞ, pₜ = t·p + (1−t)(1−p), c the cross-entropy, w = t·α + (1−t)(1−α) or 1

    df/dp = −γ(1 − pₜ)ᵞ⁻¹·(2t − 1)        dc/dz = p − t where Keras computes c from logits, else dc/dp = (1−t)/(1−p) − t/p
    """
    t, p, *logits = call.inputs
    t, from_logits = smoothed_binary(t, call["label_smoothing"]), call["from_logits"]
    z = p if from_logits else logits[0] if logits else None
    p = tf.sigmoid(p) if from_logits else p
    if call["apply_class_balancing"]:
        dy = mean_back(dy, p, call["axis"]) * (t * call["alpha"] + (1 - t) * (1 - call["alpha"]))
    else:
        dy = mean_back(dy, p, call["axis"])
    factor, slope = power_and_slope(1 - (t * p + (1 - t) * (1 - p)), call["gamma"])
    if z is None:
        q, adjoint = clipped(p)
        error = -(t * tf.math.log(q) + (1 - t) * tf.math.log(1 - q))
        direct = adjoint((1 - t) / (1 - q) - t / q)
    else:
        error = tf.nn.sigmoid_cross_entropy_with_logits(t, z)
        direct = (tf.sigmoid(z) if logits else p) - t
    direct, dp = dy * factor * direct, dy * tf.math.multiply_no_nan(slope, error) * (1 - 2 * t)
    if from_logits:
        return Gradients(None, direct + dp * p * (1 - p))
    return Gradients(None, dp + direct) if z is None else Gradients(None, dp, direct)


@backward_rule(losses.categorical_focal_crossentropy)
def categorical_focal_crossentropy(call, dy):
    """y = −Σ α·t·(1 − q)ᵞ·log q, q = p/Σp clipped        dq = dy·α·t·(γ(1 − q)ᵞ⁻¹·log q − (1 − q)ᵞ/q)

    dp = (dq − Σ dq·q)/Σp, and with p = softmax(z): dz = p·(dp − Σ p·dp)
    """
    t, p = (tf.cast(x, dy.dtype) for x in call.inputs[:2])  # a list of α is of single precision, and so is y then
    axis, t = call["axis"], smoothed_categorical(t, call["label_smoothing"])
    p = tf.nn.softmax(p, axis=axis) if call["from_logits"] else p
    q, adjoint = normalised(p, axis)
    factor, slope = power_and_slope(1 - q, call["gamma"])
    slope = keras.ops.multiply(slope * tf.math.log(q) - factor / q, call["alpha"])
    dp = adjoint(sum_back(dy, p, axis) * t * slope)
    if call["from_logits"]:
        dp = p * (dp - tf.reduce_sum(p * dp, axis, keepdims=True))
    return Gradients(None, dp)
