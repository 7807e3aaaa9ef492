"""`keras.models.clone_model`, which gives most clones a class of Keras."""

import functools
from collections.abc import Callable
from typing import Any

from keras.src.models import cloning as _cloning

from keras_backprop._keras.standing_in import replaced


def clones_made_by(cls: type, make: Callable[[Any], Any]) -> None:
    """From now on, clones of models of a class are of that class, and compiled as the model is.

    Keras makes a plain `Sequential` or `Functional` of a subclass, and compiles it with what the subclass was compiled with.

    Args:
        cls: class of models.
        make: function: the clone that Keras makes, if it is not of the class -> one of the class with its layers.
    """
    for name in ("_clone_sequential_model", "_clone_functional_model"):
        setattr(_cloning, name, _of_a_class(getattr(_cloning, name), cls, make))


def _of_a_class(clone_by_keras, cls, make):
    @functools.wraps(clone_by_keras)
    def clone(model, *args, **kwargs):
        if not isinstance(model, cls):
            return clone_by_keras(model, *args, **kwargs)
        with replaced(model, get_compile_config=dict):
            cloned = clone_by_keras(model, *args, **kwargs)
        cloned = cloned if isinstance(cloned, cls) else make(cloned)
        if model.compiled:
            cloned.compile_from_config(model.get_compile_config())
        return cloned

    return clone
