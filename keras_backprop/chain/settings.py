"""What a layer, a regulariser or a loss is set to, such as a slope, strides or its bias: it may be another at each call of it."""

import contextlib
import operator

import keras
import numpy as np


def settings_of(op):
    """The attributes of what is called that are numbers, texts, tuples or weights.

    Returns:
        dict, name -> value: those of the layers among its attributes too, as `cell.use_bias`.
    """
    attributes = getattr(op, "__dict__", {})
    settings = _plain(attributes)
    for name, inner in attributes.items():
        if isinstance(inner, keras.layers.Layer):
            settings |= {f"{name}.{of_inner}": value for of_inner, value in _plain(vars(inner)).items()}
    return settings


def _plain(attributes):
    """Those that are public, and all weights: Keras has a kernel in a private one."""
    return {
        name: value
        for name, value in attributes.items()
        if (type(value) in _PLAIN and name[0] != "_") or isinstance(value, keras.Variable)
    }


_PLAIN = {bool, int, float, str, tuple, type(None), np.float32, np.float64, np.int32, np.int64}


@contextlib.contextmanager
def set_as_then(op, settings):
    """For the duration of the block, what was called has the settings of an earlier time; what the block writes stays.

    Args:
        op: what was called.
        settings: dict, name -> value.

    Yields:
        A list, which has the names of what the block has written when it has ended.
    """
    places, written = {name: _place(op, name) for name in settings}, []

    # By identity: somebody may have put a tensor there, which cannot be asked whether it is equal.
    def others():
        return {
            name: attributes[last]
            for name, (attributes, last) in places.items()
            if attributes.get(last, settings[name]) is not settings[name]
        }

    def put(values):
        for name, value in values.items():
            attributes, last = places[name]
            attributes[last] = value

    changed = others()
    put({name: settings[name] for name in changed})
    try:
        yield written
    finally:
        written += others()
        put({name: value for name, value in changed.items() if name not in written})


def _place(op, name):
    """Where a setting is: the dict of attributes, past Keras, which would track what is assigned, and the name in it."""
    path, _, last = name.rpartition(".")
    return vars(operator.attrgetter(path)(op) if path else op), last
