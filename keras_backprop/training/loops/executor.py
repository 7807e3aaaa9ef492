"""How TensorFlow runs the operations of a compiled function on a CPU.

Its default executor hands operations to a pool of threads. For operations of a few microseconds the handing over is most of
the time, and one thread that runs them one after the other takes half of it. For large operations it is the other way round.
"""

import math

import tensorflow as tf

from keras_backprop import _tensorflow

LARGEST_TENSOR = 200_000
LARGEST_PRODUCT = 20_000_000
LARGEST_CONVOLUTION = 2_000_000

_LOOPS = ("While", "StatelessWhile")
_WAITS = (
    "PyFunc", "Collective", "Recv", "Barrier", "Enqueue", "Dequeue", "Iterator", "Stage", "Unstage", "TakeGradient", "Rpc",
)  # fmt: skip
_CONVOLUTIONS = {
    "": (lambda one: one.outputs[0], lambda one: one.inputs[1]),
    "BackpropInput": (lambda one: one.inputs[2], lambda one: one.inputs[1]),
    "BackpropFilter": (lambda one: one.inputs[2], lambda one: one.outputs[0]),
}
"""Of each type of operation: where y, or dy, is found, and where the kernel."""

_CHANNELS_ANYWHERE = ("BiasAdd", "BiasAddGrad")
_TRANSPOSED = {"MatMul": "transpose_a", "BatchMatMulV2": "adj_x", "BatchMatMulV3": "adj_x"}


def is_small(operations, batch_size=32):
    """Whether none of these operations takes longer than handing it to a thread.

    That is: no tensor of more than `LARGEST_TENSOR` elements, no matrix product of more than `LARGEST_PRODUCT`
    multiplications, no convolution in two dimensions of more than `LARGEST_CONVOLUTION`, and none of another kind. A size that
    is unknown while tracing counts as the size of a batch.

    Args:
        operations: list of `tf.Operation`, one step.
        batch_size: int.
    """
    return all(_is_small(operation, batch_size) for operation in operations)


def never_waits(function):
    """Whether a traced function may run in one thread at all.

    A loop runs its body in the thread it is in. Every other operation that calls a function (`tf.cond`, a nested
    `tf.function`) hands it to the pool of threads and waits; as one of that pool it can wait for ever. So can what waits for
    Python, for other devices, for a queue or for tf.data. Of an operation that is not TensorFlow's own nobody knows.

    Args:
        function: a `tf.ConcreteFunction`.
    """
    return not any(_may_wait(node) for node in _nodes(function))


def must_be_called(function):
    """Whether a traced function can be called on a CPU, while its operations cannot be copied into a loop.

    There are no kernels for convolutions and poolings whose channels come first, nor for dilated convolutions and their
    gradients, Conv2D's forward pass apart, nor for gradients of convolutions in groups. In what is called TensorFlow exchanges
    them for oneDNN's, and not in a loop's body.

    Args:
        function: a `tf.ConcreteFunction`.
    """
    if tf.config.list_logical_devices("GPU"):
        return False
    operations = _tensorflow.operations_within(function.graph)
    return any(map(_has_no_kernel, _nodes(function))) or any(map(_is_gradient_of_groups, operations))


def _has_no_kernel(node):
    if "data_format" not in node.attr or node.op in _CHANNELS_ANYWHERE:
        return False
    dilated = node.op != "Conv2D" and any(rate > 1 for rate in node.attr["dilations"].list.i)
    return dilated or node.attr["data_format"].s.startswith(b"NC")


def _is_gradient_of_groups(operation):
    """Whether it is a gradient of a convolution whose kernel sees some of the channels at a time, or may be one."""
    if operation.type == "Conv2DBackpropInput":
        x, kernel = operation.outputs[0], operation.inputs[1]
    elif operation.type == "Conv2DBackpropFilter":
        x, kernel = operation.inputs[0], operation.outputs[0]
    else:
        return False
    ranks_known = x.shape.rank == kernel.shape.rank == 4
    return not ranks_known or x.shape[3] is None or x.shape[3] != kernel.shape[2]


def _nodes(function):
    """Its operations, and those of the functions that it calls."""
    definition = function.graph.as_graph_def()
    return [*definition.node, *(node for inner in definition.library.function for node in inner.node_def)]


def _may_wait(node):
    if any(sign in node.op for sign in _WAITS):
        return True
    if not hasattr(tf.raw_ops, node.op):
        return not _tensorflow.is_substitute(node.op)
    return node.op not in _LOOPS and any(_is_function(x) for x in node.attr.values())


def _is_function(attribute):
    return attribute.HasField("func") or bool(attribute.list.func)


def _is_small(operation, batch_size):
    if any(_size(y, batch_size) > LARGEST_TENSOR for y in operation.outputs):
        return False
    if "Conv" in operation.type:
        kind = operation.type.removeprefix("Conv2D")
        if kind not in _CONVOLUTIONS:
            return False
        y, kernel = (find(operation) for find in _CONVOLUTIONS[kind])
        known = y.shape.rank == 4 and kernel.shape.is_fully_defined()
        return known and _size(y, batch_size) * math.prod(kernel.shape[:-1]) <= LARGEST_CONVOLUTION
    if operation.type in _TRANSPOSED:
        x = operation.inputs[0].shape
        summed = x[-2 if operation.get_attr(_TRANSPOSED[operation.type]) else -1] or batch_size
        return _size(operation.outputs[0], batch_size) * summed <= LARGEST_PRODUCT
    return True


def _size(tensor, unknown):
    if tensor.dtype in (tf.resource, tf.variant) or tensor.shape.rank is None:
        return 0
    size = 1
    for dimension in tensor.shape:
        size *= unknown if dimension is None else dimension
    return size
