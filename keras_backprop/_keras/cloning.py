"""`keras.models.clone_model`, which gives most clones a class of Keras."""

import functools
from collections.abc import Callable
from typing import Any

from keras.src.models import cloning as _cloning


def clones_made_by(cls: type, make: Callable[[Any], Any]) -> None:
    """From now on, clones of models of the package are of the package, and compiled as the model is.

    Keras makes a plain `Sequential` or `Functional` of a subclass, and compiles it with what the subclass was compiled with. Ours
    are plain as well: a clone of a subclass of `BackpropSequential` is a `BackpropSequential`.

    Args:
        cls: the class that all models of the package have in common.
        make: function: the clone that Keras makes, if it is not of `cls` -> one of the package with its layers.
    """
    for name in ("_clone_sequential_model", "_clone_functional_model"):
        setattr(_cloning, name, _of_a_class(getattr(_cloning, name), cls, make))


def _of_a_class(clone_by_keras, cls, make):
    @functools.wraps(clone_by_keras)
    def clone(model, *args, **kwargs):
        if not isinstance(model, cls):
            return clone_by_keras(model, *args, **kwargs)
        cloned = clone_by_keras(_uncompiled(model), *args, **kwargs)
        cloned = cloned if isinstance(cloned, cls) else make(cloned)
        if model.compiled:
            cloned.compile_from_config(model.get_compile_config())
        return cloned

    return clone


def _uncompiled(model):
    """The same model for Keras to look at, as if it were not compiled: it would compile what `make` takes apart again."""
    seen = object.__new__(type(model))
    vars(seen).update(vars(model), compiled=False)
    return seen
