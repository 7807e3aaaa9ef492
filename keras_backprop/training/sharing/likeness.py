"""Whether two models are alike in everything that the trace of their step can depend on.

Not by their configurations, which do not tell of everything: all that can be reached from the model, its optimizer, its loss and
its metrics is written down, attribute by attribute, in the order in which it is found. Two models with equal descriptions differ
in the values of their variables and in names. What is not Keras's or this package's own (a class, a function of a user's, a
closure) cannot be described, for nobody knows what it depends on.
"""

import types
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras, _tensorflow, registry

LARGEST_CONSTANT = 2**16
"""So many bytes an array may have that is written down."""


class NotComparableError(Exception):
    """Something that a step may depend on cannot be described."""


class Description:
    """All that a step may depend on.

    Args:
        model: a compiled model that is built.
        batch: nested `tf.TypeSpec`, of what the step is given.

    Attributes:
        words: tuple, equal for models that are alike.
        variables: list of `keras.Variable`, all of them, in the order in which they were found.

    Raises:
        NotComparableError: the model cannot be compared with another.
    """

    def __init__(self, model, batch):
        if _keras.finds_by_name(model.optimizer):
            raise NotComparableError("weight decay that finds weights by their names")
        self.variables: list = []
        self._words: list = [*_surroundings(), str(batch)]
        parts = batch if isinstance(batch, (tuple, list)) else [batch]  # of x alone Keras makes no tuple
        if any(isinstance(part, dict) for part in parts):
            self._words += [x.name for x in model.inputs]
        self._open: list = [model]
        self._kinds: dict = {}
        numbers: dict = {}
        while self._open:
            self._describe(self._open.pop(), numbers)
        self.words = tuple(self._words)

    def _describe(self, x, numbers):
        kind = type(x)
        self._words.append(kind)
        if kind in _PLAIN:
            self._words.append(repr(x))  # 0.0 is equal to -0.0, and 1 to True
        elif isinstance(x, type) or kind in _FIXED:
            self._words.append(x)
        elif kind in _FUNCTIONS:
            self._words.append(_known_function(x))
        elif isinstance(x, (np.ndarray, np.generic, tf.Tensor)):
            self._words.append(_numbers_of(x))
        elif id(x) in numbers:
            self._words.append(numbers[id(x)][0])
        else:
            numbers[id(x)] = len(numbers), x  # kept, so that no `id` is used again
            if isinstance(x, keras.Variable):
                self.variables.append(x)
            parts = _parts_of(x, kind)
            if kind not in self._kinds:
                self._kinds[kind] = _Kind(kind)
            self._words.append(_Form(tuple(parts), self._kinds[kind]))
            self._open.extend(reversed(parts.values()))


def _parts_of(x, kind):
    """What a thing consists of, a dict."""
    if isinstance(x, dict):
        return dict(x)
    if isinstance(x, (list, tuple)):
        return dict(enumerate(x))
    if isinstance(x, (set, frozenset)) and all(isinstance(one, str) for one in x):
        return dict(enumerate(sorted(x)))
    if isinstance(x, keras.initializers.Initializer):  # has had its effect
        return {}
    if not _is_own(kind) or not hasattr(x, "__dict__"):
        raise NotComparableError(f"a {kind.__module__}.{kind.__qualname__}")
    return _keras.state_of(x)


class _Kind:
    """A class as it is now: somebody may have exchanged a method."""

    def __init__(self, kind):
        owners = [owner for owner in kind.__mro__ if _is_own(owner)]
        self.name = kind.__name__
        self.methods = {name for one in owners for name, x in vars(one).items() if isinstance(x, types.FunctionType)}
        self.members = tuple(_Exchangeable(vars(owner)) for owner in owners)


class _Form:
    """The names of a thing's parts, and its class."""

    def __init__(self, names, kind):
        if not all(isinstance(name, (str, int, type(None))) for name in names):
            raise NotComparableError("a dict with other keys than texts and numbers")
        own = [name for name in names if name in kind.methods]
        if own:
            raise NotComparableError(f"a `{own[0]}` of one {kind.name}'s own")
        self._key = names, kind.members

    def __eq__(self, other):
        return isinstance(other, _Form) and self._key == other._key

    def __hash__(self):
        return hash(self._key)


class _Exchangeable:
    """What a class or module holds, each the very same object. It is kept, so that no `id` is used again."""

    def __init__(self, members):
        self._members = [x for name, x in members.items() if name not in _COME_LATER]
        self._key = tuple(map(id, self._members))

    def __eq__(self, other):
        return isinstance(other, _Exchangeable) and self._key == other._key

    def __hash__(self):
        return hash(self._key)


def _is_own(kind):
    return kind.__module__.startswith(_OWN)


def _surroundings():
    """What a trace depends on beside the model."""
    config = keras.config
    return [
        registry.current(), config.floatx(), config.epsilon(), config.image_data_format(), str(config.dtype_policy()),
        tf.config.experimental.tensor_float_32_execution_enabled(), _tensorflow.is_op_determinism_enabled(),
        config.is_flash_attention_enabled(), _tensorflow.device(),
        *(_Exchangeable(vars(module)) for module in _keras.modules_that_compute()),
    ]  # fmt: skip


def _known_function(function):
    # Not by `__module__`: `functools.wraps` sets it to that of another function, and not every function has one.
    home = getattr(function, "__globals__", {}).get("__name__", function.__module__)
    if not str(home).startswith(_OWN) or getattr(function, "__closure__", None):
        raise NotComparableError(f"the function {function!r}")
    return function


def _numbers_of(x: Any):
    if isinstance(x, tf.Tensor) and not hasattr(x, "numpy"):
        raise NotComparableError("a tensor of a graph")
    array = np.asarray(x.numpy() if isinstance(x, tf.Tensor) else x)
    if array.nbytes > LARGEST_CONSTANT or array.dtype == object:
        raise NotComparableError("a large array")
    return str(array.dtype), array.shape, array.tobytes()


_COME_LATER = ("__annotations__", "__warningregistry__")
_OWN = ("keras.", "keras_backprop.")
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_FIXED = (tf.DType, tf.TensorShape)
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)
