"""What the cells' steps are made of: products that dropout may thin out, and activations with their derivatives."""

import functools
import inspect

import keras
import tensorflow as tf

from keras_backprop.rule import Call
from keras_backprop.scopes import rule_of
from keras_backprop.shapes import reshape_like
from keras_backprop.weight_gradients import Contraction, Joined


def weight(cell, name):
    return tf.cast(tf.convert_to_tensor(getattr(cell, name)), cell.compute_dtype)


def is_elementwise(function):
    rule = _rule(function)
    return rule is not None and (rule.derivative is not None or rule.given)


def derivative(function, z, y):
    """The local derivative dy/dz of y = function(z), from the function's own rule."""
    rule, call = _rule(function), _call(function, z, y)
    return rule.backward(call, tf.ones_like(y)).inputs[0] if rule.derivative is None else rule.derivative(call)


def times_derivative(function, z, y, dy):
    """dy·(dy/dz), by the fused kernel of the function where it has one."""
    return _rule(function).backward(_call(function, z, y), dy).inputs[0]


def _rule(function):
    return rule_of(function, function, getattr(function, "__name__", ""))


def _call(function, z, y):
    return Call(function, (z,), (y,), {} if isinstance(function, keras.Operation) else _defaults(function))


@functools.cache
def _defaults(function):
    parameters = inspect.signature(function).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty}


# A product whose left factor dropout may thin out differently for each gate: x·W, or [(x∘m₁)·W₁, (x∘m₂)·W₂, …].


def times(x, W, mask=None):
    if mask is None:
        return _matmul(x, W)
    if not isinstance(mask, list):
        return _matmul(x * mask, W)
    return tf.concat([_matmul(x * m, w) for m, w in zip(mask, tf.split(W, len(mask), 1), strict=True)], -1)


def times_transposed(delta, W, mask=None):
    """The adjoint of `times`: dx."""
    if mask is None:
        return _matmul(delta, W, transpose_b=True)
    if not isinstance(mask, list):
        return _matmul(delta, W, transpose_b=True) * mask
    deltas, Ws = tf.split(delta, len(mask), -1), tf.split(W, len(mask), 1)
    return tf.add_n([m * _matmul(d, w, transpose_b=True) for m, d, w in zip(mask, deltas, Ws, strict=True)])


def product(x, delta, mask=None):
    """The gradient of `times` by W, over all time steps: an unsummed product."""
    if mask is None:
        return Contraction("i,o->io", x, delta, batch=1)
    if not isinstance(mask, list):
        return Contraction("i,o->io", x * mask, delta, batch=1)
    deltas = tf.split(delta, len(mask), -1)
    return Joined(*(Contraction("i,o->io", x * m, d, batch=1) for m, d in zip(mask, deltas, strict=True)))


def _matmul(x, W, transpose_b=False):
    """x·W over the last axis of x; all rows of a sequence in one product."""
    if len(x.shape) == 2:
        return tf.matmul(x, W, transpose_b=transpose_b)
    rows = tf.matmul(tf.reshape(x, [-1, W.shape[1 if transpose_b else 0]]), W, transpose_b=transpose_b)
    return reshape_like(rows, x, range(len(x.shape) - 1), [rows.shape[-1]])
