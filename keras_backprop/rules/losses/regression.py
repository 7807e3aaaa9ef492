"""Losses that measure a distance: a mean over the last axis of a function of a − t, or of a and t.

k is the number of values of the mean. Targets and predictions may be broadcast against each other.
"""

import keras
import tensorflow as tf
from keras import losses

from keras_backprop.registry import backward_rule
from keras_backprop.rule import Gradients
from keras_backprop.rules.losses.adjoints import clipped, mean_back, sum_back
from keras_backprop.rules.ops.normalization import normalize_back


@backward_rule(losses.mean_squared_error, broadcasts=True)
def mean_squared_error(call, dy):
    """y = mean (a − t)²        da = dy·2(a − t)/k"""
    t, a = call.inputs[:2]
    error = a - t
    return Gradients(None, 2 * mean_back(dy, error) * error)


@backward_rule(losses.mean_absolute_error, broadcasts=True)
def mean_absolute_error(call, dy):
    """y = mean |a − t|        da = dy·sign(a − t)/k"""
    t, a = call.inputs[:2]
    error = a - t
    return Gradients(None, mean_back(dy, error) * tf.sign(error))


@backward_rule(losses.mean_absolute_percentage_error, broadcasts=True)
def mean_absolute_percentage_error(call, dy):
    """y = 100·mean |a − t|/max(|t|, ε)        da = dy·100·sign(a − t)/max(|t|, ε)/k"""
    t, a = call.inputs[:2]
    error = a - t
    scale = tf.maximum(tf.abs(t), keras.backend.epsilon())
    return Gradients(None, 100 * mean_back(dy, error) * tf.sign(error) / scale)


@backward_rule(losses.mean_squared_logarithmic_error, broadcasts=True)
def mean_squared_logarithmic_error(call, dy):
    """y = mean (log(a⁺ + 1) − log(t⁺ + 1))², a⁺ = max(a, ε)        da = dy·2(log … − log …)/(a⁺ + 1)/k where a ≥ ε"""
    t, a = (tf.cast(x, dy.dtype) for x in call.inputs[:2])  # Keras's ε is of its floatx, and so is y if that is wider
    epsilon = tf.cast(keras.ops.convert_to_tensor(keras.backend.epsilon()), dy.dtype)
    shifted = tf.maximum(a, epsilon) + 1
    difference = tf.math.log(shifted) - tf.math.log(tf.maximum(t, epsilon) + 1)
    slope = tf.cast(a >= epsilon, a.dtype) / shifted
    return Gradients(None, 2 * mean_back(dy, difference) * difference * slope)


@backward_rule(losses.huber, broadcasts=True)
def huber(call, dy):
    """y = mean of ½e² where |e| ≤ δ, else δ|e| − ½δ², e = a − t        da = dy·e/k, e kept between −δ and δ"""
    t, a = call.inputs[:2]
    error = a - t
    delta = tf.cast(tf.convert_to_tensor(call["delta"], a.dtype), a.dtype)
    return Gradients(None, mean_back(dy, error) * tf.clip_by_value(error, -delta, delta))


@backward_rule(losses.log_cosh, broadcasts=True)
def log_cosh(call, dy):
    """y = mean log cosh(a − t)        da = dy·tanh(a − t)/k"""
    t, a = call.inputs[:2]
    error = a - t
    return Gradients(None, mean_back(dy, error) * tf.tanh(error))


@backward_rule(losses.poisson, broadcasts=True)
def poisson(call, dy):
    """y = mean a − t·log(a + ε)        da = dy·(1 − t/(a + ε))/k"""
    t, a = call.inputs[:2]
    slope = 1 - t / (a + keras.backend.epsilon())
    return Gradients(None, mean_back(dy, slope) * slope)


@backward_rule(losses.kl_divergence, broadcasts=True)
def kl_divergence(call, dy):
    """y = Σ t·log(t/a), both kept between ε and 1        da = −dy·t/a where a was not clipped"""
    (t, _), (a, adjoint) = (clipped(x, 1) for x in call.inputs[:2])
    return Gradients(None, adjoint(-dy[..., None] * t / a))


@backward_rule(losses.cosine_similarity, broadcasts=True)
def cosine_similarity(call, dy):
    """y = −Σ t̂·â, t̂ = t/‖t‖, â = a/‖a‖        dâ = −dy·t̂        da = (dâ − â·Σ â·dâ)/‖a‖"""
    t, a = call.inputs[:2]
    axis = call["axis"]
    unit_t, unit_a = keras.ops.normalize(t, axis), keras.ops.normalize(a, axis)
    dunit = -sum_back(dy, unit_t * unit_a, axis) * unit_t
    return Gradients(None, normalize_back(a, unit_a, dunit, axis, 2, keras.backend.epsilon()))
