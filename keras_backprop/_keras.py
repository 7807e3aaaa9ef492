"""The only door to private Keras.

Everything this package takes from `keras.src` is imported here, so that a new Keras release can break one file at most.
"""

import contextlib
import threading
import types

import keras
from keras.src import activations as _activations_package
from keras.src import ops as _ops_package
from keras.src.backend import compute_output_spec
from keras.src.backend.common.backend_utils import canonicalize_axis
from keras.src.backend.common.masking import get_keras_mask, set_keras_mask
from keras.src.backend.common.stateless_scope import StatelessScope, get_stateless_scope
from keras.src.backend.common.variables import AutocastScope
from keras.src.layers import layer as _layer_module
from keras.src.layers.rnn.conv_lstm import ConvLSTM, ConvLSTMCell
from keras.src.losses import loss as _loss_module
from keras.src.losses.loss import (
    apply_mask,
    scale_loss_for_distribution,
    squeeze_or_expand_to_same_rank,
    unscale_loss_for_distribution,
)
from keras.src.losses.losses import LossFunctionWrapper
from keras.src.models.functional import Functional
from keras.src.models.model import functional_init_arguments
from keras.src.ops import nn as _ops_nn
from keras.src.ops.node import Node as _Node
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter, can_convert_arrays
from keras.src.trainers.data_adapters.array_slicing import convert_to_sliceable, train_validation_split
from keras.src.trainers.data_adapters.data_adapter_utils import unpack_x_y_sample_weight
from keras.src.trainers.trainer import Trainer

__all__ = [
    "ArrayDataAdapter",
    "AutocastScope",
    "ConvLSTM",
    "ConvLSTMCell",
    "Functional",
    "LossFunctionWrapper",
    "StatelessScope",
    "Trainer",
    "activations",
    "apply_mask",
    "batch_slices",
    "can_convert_arrays",
    "canonicalize_axis",
    "compute_output_spec",
    "convert_to_sliceable",
    "current",
    "current_stateless_scope",
    "functional_init_arguments",
    "get_keras_mask",
    "graph_of",
    "graph_steps",
    "grouped_convolutions",
    "is_overwritten",
    "means_over_any_batch",
    "ops",
    "partial_nodes",
    "replaced",
    "scale_loss_for_distribution",
    "set_keras_mask",
    "squeeze_or_expand_to_same_rank",
    "sums_of_lists",
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


class _PartialNode(_Node):
    """A node of a layer that returns None among its tensors, `(output, cache)` for instance, which Keras refuses."""

    def __init__(self, operation, call_args=None, call_kwargs=None, outputs=None):
        outputs = [x for x in keras.tree.flatten(outputs) if isinstance(x, keras.KerasTensor)]
        super().__init__(operation, call_args, call_kwargs, outputs)


@contextlib.contextmanager
def partial_nodes():
    """For the duration of the block, layers that return something besides tensors can be called symbolically."""
    with replaced(_layer_module, Node=_PartialNode):
        yield


@contextlib.contextmanager
def grouped_convolutions():
    """For the duration of the block, `keras.ops.conv` with groups can be called symbolically, which Keras refuses."""
    with replaced(_ops_nn, check_conv_input_channels=lambda inputs, kernel, data_format: None):
        yield


@contextlib.contextmanager
def sums_of_lists():
    """For the duration of the block, `keras.ops.sum([a, b])` can be called symbolically; Keras sums the losses so."""
    symbolic_call = keras.Operation.symbolic_call

    def stacked(self, x, *args, **kwargs):
        return symbolic_call(self, keras.ops.stack(x) if isinstance(x, (list, tuple)) else x, *args, **kwargs)

    with _lock:  # replicas are threads
        for operation in (ops.Sum, ops.Mean):
            operation.symbolic_call = stacked
        try:
            yield
        finally:
            for operation in (ops.Sum, ops.Mean):
                del operation.symbolic_call


@contextlib.contextmanager
def means_over_any_batch():
    """For the duration of the block, a loss of symbolic predictions is a mean over a batch of any size.

    Keras divides by the product of the shape, which has None in it.
    """
    reduce_values = current(_loss_module, "reduce_values")

    def reduce(values, sample_weight=None, reduction="sum_over_batch_size"):
        weighted = reduction == "mean_with_sample_weight" and sample_weight is not None
        unknown = isinstance(values, keras.KerasTensor) and None in values.shape
        if weighted or not unknown or reduction in (None, "none", "sum"):
            return reduce_values(values, sample_weight, reduction)
        size = keras.ops.sum(keras.ops.ones_like(values))
        return scale_loss_for_distribution(keras.ops.divide_no_nan(keras.ops.sum(values), size))

    with replaced(_loss_module, reduce_values=reduce):
        yield


@contextlib.contextmanager
def batch_slices():
    """For the duration of the block, symbolic tensors have slices `x[:2]`, which Keras knows as `x[:2,]` only.

    And things can be taken from them at indices that are a tensor of a graph, which Keras makes an array of.
    """
    with _lock:
        getitem, take_spec = keras.KerasTensor.__getitem__, ops.Take.compute_output_spec

    def take(self, x, indices):
        known = hasattr(indices, "shape") and hasattr(indices, "dtype") and not isinstance(indices, keras.KerasTensor)
        return take_spec(self, x, keras.KerasTensor(indices.shape, "int32") if known else indices)

    with _lock:
        keras.KerasTensor.__getitem__ = lambda x, key: getitem(
            x, key if isinstance(key, (int, list, tuple)) else (key,)
        )
        ops.Take.compute_output_spec = take
        try:
            yield
        finally:
            keras.KerasTensor.__getitem__, ops.Take.compute_output_spec = getitem, take_spec


def graph_steps(outputs):
    """The nodes that compute `outputs` (KerasTensors), each after the nodes it needs.

    Returns:
        list of Keras `Node`: `.operation`, `.arguments.fill_in(values)`, `.outputs`.
    """
    steps, seen, pending = [], set(), [(x, False) for x in reversed(outputs)]
    while pending:
        tensor, expanded = pending.pop()
        history = getattr(tensor, "_keras_history", None)
        if history is None or history.operation is None:
            continue
        node = history.operation._inbound_nodes[history.node_index]
        if expanded:
            steps.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            pending.append((tensor, True))
            pending.extend((x, False) for x in reversed(node.input_tensors))
    return steps


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

    def __call__(self, *args, **kwargs):
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
