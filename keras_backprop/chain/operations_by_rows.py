"""What the operations of TensorFlow do with the rows of the examples: tables by type."""

import tensorflow as tf


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
    transposed = any(attribute(operation, name) for name in ("transpose_a", "adj_x"))
    if a.shape.rank == 2:
        return depends == [True, False] and b.shape.rank == 2 and not transposed
    rank = operation.outputs[0].shape.rank
    return all(x.shape.rank == rank and rank > 2 for x, one in zip((a, b), depends, strict=True) if one)


def _einsum(operation, depends):
    """The first letter of the result is the first of every operand that depends on the examples, and of no other."""
    equation = attribute(operation, "equation")
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
        return bool(attribute(operation, "batch_dims")) and depends[:2] == [True, True]
    return 0 in axes if depends[1] else 0 not in axes


def _strided_slice(operation, _):
    """All rows, and whatever of each."""
    if attribute(operation, "ellipsis_mask") & 1:
        return len(tf.get_static_value(operation.inputs[1])) <= operation.inputs[0].shape.rank
    whole = attribute(operation, "begin_mask") & attribute(operation, "end_mask") & 1
    others = attribute(operation, "shrink_axis_mask") | attribute(operation, "new_axis_mask")
    strides = tf.get_static_value(operation.inputs[3])
    return bool(whole and not others & 1 and strides is not None and strides[0] == 1)


def is_first(operation):
    """Whether it takes the first of a list."""
    begin, end = (tf.get_static_value(x) for x in operation.inputs[1:3])
    return begin is not None and end is not None and begin.tolist() == [0] and end.tolist() == [1]


def _slice(operation, _):
    begin, size = (tf.get_static_value(x) for x in operation.inputs[1:])
    rows = operation.inputs[0].shape[0]
    return begin is not None and size is not None and begin[0] == 0 and size[0] in (-1, rows)


def _expand_dims(operation, _):
    axis = tf.get_static_value(operation.inputs[1])
    return axis is not None and int(axis) % operation.outputs[0].shape.rank != 0


def _squeeze(operation, _):
    axes = attribute(operation, "squeeze_dims")
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


def attribute(operation, name):
    try:
        return operation.get_attr(name)
    except (ValueError, KeyError):
        return 0


OF_SHAPES = ("Rank", "Shape", "ShapeN", "Size", "BroadcastGradientArgs")
"""What depends on the shape of its input alone."""

_SIZED_BY: dict = {
    **dict.fromkeys(["DynamicPartition", "Unique", "UniqueV2", "UniqueWithCounts", "UniqueWithCountsV2"], (0, 1)),
    **dict.fromkeys(["ListDiff", "RaggedRange", "Range"], (0, 1, 2)),
    **dict.fromkeys(["Empty", "Fill", "RandomStandardNormal", "RandomUniform", "TruncatedNormal", "Where"], (0,)),
    **dict.fromkeys(["BroadcastTo", "Reshape", "Tile", "Pad", "PadV2", "MirrorPad", "TopKV2"], (1,)),
    **dict.fromkeys(["ResizeArea", "ResizeBicubic", "ResizeBilinear", "ResizeNearestNeighbor"], (1,)),
    **dict.fromkeys(["StatelessRandomNormalV2", "StatelessRandomUniformV2", "StatelessTruncatedNormalV2"], (0,)),
    **dict.fromkeys(["SegmentMax", "SegmentMean", "SegmentMin", "SegmentProd", "SegmentSum"], (1,)),
    **dict.fromkeys(["UnsortedSegmentMax", "UnsortedSegmentMin", "UnsortedSegmentProd", "UnsortedSegmentSum"], (2,)),
    **dict.fromkeys(["Bincount", "DenseBincount", "OneHot", "SparseToDense"], (1,)),
    "LinSpace": (2,),
    "MatrixDiagV3": (2, 3),
    "RaggedTensorToTensor": (0, 1, 3, 4),
    "ScatterNd": (2,),
    "Slice": (1, 2),
    "StridedSlice": (1, 2, 3),
}
"""Type -> the places of the inputs whose numbers, not shapes alone, say how large the outputs are."""


def sizing(operation):
    """The inputs of an operation whose numbers say how large its outputs are."""
    return [operation.inputs[i] for i in _SIZED_BY.get(operation.type, ()) if i < len(operation.inputs)]


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
    **dict.fromkeys(["Multinomial", "StatelessMultinomial"], _along_last),
    **dict.fromkeys(["FFT2D", "IFFT2D", "RFFT2D", "IRFFT2D"], _of_stack),
    **dict.fromkeys(["SoftmaxCrossEntropyWithLogits", "SparseSoftmaxCrossEntropyWithLogits"], lambda *_: True),
    "ConcatV2": _not_along_first(-1),
    "Einsum": _einsum,
    "ExpandDims": _expand_dims,
    "GatherV2": _gather,
    "OneHot": lambda operation, _: attribute(operation, "axis") != 0,
    "Pack": lambda operation, _: attribute(operation, "axis") % operation.outputs[0].shape.rank != 0,
    "ResourceGather": lambda operation, depends: depends[1],
    "Roll": _not_along_first(2),
    "Slice": _slice,
    "Split": _not_along_first(0, data=1),
    "SplitV": _not_along_first(2),
    "Squeeze": _squeeze,
    "StridedSlice": _strided_slice,
    "Tile": _first_is(1),
    "Transpose": lambda operation, _: (axes := tf.get_static_value(operation.inputs[1])) is not None and axes[0] == 0,
    "Unpack": lambda operation, _: attribute(operation, "axis") % operation.inputs[0].shape.rank != 0,
}
"""Type -> whether an operation keeps the examples' rows, given which of its inputs depend on them."""
