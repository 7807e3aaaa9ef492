"""What Python keeps while a step is traced: counts, lists, iterators, random generators. In stock Keras a second trace runs,
which draws and counts once more."""

import collections
import contextlib
import functools
import pickle
import random
import sys
import types
import warnings
from typing import Any

import keras
import numpy as np

from keras_backprop import _keras

LARGEST = 100
"""Of a dict, a set or an array with more items than that only their number is looked at, of a list the last ones too."""

MOST = 5_000
"""So many things are looked into at most, those first that are the nearest to the model."""


def state_of_python(model: Any) -> tuple:
    """The states of Python's and NumPy's random numbers, and what `kept_in_python` finds. Something that can be compared."""
    return pickle.dumps((random.getstate(), np.random.get_state(legacy=False))), kept_in_python(model)


def kept_in_python(model: Any) -> list:
    """What code of others than Keras keeps: numbers, such as a count of calls, texts, how long a list is and what is in it, where
    an iterator and a random generator are.

    It is looked for in the attributes of layers, losses, metrics and the optimizer, of their classes, and of objects among them;
    and in the globals and closures that their methods, and functions among them, name. Nothing is called.

    Args:
        model: a Keras model, or a layer.

    Returns:
        list of numbers, texts and bytes.
    """
    things = _keras.layers_in(model)
    if isinstance(model, keras.Model):
        things += (
            _keras.losses_as_given(_keras.compiled_loss(model)) + _keras.metrics_as_given(model) + [model.optimizer]
        )
    return _Found(things).states


class _Found:
    """The states that are found from some things; of each thing once."""

    def __init__(self, things):
        self.states: list = []
        self._open: Any = collections.deque()
        self._seen: dict = {}  # with the things themselves, lest another gets the id of one that is gone
        self._look(things)
        while self._open:
            self._look_into(self._open.popleft())

    def _look(self, things):
        for x in things:
            if isinstance(x, (int, float, str, np.generic)):
                self.states.append(x)
            elif id(x) not in self._seen and len(self._seen) < MOST:
                self._seen[id(x)] = x
                self._open.append(x)

    def _look_into(self, x):
        if isinstance(x, (random.Random, np.random.Generator, np.random.RandomState)):
            with contextlib.suppress(Exception):  # that of the system has no state
                self.states.append(pickle.dumps(x))
        elif isinstance(x, np.ndarray):
            self.states.append(x.tobytes() if x.size <= LARGEST and x.dtype.kind in "biufc" else x.size)
        elif isinstance(x, (list, tuple, set, dict, collections.deque)):
            self.states.append(len(x))
            if isinstance(x, (list, tuple)):
                self._look(x[-LARGEST:])
            elif len(x) <= LARGEST:
                self._look(x.values() if isinstance(x, dict) else x)
        elif isinstance(x, types.GeneratorType):
            if x.gi_frame is not None and not x.gi_running:
                self._look([x.gi_frame.f_lasti, *x.gi_frame.f_locals.values()])
        elif type(x).__module__ in ("builtins", "itertools") and hasattr(x, "__next__"):
            self._look_into_iterator(x)
        elif isinstance(x, (staticmethod, classmethod)):
            self._look([x.__func__])
        elif isinstance(x, property):
            self._look([x.fget])
        elif isinstance(x, types.MethodType):
            self._look([x.__func__, x.__self__])
        elif isinstance(x, functools.partial):
            self._look([x.func, *x.args, *x.keywords.values()])
        elif isinstance(x, types.FunctionType):
            self._look_into_function(x)
        elif isinstance(x, type):
            if _is_of_others(x):
                self._look(value for name, value in _attributes(x).items() if name not in _OF_EVERY_CLASS)
        elif _is_of_others(type(x)):
            self._look(value for name, value in _attributes(x).items() if _is_own(x, name))
            self._look(type(x).__mro__)
        elif isinstance(x, keras.layers.Layer) or type(x).__module__.startswith("keras."):
            self._look(value for value in _attributes(x).values() if isinstance(value, types.FunctionType))

    def _look_into_iterator(self, x):
        """By what it would be pickled as, which tells where it is."""
        with contextlib.suppress(Exception), warnings.catch_warnings():  # not all can be
            warnings.simplefilter("ignore")  # iterators of `itertools` will not be for ever
            self._look(x.__reduce__()[1:])

    def _look_into_function(self, function):
        if not _is_of_others(function):
            return
        self._look(_contents(cell) for cell in function.__closure__ or ())
        self._look([*_attributes(function).values(), function.__defaults__, function.__kwdefaults__])
        names = _names_in(function.__code__)
        self._look(function.__globals__[name] for name in names if name in function.__globals__)


def _attributes(x):
    return dict(getattr(x, "__dict__", {}))


def _contents(cell):
    try:
        return cell.cell_contents
    except ValueError:  # nothing yet
        return None


def _is_of_others(x):
    """Whether a class or a function is of somebody whose code may count: no library that is known for it that it does not."""
    return str(x.__module__).partition(".")[0] not in _LIBRARIES


_LIBRARIES = {*sys.stdlib_module_names, "keras", "keras_hub", "keras_backprop", "numpy", "tensorflow"} - {"__main__"}
_OF_EVERY_CLASS = {*vars(type("Empty", (), {})), "__firstlineno__", "__static_attributes__"}


def _is_own(x, name):
    """Whether an attribute is its user's; of models, which keep more than other layers, none that is private."""
    if not isinstance(x, keras.layers.Layer):
        return True
    private = name.startswith("_") if isinstance(x, keras.Model) else name in _names_of_every_layer()
    return not private and name != "built"


@functools.cache
def _names_of_every_layer():
    return frozenset(vars(keras.layers.Layer()))


@functools.cache
def _names_in(code):
    """The names of globals in a function, and in those within it, a list."""
    inner = [one for one in code.co_consts if isinstance(one, types.CodeType)]
    return [*code.co_names, *(name for one in inner for name in _names_in(one))]
