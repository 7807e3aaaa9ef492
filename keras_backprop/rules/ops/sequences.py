"""Evenly spaced numbers between two ends, which are tensors: yᵢ = start + tᵢ·(stop − start)."""

import keras
import numpy as np
from keras import ops as k

from keras_backprop._keras import ops
from keras_backprop.rules.ops.statistics import composed


def linspace(op, start, stop):
    """y = start·(1 − t) + stop·t for t from 0 to 1"""
    y = _spaced(op, start, stop)
    if not op.retstep:
        return y
    return y, (stop - start) / (op.num - 1 if op.endpoint else op.num)


def logspace(op, start, stop):
    """y = baseᶻ for z spaced evenly"""
    return k.power(float(op.base), _spaced(op, start, stop))


def geomspace(op, start, stop):
    """y = ±eᶻ for z spaced evenly between the logarithms of the ends"""
    return k.exp(_spaced(op, k.log(k.abs(start)), k.log(k.abs(stop)))) * k.sign(start)


def _spaced(op, start, stop):
    dtype = next(keras.backend.standardize_dtype(x.dtype) for x in (start, stop) if hasattr(x, "dtype"))
    start, stop = (k.convert_to_tensor(x, dtype) for x in (start, stop))
    start, stop = k.broadcast_to(start, (start + stop).shape), k.broadcast_to(stop, (start + stop).shape)
    axis = op.axis % (len(start.shape) + 1)
    t = np.linspace(0, 1, op.num, endpoint=op.endpoint)
    t = k.cast(np.reshape(t, [-1 if i == axis else 1 for i in range(len(start.shape) + 1)]), start.dtype)
    start, stop = k.expand_dims(start, axis), k.expand_dims(stop, axis)
    return start * (1 - t) + stop * t


composed(ops.Linspace, linspace)
composed(ops.Logspace, logspace)
composed(ops.Geomspace, geomspace)
