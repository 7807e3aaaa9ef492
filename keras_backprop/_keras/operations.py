"""Operations of `keras.ops`: their classes, how an activation is spelled, and following the functions on real tensors."""

import contextlib
import functools
import inspect
import sys
import threading
import types

import keras
from keras.src import activations as _activations_package
from keras.src import api_export as _api_export
from keras.src import ops as _ops_package
from keras.src.activations import activations as _activations
from keras.src.ops import core as _ops_core
from keras.src.ops import image as _ops_image
from keras.src.ops import linalg as _ops_linalg
from keras.src.ops import math as _ops_math
from keras.src.ops import nn as _ops_nn
from keras.src.ops import numpy as _ops_numpy
from keras.src.ops import operation as _operation
from keras.src.utils.naming import to_snake_case

from keras_backprop._keras.standing_in import current, replaced


def _operation_classes(package):
    """The `Operation` classes that the modules of a private Keras package define, by name."""
    classes = {}
    for module in vars(package).values():
        if isinstance(module, types.ModuleType) and module.__name__.startswith(package.__name__):
            for name, value in vars(module).items():
                if (
                    isinstance(value, type)
                    and value.__module__ == module.__name__
                    and issubclass(value, keras.Operation)
                ):
                    classes[name] = value
    return types.SimpleNamespace(**classes)


ops = _operation_classes(_ops_package)
"""Every operation class of `keras.ops`: `ops.Matmul` is what `keras.ops.matmul` adds to a Functional graph."""

activations = _operation_classes(_activations_package)
"""The operation classes behind activation functions that are no `keras.ops`: `ReLU` and `Mish`."""


def name_of_operation(operation):
    """What Keras would call the first of its kind: `log_softmax`."""
    return to_snake_case(type(operation).__name__)


def is_activation(function):
    """Whether it is a function of `keras.activations`."""
    return getattr(keras.activations, getattr(function, "__name__", ""), None) is function


def is_function_of_ops(function):
    """Whether it is a function of `keras.ops`."""
    return (getattr(function, "__module__", None) or "").startswith("keras.src.ops.")


def operation_of(function):
    """The class of the operation that a function of `keras.ops` adds to a Functional graph; None where it adds none."""
    return next(_operations_called(function.__name__, sys.modules[function.__module__]), None)


def activations_called(name):
    """The functions, operation classes and layer classes of the activation with that name in `keras.activations`."""
    layers = next((kind for n, kind in vars(keras.layers).items() if n.lower() == _flat(name)), None)
    found = [
        getattr(keras.activations, name),
        *_operations_called(name, _activations),
        *_operations_called(name, _ops_nn),
    ]
    found += [*_operations_called(name, _ops_numpy), *([layers] if layers is not None else [])]
    return list(dict.fromkeys(found))


def _operations_called(name, module):
    for one in vars(module).values():
        if isinstance(one, type) and issubclass(one, keras.Operation) and one.__name__.lower() == _flat(name):
            yield one


def _flat(name):
    return name.replace("_", "").lower()


_NOT_FOLLOWED = frozenset(
    [
        "arange",
        "array",
        "broadcast_to",
        "conv_transpose",
        "copy",
        "empty",
        "empty_like",
        "eye",
        "expand_dims",
        "full",
        "full_like",
        "get_item",
        "identity",
        "linspace",
        "logspace",
        "meshgrid",
        "moveaxis",
        "ones",
        "ones_like",
        "pad",
        "quantile",
        "ravel",
        "repeat",
        "reshape",
        "roll",
        "split",
        "squeeze",
        "swapaxes",
        "take",
        "take_along_axis",
        "tile",
        "transpose",
        "tri",
        "zeros",
        "zeros_like",
        "array_split",
        "resize",
        "pad_images",
        "crop_images",
        "histogram",
        "view_as_complex",
    ]
)
"""Functions of `keras.ops` that make and move tensors: their sizes may be tensors, which is not for an operation's constructor.

And those whose operation in Keras is not what the function does: `conv_transpose` makes it with two arguments exchanged,
`quantile` forgets `method`, those of `histogram` and `view_as_complex` do not run.
"""

_OF_ONE_AXIS = frozenset(["softmax", "log_softmax"])
"""Functions that take several axes at once, which their operations do not."""


@contextlib.contextmanager
def functions_followed(follow, wanted):
    """For the duration of the block, in this thread, functions of `keras.ops` go to `follow(operation, *args, **kwargs)`.

    A function asks whether its arguments are symbolic, and then makes the operation that a Functional graph would hold. Here
    it is told so, and the operation is run on the tensors.

    Args:
        follow: what takes the place of `Operation.symbolic_call`.
        wanted: function without arguments, whether to follow at this moment.
    """
    with contextlib.ExitStack() as stack:
        for module in (_ops_nn, _ops_numpy, _ops_math, _ops_linalg, _ops_image, _ops_core):
            original = current(module, "any_symbolic_tensors")

            def any_symbolic_tensors(args=None, kwargs=None, original=original, module=module):
                _following.makes = False
                if original(args, kwargs):
                    return True
                function = sys._getframe(2)  # 1 is the switch
                name = function.f_code.co_name
                if name in _NOT_FOLLOWED or (module is _ops_core and name != "slice_update") or not wanted():
                    return False
                if name in _OF_ONE_AXIS and isinstance(function.f_locals["axis"], tuple):
                    return False
                _following.makes = any(map(_is_float_tensor, keras.tree.flatten((args, kwargs))))
                return _following.makes

            stack.enter_context(replaced(module, any_symbolic_tensors=any_symbolic_tensors))
        stack.enter_context(_symbolic_calls_of_tensors(follow))
        yield


def _is_float_tensor(x):
    return hasattr(x, "shape") and hasattr(x, "dtype") and "float" in keras.backend.standardize_dtype(x.dtype)


_lock = threading.Lock()
_following = threading.local()
_followers = 0


@contextlib.contextmanager
def _symbolic_calls_of_tensors(follow):
    """Let `Operation.symbolic_call` of real tensors go to `follow` in this thread; elsewhere all stays as it is."""
    global _followers
    with _lock:
        _followers += 1
        if _followers == 1:
            keras.Operation.symbolic_call = _symbolic_call
            _operation.inspect, _operation.auto_name = _inspect, _auto_name
    before, _following.follow = getattr(_following, "follow", None), follow
    _following.makes = False
    try:
        yield
    finally:
        _following.follow, _following.makes = before, False  # a function may have raised before it made its operation
        with _lock:
            _followers -= 1
            if not _followers:
                keras.Operation.symbolic_call = _stock_symbolic_call
                _operation.inspect, _operation.auto_name = inspect, _stock_auto_name


def _auto_name(prefix):
    """What stands in for what gives operations their numbers: one that is made only to be followed is not counted."""
    followed, _following.makes = getattr(_following, "makes", False), False
    return to_snake_case(prefix) if followed else _stock_auto_name(prefix)


_stock_auto_name = _operation.auto_name


def _once(inspector):
    """A function of `inspect` that looks at each constructor of Keras's own once."""
    looked_up = functools.cache(inspector)

    def look(function):
        own = isinstance(function, types.FunctionType) and function.__module__.startswith("keras.src.")
        return (looked_up if own else inspector)(function)

    return look


_inspect = types.SimpleNamespace(**vars(inspect))
_inspect.signature, _inspect.getfullargspec = _once(inspect.signature), _once(inspect.getfullargspec)
"""What stands in for `inspect` where Keras makes operations: to look at the constructor takes it longer than all the rest."""

_stock_symbolic_call = keras.Operation.symbolic_call


def _symbolic_call(self, /, *args, **kwargs):
    follow, _following.makes = getattr(_following, "follow", None), False
    if follow is None or any(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten((args, kwargs))):
        return _stock_symbolic_call(self, *args, **kwargs)
    return follow(self, *args, **kwargs)


def name_in_keras(thing):
    """The name by which Keras's own class or function can be found again, `keras.ops.relu`; None for what is not Keras's."""
    public = _api_export.get_name_from_symbol(thing)
    if public is None and getattr(thing, "__module__", "").startswith("keras.src."):
        return f"{thing.__module__}.{thing.__qualname__}"  # `Relu`, an operation of a graph, has no public name
    return public


def named_in_keras(name):
    """What has that name, or None: nothing but Keras's, as the name may come from a file that somebody has sent."""
    public = _api_export.get_symbol_from_name(name)
    if public is not None:
        return public
    module, _, own = name.rpartition(".")
    found = getattr(sys.modules.get(module), own, None) if module.startswith("keras.src.") else None
    return found if getattr(found, "__module__", "") == module else None
