"""The state of a model at one moment, to go back to."""

import math

import keras
import tensorflow as tf

from keras_backprop._tensorflow import value_of

LARGEST = 2**24
"""A model of more bytes takes too long to copy, compared with the epochs that may share a call."""


def size(model):
    """The bytes of all that a `Snapshot` copies."""
    return sum(
        math.prod(v.shape) * tf.as_dtype(keras.backend.standardize_dtype(v.dtype)).size for v in variables_of(model)
    )


class Snapshot:
    """Copies of all variables that training changes: weights, metrics, random seeds, the optimizer's, and what looks on.

    Args:
        model: a Keras model.
        others: list of `tf.Variable` that its steps know besides.
    """

    def __init__(self, model, others=()):
        noted = [v for observer in getattr(model, "_observers", ()) for v in getattr(observer, "variables", ())]
        every = {id(inner): (v, inner) for v in (*others, *noted, *variables_of(model)) for inner in [_inner(v)]}
        self._values = [(v, read(inner)) for v, inner in every.values()]

    def restore(self):
        for variable, value in self._values:
            variable.assign(value)


def read(variable):
    """The value of a Keras or TensorFlow variable, a tensor."""
    value = _inner(variable)
    return value_of(value) if isinstance(value, tf.Variable) else tf.identity(value)


def _inner(variable):
    return variable.value if isinstance(variable, keras.Variable) else variable


def variables_of(model):
    """All variables that training changes, a list, each once."""
    gradients = getattr(model, "compiled_gradients", None)
    every = (
        *model.variables,
        *model.metrics_variables,
        *getattr(model.optimizer, "variables", ()),
        *getattr(gradients, "variables", ()),
    )
    return list({id(v): v for v in every}.values())
