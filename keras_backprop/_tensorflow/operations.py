"""Operations that ran, and the gradient function that TensorFlow has registered for each type."""

import functools

import tensorflow as tf
from tensorflow.python.eager import backprop, backprop_util
from tensorflow.python.framework import op_def_registry, ops
from tensorflow.python.framework.ops import EagerTensor
from tensorflow.python.ops import default_gradient, handle_data_util


class EagerOperation:
    """An operation that ran eagerly; to a registered gradient function it looks like a `tf.Operation`.

    Attributes:
        type: str.
        inputs, outputs: lists of tensors.
        attributes: tuple, names and values in turn.
        skip_input_indices: list of ints or None, inputs whose gradients nobody needs.
    """

    __slots__ = ("attributes", "inputs", "outputs", "skip_input_indices", "type")
    name = None

    def __init__(self, kind, inputs, attributes, outputs):
        self.type = kind.decode() if isinstance(kind, bytes) else kind
        self.inputs, self.attributes, self.outputs = inputs, attributes, outputs
        self.skip_input_indices = None

    def get_attr(self, name):
        """As `tf.Operation.get_attr`."""
        position = self.attributes.index(name) if name in self.attributes[::2] else None
        if position is None:
            raise ValueError(f"Operation {self.type!r} has no attribute {name!r}.")
        value = self.attributes[position + 1]
        kind = backprop.op_attr_type(self.type, name)
        return backprop.make_attr(kind, _default(self.type, name) if value is None else value)


class without_gradients_of:  # noqa: N801  a context
    """For the duration of the block, gradient functions may leave out gradients of some inputs of an operation that ran eagerly.

    In a graph what is left unused is dropped later.

    Args:
        inputs: list of ints.
        operation: an `EagerOperation` or a `tf.Operation`.
    """

    def __init__(self, inputs, operation):
        self.inputs, self.operation = inputs, operation if isinstance(operation, EagerOperation) else None

    def __enter__(self):
        if self.operation is not None:
            self.operation.skip_input_indices = self.inputs

    def __exit__(self, *exception):
        if self.operation is not None:
            self.operation.skip_input_indices = None


def wanted_gradients(operation):
    """For each input whether somebody may need its gradient, a list of bools."""
    unwanted = getattr(operation, "skip_input_indices", None) or ()
    return [i not in unwanted for i in range(len(operation.inputs))]


class CustomGradient(EagerOperation):
    """What a `tf.custom_gradient` did eagerly: its own function is the gradient."""

    __slots__ = ("backward",)

    def __init__(self, kind, inputs, outputs, backward):
        super().__init__(kind, inputs, (), outputs)
        self.backward = backward


@functools.cache
def _default(kind, name):
    """The value of an attribute of which nothing was said: in its place a callback of eager operations is told None.

    None where there is no default value: a shape of which nothing is known is told as None, too.
    """
    values = [attribute.default_value for attribute in op_def_registry.get(kind).attr if attribute.name == name]
    what = values[0].WhichOneof("value") if values else None
    if what is None:
        return None
    if what != "list":
        return getattr(values[0], what)
    given = [list(numbers) for _, numbers in values[0].list.ListFields()]
    return given[0] if given else []


def registered_gradient(operation):
    """The gradient function that TensorFlow has registered for an operation, control flow and calls of functions included.

    Args:
        operation: a `tf.Operation`, or an `EagerOperation`.

    Returns:
        A function `(operation, *dys) -> dxs`; None where the type is declared not differentiable.

    Raises:
        LookupError: TensorFlow has no gradient for this type of operation.
    """
    if isinstance(operation, CustomGradient):
        return lambda operation, *dys: operation.backward(*dys)
    if isinstance(operation, EagerOperation):
        return ops.gradient_registry.lookup(operation.type)
    return ops.get_gradient_function(operation)


def gradients_by_type():
    """TensorFlow's types of operations: a dict, type -> gradient function, or None for what is declared not differentiable."""
    return {name: ops.gradient_registry.lookup(name) for name in ops.gradient_registry.list()}


def zeros_like(x):
    """A gradient of zeros for what an operation put out and nobody used, handles of variables included."""
    return default_gradient.zeros_like(x)


def tell_what_it_holds(dy, x):
    """Let TensorFlow know of which shape and dtype the tensors are in the gradient of a list of tensors: those of the list.

    A gradient that a called function has put out may not say so, and TensorFlow adds only lists that all do or none.
    """
    symbolic = isinstance(dy, tf.Tensor) and not isinstance(dy, EagerTensor)
    if x.dtype == tf.variant and symbolic and not handle_data_util.get_handle_data(dy).shape_and_type:
        handle_data_util.copy_handle_data(x, dy)


def is_trainable(x):
    """Whether a gradient can flow to a tensor: floating-point and complex numbers, lists of tensors, handles of variables."""
    trainable = _is_trainable_dtype(x.dtype)
    return backprop_util.IsTrainable(x) if trainable is None else trainable


@functools.cache
def _is_trainable_dtype(dtype):
    """Whether a gradient can flow to numbers of a dtype; None for handles, where that depends on what they are for."""
    return None if dtype in (tf.resource, tf.variant) else backprop_util.IsTrainable(dtype)


def have_same_sizes(a, b):
    """Whether two tensors have the same shape, and all of it is known."""
    if isinstance(a, EagerTensor) and isinstance(b, EagerTensor):
        return a._shape_tuple() == b._shape_tuple()  # `shape` is made anew each time
    return a.shape == b.shape and b.shape.is_fully_defined()


def remember_sparse(dense, sparse):
    """Let a dense tensor carry the sparse one that it was made of, for products that can make use of it."""
    dense._sparse = sparse


def sparse_of(dense):
    """The sparse tensor that a dense one was made of, or None."""
    return getattr(dense, "_sparse", None)
