"""Statistics that are composed of other operations: each is run as these, which are links with rules of their own."""

import math

import keras
import numpy as np
import tensorflow as tf
from keras import ops as k

from keras_backprop._keras import ops
from keras_backprop.registry import composition


def composed(key, definition):
    """Register an operation by what it is made of: `(op, call_arguments…) -> y`, written in `keras.ops`."""

    @composition(key)
    def run(record, op, /, *args, **kwargs):
        args, kwargs = keras.tree.map_structure(_as_tensor, (args, kwargs))
        return definition(op, *args, **kwargs)

    run.__name__ = key.__name__


def _as_tensor(x):
    return tf.convert_to_tensor(x) if isinstance(x, np.ndarray) else x


def average(op, x, weights=None):
    """y = Σ w·x / Σ w"""
    if weights is None:
        return k.mean(x, axis=op.axis)
    if op.axis is None or len(weights.shape) == len(x.shape):
        return k.sum(x * weights, axis=op.axis) / k.sum(weights, axis=op.axis)
    shape = [1] * len(x.shape)
    shape[op.axis] = -1
    return k.sum(x * k.reshape(weights, shape), axis=op.axis) / k.sum(weights)


composed(ops.Average, average)


def correlation_coefficients(op, x):
    """y = C / (s·sᵀ), the covariances C over the standard deviations s, held within −1 and 1"""
    centred = x - k.mean(x, axis=-1, keepdims=True)
    covariance = k.matmul(centred, k.transpose(centred)) / (x.shape[-1] - 1)
    deviations = k.sqrt(k.diagonal(covariance))
    return k.clip(covariance / k.outer(deviations, deviations), -1.0, 1.0)


composed(ops.Corrcoef, correlation_coefficients)


def peak_signal_to_noise(op, a, b):
    """y = 20·log₁₀ m − 10·log₁₀ mean (a − b)²"""
    return 20 * math.log10(op.max_val) - 10 * k.log10(k.mean(k.square(a - b)))


composed(ops.PSNR, lambda op, x1, x2: peak_signal_to_noise(op, x1, x2))
