"""What a layer, a regulariser or a loss is set to, such as a slope, strides or its bias: it may be another at each call of it."""

import contextlib

import keras
import numpy as np


def settings_of(op):
    """The attributes of what is called, and of the layers among them, that are numbers, texts, tuples, weights or layers.

    Returns:
        list of triples: the dict of all attributes of one of these, past Keras, which would track what is assigned; a name in
        it; and the value.
    """
    attributes = getattr(op, "__dict__", {})
    inner = [vars(value) for value in attributes.values() if isinstance(value, keras.layers.Layer)]
    return [
        (of_one, name, value)
        for of_one in (attributes, *inner)
        for name, value in of_one.items()
        if _is_setting(name, value)
    ]


def _is_setting(name, value):
    """What is public, and all weights and layers: Keras has a kernel in a private one."""
    if type(value) in _PLAIN:
        return name[0] != "_"
    return isinstance(value, (keras.Variable, keras.layers.Layer))


_PLAIN = {bool, int, float, str, tuple, type(None), np.float32, np.float64, np.int32, np.int64}


@contextlib.contextmanager
def set_as_then(settings):
    """For the duration of the block, what was called has the settings of an earlier time; what the block writes stays.

    Args:
        settings: those of `settings_of`, then.

    Yields:
        A list, which has those of the settings that the block has written when it has ended.
    """
    changed = _changed(settings)
    now, written = [attributes[name] for attributes, name, _ in changed], []
    for attributes, name, value in changed:
        attributes[name] = value
    try:
        yield written
    finally:
        written += _changed(settings)
        for (attributes, name, then), value in zip(changed, now, strict=True):
            if attributes.get(name, value) is then:
                attributes[name] = value


def _changed(settings):
    """Those that are others now. By identity: a tensor that somebody has put there cannot be asked whether it is equal."""
    return [
        (attributes, name, value) for attributes, name, value in settings if attributes.get(name, value) is not value
    ]
