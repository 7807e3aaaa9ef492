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
    and in the globals and closures that their methods, and functions among them, name. What cannot be looked at is passed over.

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
            # Attributes may be computed, by whatever code, and other threads may write to what is looked at.
            with contextlib.suppress(Exception):
                self._look(_within(self._open.popleft()))

    def _look(self, things):
        for x in things:
            if isinstance(x, (int, float, str, bytes, np.generic)):
                self.states.append(x)
            elif id(x) not in self._seen and len(self._seen) < MOST:
                self._seen[id(x)] = x
                self._open.append(x)


@functools.singledispatch
def _within(x):
    """What is to be looked at of something: numbers, texts and bytes that tell its state, and further things. An iterable."""
    cls = type(x)
    if cls.__module__ in ("builtins", "itertools"):
        return _place(x) if hasattr(cls, "__next__") else ()
    if _is_of_others(cls):
        return [*(value for name, value in vars(x).items() if _is_own(x, name)), *cls.__mro__]
    if cls.__module__.partition(".")[0] == "keras":
        return [value for value in vars(x).values() if isinstance(value, _CALLED) or _is_of_others(type(value))]
    return ()


_CALLED = (types.FunctionType, types.MethodType, functools.partial)


def _place(iterator):
    """Where an iterator is: what it would be pickled as tells it. Those of `itertools` cannot be from Python 3.14 on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they will not be
        return iterator.__reduce__()[1:]


@_within.register(random.Random)
@_within.register(np.random.Generator)
@_within.register(np.random.RandomState)
def _(generator):
    return [pickle.dumps(generator)]


@_within.register
def _(array: np.ndarray):
    return [array.tobytes() if array.size <= LARGEST and array.dtype.kind in "biufc" else array.size]


@_within.register(list)
@_within.register(tuple)
def _(items):
    return [len(items), *items[-LARGEST:]]


@_within.register(set)
@_within.register(dict)
@_within.register(collections.deque)
def _(items):
    values = items.values() if isinstance(items, dict) else items
    return [len(items), *(values if len(items) <= LARGEST else ())]


@_within.register
def _(generator: types.GeneratorType):
    frame = generator.gi_frame
    return [] if frame is None or generator.gi_running else [frame.f_lasti, *frame.f_locals.values()]


@_within.register(staticmethod)
@_within.register(classmethod)
def _(method):
    return [method.__func__]


@_within.register
def _(computed: property):
    return [computed.fget]


@_within.register
def _(method: types.MethodType):
    return [method.__func__, method.__self__]


@_within.register
def _(partial: functools.partial):
    return [partial.func, *partial.args, *partial.keywords.values()]


@_within.register
def _(cell: types.CellType):
    return [cell.cell_contents]


@_within.register
def _(function: types.FunctionType):
    if not _is_of_others(function):
        return []
    named = [function.__globals__[name] for name in _names_in(function.__code__) if name in function.__globals__]
    options = function.__defaults__, function.__kwdefaults__
    return [*(function.__closure__ or ()), *vars(function).values(), *options, *named]


@_within.register
def _(cls: type):
    return [value for name, value in vars(cls).items() if name not in _OF_EVERY_CLASS] if _is_of_others(cls) else []


def _is_of_others(x):
    """Whether a class or a function is of somebody whose code may count: no library that is known for it that it does not."""
    return str(x.__module__).partition(".")[0] not in _LIBRARIES


_LIBRARIES = {*sys.stdlib_module_names, "keras", "keras_hub", "keras_backprop", "numpy", "tensorflow"}
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
