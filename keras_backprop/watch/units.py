"""Where activations pass no gradient on: units that are dead, and values that are saturated."""

import math

import keras

from keras_backprop.rule import Operation
from keras_backprop.scopes import spellings

FLAT = 0.01
"""A value is saturated where the local derivative is less than this part of its largest value."""

_ZERO_WHERE_DEAD = ("relu", "relu6")

_LIMITS = {
    "sigmoid": ((1 - math.sqrt(1 - FLAT)) / 2, (1 + math.sqrt(1 - FLAT)) / 2),  # where 4·y·(1 − y) = FLAT
    "tanh": (-math.sqrt(1 - FLAT), math.sqrt(1 - FLAT)),  # 1 − y² = FLAT
    "softsign": (math.sqrt(FLAT) - 1, 1 - math.sqrt(FLAT)),  # (1 − |y|)² = FLAT
    "hard_sigmoid": (0.0, 1.0),
    "hard_tanh": (-1.0, 1.0),
    "relu6": (-math.inf, 6.0),
}
"""Of the output: between them the local derivative is more than that. Where relu6 is zero it is dead, perhaps, not saturated."""


def can_die(call):
    """Whether a link is an activation whose units are dead where they are zero for all examples."""
    return _name(call) in _ZERO_WHERE_DEAD


def saturation(call):
    """Two numbers, outside of which the output is saturated, and at them; None for links that do not saturate."""
    return _LIMITS.get(_name(call))


def _name(call):
    """The name of the activation that a link is, in any of its spellings; None for other links."""
    op = call.op
    for name in (*_ZERO_WHERE_DEAD, *_LIMITS):
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
