"""What Python keeps while a step is traced: counts and random generators. In stock Keras a second trace runs, which draws and
counts once more."""

import functools
import pickle
import random
from typing import Any

import keras
import numpy as np

from keras_backprop import _keras


def state_of_python(layer: Any) -> tuple:
    """The states of Python's and NumPy's random numbers, and what `kept_in_python` finds. Something that can be compared."""
    return pickle.dumps((random.getstate(), np.random.get_state(legacy=False))), kept_in_python(layer)


def kept_in_python(layer: Any) -> list:
    """What the layers of others than Keras in a layer, itself included, keep in plain attributes: numbers, such as a count of
    calls, texts, and the states of random generators. Something that can be compared."""
    return [
        (name, state)
        for one in _keras.layers_in(layer)
        if type(one).__module__.partition(".")[0] not in ("keras", "keras_hub", "keras_backprop")
        for name, x in vars(one).items()
        if _is_own(one, name) and (state := _comparable(x)) is not None
    ]


def _is_own(layer, name):
    """Whether an attribute is the layer's own; of models, which keep more than other layers, none that is private."""
    private = name.startswith("_") if isinstance(layer, keras.Model) else name in _names_of_every_layer()
    return not private and name != "built"


@functools.cache
def _names_of_every_layer():
    return frozenset(vars(keras.layers.Layer()))


def _comparable(x):
    if isinstance(x, (random.Random, np.random.Generator, np.random.RandomState)):
        return pickle.dumps(x)
    return x if isinstance(x, (int, float, str, np.generic)) else None
