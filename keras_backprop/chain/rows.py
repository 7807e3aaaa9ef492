"""Which tensors of a forward pass have rows of their own for every example, and which have mixed the examples.

A layer of Keras keeps the examples apart along the first axis, if it is not told to work along that axis or to run somebody's own
function. All else may do anything with them; its operations are looked at, one by one, in the order in which they ran.
"""

import math

import keras
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.chain.operations_by_rows import ELEMENTWISE, KEEPS, OF_SHAPES, attribute, is_first, sizing

MIXED = None
"""Depends on the examples, and has no rows of their own for them."""


class Rows:
    """How many rows each example has in a tensor, one example after the other; `MIXED`; or no entry: it depends on no example.

    Args:
        record: a `Record`, closed.
        leaves: the tensors of a batch, whose rows are the examples.
    """

    def __init__(self, record, leaves):
        self._rows: dict = {}
        timeline = record.timeline
        self._sparse: set = set()  # the parts of sparse examples
        self._sizes: set = set()  # what depends on shapes of what has examples, and on nothing else of them
        self._counts: set = set()  # and is their number
        self._shapes: set = set()  # and is a shape that begins with it
        self._of_leaves = [x.shape.as_list() for x in leaves if not isinstance(x, tf.SparseTensor) and x.shape.rank]
        self._sized_by_values: set = set()  # what has a shape that numbers decide on
        self._numbers: dict = {}  # of matrices of unknown width: how many numbers each example has, in whole rows
        for x in leaves:
            if isinstance(x, tf.SparseTensor):
                parts = [id(y) for part in (x.indices, x.values) for y in (part, timeline.inside(part))]
                self._sparse.update(parts)
                self._rows.update(dict.fromkeys(parts, MIXED))
            elif x.shape.rank != 0:
                self._rows[id(x)] = self._rows[id(timeline.inside(x))] = 1
        for x in record.densified:
            self._rows[id(x)] = 1
        trusted = sorted(filter(_keeps_rows, record.layers_run), key=lambda run: run.last)
        for i, operation in enumerate(timeline.operations()):
            while trusted and trusted[0].last <= i:
                self._trust(trusted.pop(0))
            if operation is not None:
                self._run(operation)
        for layer in trusted:
            self._trust(layer)

    def depends(self, x):
        """Whether a tensor depends on the examples."""
        return id(x) in self._rows

    def of(self, x):
        """How many rows each example has; `MIXED` where it has none of its own."""
        return self._rows[id(x)]

    def is_of_sizes(self, x):
        """Whether a tensor depends on how many examples there are, or on other sizes."""
        return id(x) in self._sizes

    def counts(self, x):
        """Whether a tensor is the number of the examples."""
        return id(x) in self._counts

    def _trust(self, layer):
        """A layer of Keras gives every example a row, if it was given such rows."""
        given = [self._rows[id(x)] for x in keras.tree.flatten(layer.inputs) if id(x) in self._rows]
        if given:
            kept = 1 if layer.repeats is not None else given[0] if len(set(given)) == 1 else MIXED
            ids = [id(y) for y in keras.tree.flatten(layer.outputs)]
            self._rows.update(dict.fromkeys(ids, kept))
            self._sized_by_values.difference_update(ids)

    def _run(self, operation):
        if operation.type == "MatMul":
            self._measure(*operation.inputs, *(attribute(operation, f"transpose_{name}") for name in "ab"))
        given = [self._rows[id(x)] for x in operation.inputs if id(x) in self._rows]
        sized_by_values = any(id(x) in self._sized_by_values for x in operation.inputs)
        if not given or (operation.type in OF_SHAPES and not sized_by_values):
            self._measure_sizes(operation, of_examples=bool(given))
            return
        if sized_by_values or any(id(x) in self._rows for x in sizing(operation)):
            self._sized_by_values.update(map(id, operation.outputs))
        if operation.type == "IdentityN":
            pairs = zip(operation.inputs, operation.outputs, strict=True)
            self._rows.update((id(y), self._rows[id(x)]) for x, y in pairs if id(x) in self._rows)
            return
        if id(operation.inputs[0]) in self._sparse and operation.type in ("SparseReorder", "SparseToDense"):
            whole = operation.type == "SparseToDense"
            self._rows.update((id(y), 1 if whole else MIXED) for y in operation.outputs)
            self._sparse.update(id(y) for y in operation.outputs)
            return
        same = MIXED not in given and len(set(given)) == 1
        for y in operation.outputs:
            self._rows[id(y)] = self._kept(operation, y, given[0]) if same else MIXED

    def _measure_sizes(self, operation, of_examples):
        """Numbers that shapes decide on, and the size of the first axis among them."""
        if not operation.inputs:
            return
        first = operation.inputs[0]
        of_constant = operation.type in ("Prod", "StridedSlice") and self._is_shape(tf.get_static_value(first))
        if not of_examples and not of_constant and not any(id(x) in self._sizes for x in operation.inputs):
            return
        self._sizes.update(map(id, operation.outputs))
        packed = operation.type == "Pack" and id(first) in self._counts
        if packed or (operation.type == "Shape" and self._rows.get(id(first)) == 1):
            self._shapes.update(map(id, operation.outputs))
        if operation.type in ("Cast", "Identity"):
            for known in (self._counts, self._shapes):
                known.update(id(y) for y in operation.outputs if id(first) in known)
        whole = operation.type == "Prod" and first.shape.as_list() == [1]
        taken = operation.type == "StridedSlice" and is_first(operation) and not operation.outputs[0].shape.rank
        if (whole or taken) and (of_constant or id(first) in self._shapes):
            self._counts.update(map(id, operation.outputs))

    def _is_shape(self, value):
        """Whether a constant is what `tf.shape` of something with the examples' rows is where that is known."""
        if value is None or value.ndim != 1 or value.dtype.kind != "i":
            return False
        return any(value.tolist() == shape for shape in self._of_leaves if None not in shape) or (
            value.size == 1 and any(shape[:1] == value.tolist() for shape in self._of_leaves)
        )

    def _measure(self, x, matrix, x_transposed, transposed):
        """The matrix that x is multiplied by tells how wide x is: `tf.tensordot` reshapes to sizes that only the run knows."""
        if x_transposed:
            return  # it tells how high x is
        width = matrix.shape[1 if transposed else 0]
        if id(x) in self._numbers and width and self._numbers[id(x)] % width == 0:
            self._rows[id(x)] = self._numbers[id(x)] // width

    def _kept(self, operation, y, rows):
        """How many rows each example has in an output, where it has `rows` in the inputs that depend on it."""
        inputs = [x for x in operation.inputs if id(x) in self._rows]
        if y.shape.rank in (0, None) or any(x.shape.rank in (0, None) for x in inputs):
            return MIXED
        if operation.type == "Reshape":
            if y.shape.as_list() == [None, None] and None not in inputs[0].shape[1:]:
                self._numbers[id(y)] = rows * math.prod(inputs[0].shape[1:])
            return _reshaped(inputs[0], y, rows)
        aligned = all(x.shape.rank == y.shape.rank for x in inputs)
        if operation.type in ELEMENTWISE:
            return rows if aligned else MIXED
        keeps = KEEPS.get(operation.type)
        return (
            rows if keeps is not None and keeps(operation, [id(x) in self._rows for x in operation.inputs]) else MIXED
        )


OPEN_ENDED = (
    keras.layers.Activation, keras.layers.JaxLayer, keras.layers.Lambda, keras.layers.TFSMLayer, keras.layers.TorchModuleWrapper,
)  # fmt: skip
"""Layers of Keras that run a function of somebody's own, which may do anything with the examples."""

MIXING_LAYERS = (
    keras.layers.AugMix, keras.layers.CutMix, keras.layers.Equalization, keras.layers.MixUp, keras.layers.RandAugment,
)  # fmt: skip
"""Layers of Keras that mix the examples in training: images with each other, or by one histogram of the batch."""


def _keeps_rows(run):
    """Whether what ran is a layer or an activation of Keras that keeps the examples apart, whatever its operations are."""
    rank = getattr(next(iter(keras.tree.flatten(run.inputs)), None), "shape", tf.TensorShape(None)).rank
    if not isinstance(run.op, keras.layers.Layer):  # a model may be any graph of operations
        return _keras.is_activation(run.op) and not _may_be_first([run.axis], rank)
    layer = run.op
    if not type(layer).__module__.startswith("keras.") or isinstance(layer, (*OPEN_ENDED, *MIXING_LAYERS, keras.Model)):
        return False
    if isinstance(layer, keras.layers.EinsumDense) and not _is_by_rows(layer.equation):
        return False
    activations = [getattr(layer, name, None) for name in ("activation", "recurrent_activation")]
    own = [a for a in activations if not (a is None or isinstance(a, keras.layers.Layer) or _keras.is_activation(a))]
    if own or any(map(_is_doubtful, _keras.layers_in(layer))):
        return False
    return not _may_be_first(_keras.axes_of(layer), rank)


def _is_doubtful(inner):
    """Whether a layer in a layer, of a `Pipeline` or a `TimeDistributed` say, may mix the examples."""
    if isinstance(inner, keras.layers.Activation):
        return not _keras.is_activation(inner.activation)
    return isinstance(inner, (*OPEN_ENDED, *MIXING_LAYERS))


def _may_be_first(axes, rank):
    """Whether one of some axes is the first, or could be, where it is counted from the end and the rank is not known."""
    known = [axis for axis in axes if isinstance(axis, int)]
    return any(axis % rank == 0 if rank else axis == 0 or axis < -1 for axis in known)


def _is_by_rows(equation):
    """Whether the first letter of the result is the first of the input, and sums nothing."""
    operands, result = equation.replace(" ", "").split("->")
    x, kernel = operands.split(",")
    return result[:1] == x[:1] and (x[0] == "." or x[0] not in x[1:] + kernel)


def _reshaped(x, y, rows):
    """The numbers of an example stay together; whether as whole rows is a matter of how many there are."""
    inner, outer = x.shape[1:].as_list(), y.shape[1:].as_list()
    if None in inner or None in outer or not math.prod(outer):
        return MIXED
    numbers, width = rows * math.prod(inner), math.prod(outer)
    return numbers // width if numbers % width == 0 else MIXED
