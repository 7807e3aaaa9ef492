"""Which tensors of a forward pass have rows of their own for every example, and which have mixed the examples.

A layer of Keras with a rule of this package keeps the examples apart along the first axis, if it is not told to work along that
axis. All else may do anything with them; its operations are looked at, one by one, in the order in which they ran.
"""

import math

import keras
import tensorflow as tf

from keras_backprop import _keras

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
        trusted = sorted((run for run in record.layers_run if _keeps_rows(run.op)), key=lambda run: run.last)
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
            self._measure(*operation.inputs, *(_attribute(operation, f"transpose_{name}") for name in "ab"))
        given = [self._rows[id(x)] for x in operation.inputs if id(x) in self._rows]
        sized_by_values = any(id(x) in self._sized_by_values for x in operation.inputs)
        if not given or (operation.type in OF_SHAPES and not sized_by_values):
            return
        if sized_by_values or operation.type in SIZED_BY_VALUES:
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


def keeps_rows(layer):
    """Whether it is a layer of Keras that keeps the examples apart, whatever its operations are."""
    along_first = 0 in keras.tree.flatten(getattr(layer, "axis", None))
    known = type(layer).__module__.startswith("keras.") and not isinstance(layer, (*OPEN_ENDED, *MIXING_LAYERS))
    return known and not along_first


def _keeps_rows(op):
    """Whether it is a layer or an activation of Keras that does. A model may be any graph of operations."""
    if not isinstance(op, keras.layers.Layer):
        return _keras.is_activation(op)
    return not isinstance(op, keras.Model) and keeps_rows(op)


def _reshaped(x, y, rows):
    """The numbers of an example stay together; whether as whole rows is a matter of how many there are."""
    inner, outer = x.shape[1:].as_list(), y.shape[1:].as_list()
    if None in inner or None in outer or not math.prod(outer):
        return MIXED
    numbers, width = rows * math.prod(inner), math.prod(outer)
    return numbers // width if numbers % width == 0 else MIXED


def _axes(operation, position, data=0):
    """The axes that an operation was given as its input at a position, from 0 on; None where they are not known."""
    axes, rank = tf.get_static_value(operation.inputs[position]), operation.inputs[data].shape.rank
    return None if axes is None else {int(a) % max(rank, 1) for a in axes.reshape(-1)}


def _not_along_first(position, data=0):
    def keeps(operation, _):
        axes = _axes(operation, position, data)
        return axes is not None and 0 not in axes

    return keeps


def _matmul(operation, depends):
    """Rows times a matrix; a stack of products with a stack or with a matrix."""
    a, b = operation.inputs
    transposed = any(_attribute(operation, name) for name in ("transpose_a", "adj_x"))
    if a.shape.rank == 2:
        return depends == [True, False] and b.shape.rank == 2 and not transposed
    rank = operation.outputs[0].shape.rank
    return all(x.shape.rank == rank and rank > 2 for x, one in zip((a, b), depends, strict=True) if one)


def _einsum(operation, depends):
    """The first letter of the result is the first of every operand that depends on the examples, and of no other."""
    equation = _attribute(operation, "equation")
    operands, result = (equation.decode() if isinstance(equation, bytes) else equation).replace(" ", "").split("->")
    first, rank = result[:1], operation.outputs[0].shape.rank
    of_examples = [
        (x.shape.rank, letters)
        for x, letters, one in zip(operation.inputs, operands.split(","), depends, strict=True)
        if one
    ]
    if first == ".":  # an ellipsis stands for the axes before the letters
        return all(
            letters[0] == "." and size - len(letters) == rank - len(result) > -3 for size, letters in of_examples
        )
    return all(letters[:1] == first and first not in letters[1:] for _, letters in of_examples)


def _gather(operation, depends):
    """Rows that the examples look up in a table; or parts of every example."""
    axes = _axes(operation, 2)
    if axes is None or depends[:2] == [True, True]:
        return bool(_attribute(operation, "batch_dims")) and depends[:2] == [True, True]
    return 0 in axes if depends[1] else 0 not in axes


def _strided_slice(operation, _):
    """All rows, and whatever of each."""
    if _attribute(operation, "ellipsis_mask") & 1:
        return len(tf.get_static_value(operation.inputs[1])) <= operation.inputs[0].shape.rank
    whole = _attribute(operation, "begin_mask") & _attribute(operation, "end_mask") & 1
    others = _attribute(operation, "shrink_axis_mask") | _attribute(operation, "new_axis_mask")
    strides = tf.get_static_value(operation.inputs[3])
    return bool(whole and not others & 1 and strides is not None and strides[0] == 1)


def _slice(operation, _):
    begin, size = (tf.get_static_value(x) for x in operation.inputs[1:])
    rows = operation.inputs[0].shape[0]
    return begin is not None and size is not None and begin[0] == 0 and size[0] in (-1, rows)


def _expand_dims(operation, _):
    axis = tf.get_static_value(operation.inputs[1])
    return axis is not None and int(axis) % operation.outputs[0].shape.rank != 0


def _squeeze(operation, _):
    axes = _attribute(operation, "squeeze_dims")
    return 0 not in axes if axes else operation.inputs[0].shape[0] not in (1, None)


def _first_is(value):
    """The second input says of every axis what is done along it: along the first `value`, which is nothing."""

    def keeps(operation, _):
        given = tf.get_static_value(operation.inputs[1])
        return given is not None and (given[0] == value).all()

    return keeps


def _of(position):
    """Images or rows of the examples, and filters or numbers that are no examples."""

    def keeps(_, depends):
        return [i for i, one in enumerate(depends) if one] == [position]

    return keeps


def _of_stack(operation, depends):
    """Along the last two axes of three or more."""
    return all(x.shape.rank > 2 for x, one in zip(operation.inputs, depends, strict=True) if one)


def _along_last(operation, depends):
    """Along the last axis of two or more."""
    return operation.inputs[0].shape.rank > 1 and not any(depends[1:])


def _attribute(operation, name):
    try:
        return operation.get_attr(name)
    except (ValueError, KeyError):
        return 0


OF_SHAPES = ("Rank", "Shape", "ShapeN", "Size", "BroadcastGradientArgs")
"""What depends on the shape of its input alone."""

SIZED_BY_VALUES = (
    "DynamicPartition", "ListDiff", "Unique", "UniqueV2", "UniqueWithCounts", "UniqueWithCountsV2", "Where",
)  # fmt: skip
"""Whose outputs are as many as the numbers in its input say."""

ELEMENTWISE = {
    "Abs", "Acos", "Acosh", "Add", "AddN", "AddV2", "Angle", "Asin", "Asinh", "Atan", "Atan2", "Atanh", "Bitcast",
    "BroadcastTo", "Cast", "Ceil", "CheckNumerics", "ClipByValue", "Complex", "ComplexAbs", "Conj", "Cos", "Cosh", "Digamma",
    "Div", "DivNoNan", "Elu", "EnsureShape", "Equal", "Erf", "Erfc", "Erfinv", "Exp", "Expm1", "Floor", "FloorDiv",
    "FloorMod", "Greater", "GreaterEqual", "Identity", "Imag", "Inv", "IsFinite", "IsInf", "IsNan", "LeakyRelu", "Less",
    "LessEqual", "Lgamma", "Log", "Log1p", "LogicalAnd", "LogicalNot", "LogicalOr", "Maximum", "Minimum", "Mod", "Mul",
    "MulNoNan", "Neg", "NotEqual", "OnesLike", "Pow", "PreventGradient", "Real", "RealDiv", "Reciprocal", "Relu", "Relu6",
    "Rint", "Round", "Rsqrt", "Select", "SelectV2", "Selu", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt",
    "Square", "SquaredDifference", "StopGradient", "Sub", "Tan", "Tanh", "Xdivy", "Xlog1py", "Xlogy", "ZerosLike",
    "swish_impl",
}  # fmt: skip
"""Types of operations that take numbers in the same place together (`swish_impl` is how `tf.nn.silu` runs eagerly)."""

KEEPS: dict = {
    **dict.fromkeys(["All", "Any", "ArgMax", "ArgMin", "Cumprod", "Cumsum", "EuclideanNorm"], _not_along_first(1)),
    **dict.fromkeys(["Max", "Mean", "Min", "Prod", "ReverseV2", "Sum"], _not_along_first(1)),
    **dict.fromkeys(["MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"], _matmul),
    **dict.fromkeys(["Pad", "PadV2", "MirrorPad"], _first_is(0)),
    **dict.fromkeys(["Conv2D", "Conv3D", "DepthwiseConv2dNative", "BiasAdd", "LRN"], _of(0)),
    **dict.fromkeys(["Conv2DBackpropInput", "Conv3DBackpropInputV2"], _of(2)),
    **dict.fromkeys(["AvgPool", "AvgPool3D", "MaxPool", "MaxPool3D", "DepthToSpace", "SpaceToDepth"], _of(0)),
    **dict.fromkeys(["ResizeArea", "ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor"], _of(0)),
    **dict.fromkeys(["Cholesky", "MatrixBandPart", "MatrixInverse", "MatrixTriangularSolve", "MatrixSolve"], _of_stack),
    **dict.fromkeys(["FFT", "IFFT", "RFFT", "IRFFT", "LogSoftmax", "Softmax", "TopKV2"], _along_last),
    **dict.fromkeys(["FFT2D", "IFFT2D", "RFFT2D", "IRFFT2D"], _of_stack),
    **dict.fromkeys(["SoftmaxCrossEntropyWithLogits", "SparseSoftmaxCrossEntropyWithLogits"], lambda *_: True),
    "ConcatV2": _not_along_first(-1),
    "Einsum": _einsum,
    "ExpandDims": _expand_dims,
    "GatherV2": _gather,
    "OneHot": lambda operation, _: _attribute(operation, "axis") != 0,
    "Pack": lambda operation, _: _attribute(operation, "axis") % operation.outputs[0].shape.rank != 0,
    "ResourceGather": lambda operation, depends: depends[1],
    "Roll": _not_along_first(2),
    "Slice": _slice,
    "Split": _not_along_first(0, data=1),
    "SplitV": _not_along_first(2),
    "Squeeze": _squeeze,
    "StridedSlice": _strided_slice,
    "Tile": _first_is(1),
    "Transpose": lambda operation, _: (axes := tf.get_static_value(operation.inputs[1])) is not None and axes[0] == 0,
    "Unpack": lambda operation, _: _attribute(operation, "axis") % operation.inputs[0].shape.rank != 0,
}
"""Type -> whether an operation keeps the examples' rows, given which of its inputs depend on them."""
