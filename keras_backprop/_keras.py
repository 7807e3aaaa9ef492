"""The only door to private Keras.

Everything this package takes from `keras.src` is imported here, so that a new Keras release can break one file at most.
"""

import contextlib
import inspect
import sys
import threading
import types

import keras
from keras.src import activations as _activations_package
from keras.src import ops as _ops_package
from keras.src.activations import activations as _activations
from keras.src.backend import compute_output_spec
from keras.src.backend.common.backend_utils import canonicalize_axis
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask
from keras.src.backend.common.stateless_scope import StatelessScope, get_stateless_scope
from keras.src.backend.common.variables import AutocastScope
from keras.src.backend.tensorflow import trainer as _trainer
from keras.src.backend.tensorflow.trainer import TensorFlowTrainer, TFEpochIterator
from keras.src.callbacks.tensorboard import keras_model_summary
from keras.src.layers.preprocessing.data_layer import DataLayer as PreprocessingLayer
from keras.src.layers.rnn.conv_lstm import ConvLSTM, ConvLSTMCell
from keras.src.losses.loss import (
    apply_mask,
    scale_loss_for_distribution,
    squeeze_or_expand_to_same_rank,
    unscale_loss_for_distribution,
)
from keras.src.losses.losses import LossFunctionWrapper
from keras.src.models.functional import Functional
from keras.src.models.model import functional_init_arguments
from keras.src.ops import core as _ops_core
from keras.src.ops import image as _ops_image
from keras.src.ops import linalg as _ops_linalg
from keras.src.ops import math as _ops_math
from keras.src.ops import nn as _ops_nn
from keras.src.ops import numpy as _ops_numpy
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter, can_convert_arrays
from keras.src.trainers.data_adapters.array_slicing import convert_to_sliceable, train_validation_split
from keras.src.trainers.data_adapters.data_adapter_utils import unpack_x_y_sample_weight
from keras.src.trainers.trainer import Trainer
from keras.src.utils import python_utils as _python_utils
from keras.src.utils.naming import to_snake_case

__all__ = [
    "ArrayDataAdapter",
    "AutocastScope",
    "ConvLSTM",
    "ConvLSTMCell",
    "Functional",
    "LossFunctionWrapper",
    "PreprocessingLayer",
    "StatelessScope",
    "TFEpochIterator",
    "Trainer",
    "activations",
    "apply_mask",
    "can_convert_arrays",
    "canonicalize_axis",
    "compute_output_spec",
    "convert_to_sliceable",
    "current",
    "current_stateless_scope",
    "functional_init_arguments",
    "functions_followed",
    "get_keras_mask",
    "graph_of",
    "is_overwritten",
    "keras_model_summary",
    "ops",
    "replaced",
    "scale_loss_for_distribution",
    "set_keras_mask",
    "squeeze_or_expand_to_same_rank",
    "symbolic",
    "train_validation_split",
    "unpack_x_y_sample_weight",
    "unscale_loss_for_distribution",
]


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


def current_stateless_scope():
    """The `keras.StatelessScope` we are in, or None."""
    return get_stateless_scope()


def symbolic(x):
    """A symbolic tensor like `x` with any number of examples; what is no tensor stays."""
    return (
        keras.KerasTensor((None, *x.shape[1:]), keras.backend.standardize_dtype(x.dtype)) if hasattr(x, "shape") else x
    )


def graph_of(layer):
    """The Functional graph that `layer.call` runs through, or None where a layer has a `call` of its own."""
    if isinstance(layer, Functional) and type(layer).call is Functional.call:
        return layer
    if isinstance(layer, keras.Sequential) and type(layer).call is keras.Sequential.call:
        return layer._functional  # None while unbuilt, or for a stack whose inputs are nested
    return None


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
    ]
)
"""Functions of `keras.ops` that make and move tensors: their sizes may be tensors, which is not for an operation's constructor.

And `conv_transpose`, whose operation Keras makes with two arguments exchanged, and `quantile`, whose operation forgets `method`.
"""


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
                if original(args, kwargs):
                    return True
                name = sys._getframe(2).f_code.co_name  # 1 is the switch
                if name in _NOT_FOLLOWED or (module is _ops_core and name != "slice_update") or not wanted():
                    return False
                return any(map(_is_float_tensor, keras.tree.flatten((args, kwargs))))

            stack.enter_context(replaced(module, any_symbolic_tensors=any_symbolic_tensors))
        stack.enter_context(_symbolic_calls_of_tensors(follow))
        yield


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


def _is_float_tensor(x):
    return hasattr(x, "shape") and hasattr(x, "dtype") and "float" in keras.backend.standardize_dtype(x.dtype)


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
    before, _following.follow = getattr(_following, "follow", None), follow
    try:
        yield
    finally:
        _following.follow = before
        with _lock:
            _followers -= 1
            if not _followers:
                keras.Operation.symbolic_call = _stock_symbolic_call


_stock_symbolic_call = keras.Operation.symbolic_call


def _symbolic_call(self, /, *args, **kwargs):
    follow = getattr(_following, "follow", None)
    if follow is None or any(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten((args, kwargs))):
        return _stock_symbolic_call(self, *args, **kwargs)
    return follow(self, *args, **kwargs)


fit = TensorFlowTrainer.fit
"""Keras's own `fit`, whatever has been wrapped around `keras.Model.fit`."""

_body = next(
    cell for name, cell in zip(fit.__code__.co_freevars, fit.__closure__, strict=True) if name == "fn"
)  # of the function that shortens the tracebacks of `fit`
fit_batch_by_batch = _body.cell_contents
"""What that does, without shortening tracebacks."""

_fits = 0


@contextlib.contextmanager
def fit_replaced(cls, body):
    """For the duration of the block, inside of Keras's `fit` runs `body(model, …)`, for models of the class `cls`.

    Whoever has wrapped something around `keras.Model.fit` is called as always, and calls that.
    """
    global _fits

    def inside(self, *args, **kwargs):
        return (body if isinstance(self, cls) else fit_batch_by_batch)(self, *args, **kwargs)

    with _lock:
        _fits += 1
        _body.cell_contents = inside
    try:
        yield
    finally:
        with _lock:
            _fits -= 1
            if not _fits:
                _body.cell_contents = fit_batch_by_batch


def logs_that_can_be_interrupted():
    """For the duration of the block, in this thread, Keras makes numbers of logs without swallowing Ctrl-C.

    Its own function has a bare `except`, and a short epoch spends much of its time there.
    """
    return replaced(_python_utils, pythonify_logs=pythonify_logs)


def pythonify_logs(logs):
    """Numbers of logs, as Keras makes them."""
    numbers: dict = {}
    for key, value in sorted((logs or {}).items()):
        if isinstance(value, dict):
            numbers.update(pythonify_logs(value))
            continue
        with contextlib.suppress(Exception):  # what is no number stays what it is
            value = float(keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else value)
        numbers[key] = value
    return numbers


@contextlib.contextmanager
def epochs_given(iterator):
    """For the duration of the block, in this thread, the next `fit` of Keras takes this `TFEpochIterator` and makes none.

    A generator has been asked for its first batches already.
    """
    made = []

    def make(*args, **kwargs):
        made.append(iterator)
        return iterator if len(made) == 1 else TFEpochIterator(*args, **kwargs)

    with replaced(_trainer, TFEpochIterator=make), replaced(iterator, reset=lambda: None):
        yield


def step_of(function):
    """The `tf.function` of one step, in a `train_function` or `test_function` that Keras has made.

    Raises:
        LookupError: it is somebody else's function.
    """
    try:
        on_data = inspect.getclosurevars(function).nonlocals["one_step_on_data"]
        return inspect.getclosurevars(on_data).nonlocals["step_func"]
    except (KeyError, TypeError):
        raise LookupError(f"Keras has not made the function {function!r}") from None


class _Switch:
    """Stands in for a callable attribute: in a thread that replaced it the replacement, elsewhere the original."""

    def __init__(self, original, own):
        self.original = self.__wrapped__ = original
        self.own = own  # whether the attribute is in the owner's `__dict__` or comes from its class
        self.users = 0
        self._local = threading.local()

    @property
    def stack(self):
        if not hasattr(self._local, "stack"):
            self._local.stack = []
        return self._local.stack

    def __getattr__(self, name):
        return getattr(vars(self)["original"], name)

    def __call__(self, /, *args, **kwargs):
        return (self.stack[-1] if self.stack else self.original)(*args, **kwargs)


_lock = threading.RLock()


def current(owner, name):
    """The attribute, whether or not some thread has replaced it for the moment."""
    value = getattr(owner, name, None)
    return value.original if isinstance(value, _Switch) else value


def is_overwritten(owner, name):
    """Whether somebody has given this one object a method of its own, other than by `replaced`."""
    value = vars(owner).get(name)
    return value.own if isinstance(value, _Switch) else value is not None


@contextlib.contextmanager
def replaced(owner, **replacements):
    """For the duration of the block, calls of `owner.<name>` in this thread go to a replacement.

    Replicas of a `tf.distribute` strategy run in threads that share the layers, hence the care.

    Args:
        owner: any object with a `__dict__`, a Keras layer for instance.
        **replacements: name of a callable attribute -> what to call instead.
    """
    switches = []
    for name, replacement in replacements.items():
        with _lock:
            switch = vars(owner).get(name)
            if not isinstance(switch, _Switch):
                own = name in vars(owner)
                switch = _Switch(getattr(owner, name), own)
                vars(owner)[name] = switch
            switch.users += 1
        switch.stack.append(replacement)
        switches.append((name, switch))
    try:
        yield
    finally:
        for name, switch in reversed(switches):
            switch.stack.pop()
            with _lock:
                switch.users -= 1
                if not switch.users:
                    if switch.own:
                        vars(owner)[name] = switch.original
                    else:
                        del vars(owner)[name]
