"""Statistics that are composed of other operations: each is run as these, which are links with rules of their own."""

import functools
import math

import keras
import numpy as np
import tensorflow as tf
from keras import ops as k

from keras_backprop._keras import ops
from keras_backprop.registry import composition
from keras_backprop.rule import MissingRuleError


def composed(key, definition):
    """Register an operation by what it is made of: `(op, call_arguments…) -> y`, written in `keras.ops`."""

    @composition(key)
    def run(record, op, *args, **kwargs):
        body = functools.partial(definition, op)
        args, kwargs = keras.tree.map_structure(_as_tensor, (args, kwargs))
        return record.run_as(body, body, body, op.name, *args, **kwargs)

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


@composition(ops.Median, ops.Quantile, ops.Percentile)
def quantile(record, op, x, q=0.5):
    """y = the number of which a share q of x is smaller: between two neighbours of the sorted x

    q is a number or an array; of a tensor the value must be known when the step is compiled.
    """
    percent = isinstance(op, ops.Percentile)
    value = tf.get_static_value(k.convert_to_tensor(q, keras.config.floatx()) if percent else tf.convert_to_tensor(q))
    if value is None:
        raise MissingRuleError(
            f"'{op.name}' ({type(op).__name__}): the backward pass needs the value of `q` when the step is compiled. "
            "Received: a tensor that is computed in the step. Pass a number or an array."
        )
    value = value / np.asarray(100, value.dtype) if percent else value
    places = np.float64(value) * (math.prod(x.shape[a] for a in _axes(op, x)) - 1)
    body = functools.partial(_sorted_and_picked, op, places)
    return record.run_as(body, body, body, op.name, x)


def _axes(op, x):
    rank = len(x.shape)
    if op.axis is None:
        return list(range(rank))
    return [a % rank for a in (op.axis if isinstance(op.axis, (list, tuple)) else [op.axis])]


def _sorted_and_picked(op, places, x):
    axes, method = _axes(op, x), getattr(op, "method", "linear")
    others = [i for i in range(len(x.shape)) if i not in axes]
    count = math.prod(x.shape[i] for i in axes)
    sizes = [-1 if x.shape[i] is None else x.shape[i] for i in others]
    rows = k.sort(k.reshape(k.transpose(x, others + axes), [*sizes, count]), axis=-1)
    picked = [_between(rows, place, count - 1, method) for place in places.ravel()]
    if op.keepdims:
        picked = [k.expand_dims(y, axes) for y in picked]
    return picked[0] if places.ndim == 0 else k.stack(picked, axis=0)


def _between(rows, place, last, method):
    low, high = math.floor(place), math.ceil(place)
    if method == "linear":
        low = max(high - 1, 0)
        high = min(low + 1, last)
        share = high - place
        return rows[..., high] * (1 - share) + rows[..., low] * share
    if method == "midpoint":
        return 0.5 * (rows[..., low] + rows[..., high])
    return rows[..., {"lower": low, "higher": high, "nearest": round(place)}[method]]


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
