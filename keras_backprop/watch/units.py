"""Where activations pass no gradient on: units that are dead, and values that are saturated."""

import keras
import tensorflow as tf

from keras_backprop.rule import Operation
from keras_backprop.scopes import spellings

FLAT = 0.01
"""A value is saturated where the local derivative is less than this part of its largest value."""

_ZERO_WHERE_DEAD = ("relu", "relu6")

_DERIVATIVES = {
    "sigmoid": lambda y: 4 * y * (1 - y),
    "tanh": lambda y: 1 - tf.square(y),
    "softsign": lambda y: tf.square(1 - tf.abs(y)),
    "hard_sigmoid": lambda y: tf.cast((y > 0) & (y < 1), y.dtype),
    "hard_tanh": lambda y: tf.cast(tf.abs(y) < 1, y.dtype),
    "relu6": lambda y: tf.cast(y < 6, y.dtype),
}
"""Of the output, relative to the largest. (Where relu6 is zero it is not saturated but, perhaps, dead.)"""


def can_die(call):
    """Whether a link is an activation whose units are dead where they are zero for all examples."""
    return _name(call) in _ZERO_WHERE_DEAD


def saturation(call):
    """A function of the output, a tensor -> booleans, true where it is saturated; None for links that do not saturate."""
    derivative = _DERIVATIVES.get(_name(call))
    return None if derivative is None else lambda y: derivative(y) < FLAT


def _name(call):
    """The name of the activation that a link is, in any of its spellings; None for other links."""
    op = call.op
    for name in (*_ZERO_WHERE_DEAD, *_DERIVATIVES):
        keys = _SPELLINGS.setdefault(name, None) or _spelled(name)
        if isinstance(op, Operation):
            if op.operation.type in keys:
                return name
        elif any(op is key or (isinstance(key, type) and type(op) is key) for key in keys):
            return name if not isinstance(op, keras.layers.ReLU) else _of_layer(op)
    return None


_SPELLINGS: dict = {}


def _spelled(name):
    _SPELLINGS[name] = spellings(getattr(keras.activations, name))
    return _SPELLINGS[name]


def _of_layer(layer):
    """`keras.layers.ReLU`, which leaky and capped ones are too."""
    if layer.negative_slope or layer.threshold:
        return None
    return {None: "relu", 6.0: "relu6"}.get(layer.max_value)
