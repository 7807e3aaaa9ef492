"""Where TensorFlow runs an operation eagerly."""

from typing import Any

import tensorflow as tf
from tensorflow.python import pywrap_tfe

from keras_backprop import _keras

_PLACES_OF_KIND = {"TFE_Py_FastPathExecute": 1, "TFE_Py_Execute": 2}
"""What runs an operation, and which of its arguments is the operation's type. Inputs and attributes stand from the fourth on."""


def executed_by(execute: Any) -> Any:
    """A context: each operation that this thread runs eagerly is run by a function.

    Args:
        execute: function (`run`, the type of the operation, its inputs and attributes, flat) -> what `run()` returns.
    """
    return _keras.replaced(
        pywrap_tfe, **{name: _replaced(name, place, execute) for name, place in _PLACES_OF_KIND.items()}
    )


def _replaced(name, place, execute):
    standing = _keras.standing(pywrap_tfe, name)
    return lambda *given: execute(lambda: standing(*given), tf.compat.as_str(given[place]), _flat(given[3:]))


def _flat(given):
    return [x for one in given for x in (one if isinstance(one, (list, tuple)) else (one,))]
