"""The plain attributes of a layer, a regulariser or a loss, such as a slope or strides: they may be others at each call of it."""

import contextlib

import numpy as np


def settings_of(op):
    """The public attributes of what is called that are numbers, texts or tuples: a dict, name -> value."""
    attributes = getattr(op, "__dict__", {})
    return {name: value for name, value in attributes.items() if type(value) in _PLAIN and name[0] != "_"}


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
    attributes, written = vars(op) if settings else {}, []  # past Keras, which would track what is assigned
    # By identity: somebody may have put a tensor there, which cannot be asked whether it is equal.
    changed = {name: attributes[name] for name, value in settings.items() if attributes.get(name, value) is not value}
    attributes.update({name: settings[name] for name in changed})
    try:
        yield written
    finally:
        written += [name for name, value in settings.items() if attributes.get(name, value) is not value]
        attributes.update({name: value for name, value in changed.items() if name not in written})
