"""What is known of the derivatives of a link: whether they are the same everywhere, of one number alone, all that there is."""

from typing import Any

import numpy as np

from keras_backprop.explanations.numbers.agreement import agrees
from keras_backprop.explanations.numbers.positions import flat
from keras_backprop.rule import Operation

__all__ = ["accounts_for", "is_elementwise", "is_linear"]

RULES = {
    "Add", "Cast", "Copy", "CropImages", "Cropping1D", "Cropping2D", "Cropping3D", "DepthToSpace", "Diag", "Diagflat",
    "Diagonal", "Diff", "Divide", "Dsplit", "ExpandDims", "ExtractPatches", "ExtractSequences", "Flatten", "Flip", "Fliplr",
    "Flipud", "Fold", "Hsplit", "Mean", "Moveaxis", "Multiply", "Pad", "PadImages", "Permute", "Ravel", "Rearrange", "Repeat",
    "RepeatVector", "Rescaling", "Reshape", "Resize", "Roll", "Rot90", "SpaceToDepth", "Split", "Squeeze", "Subtract", "Sum",
    "Swapaxes", "Tile", "Trace", "Transpose", "Trapezoid", "Tril", "Triu", "TrueDivide", "Unfold", "Unstack", "UpSampling1D",
    "UpSampling2D", "UpSampling3D", "View", "Vsplit", "ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D", "adaptive_average",
    "add", "append", "average", "average_pool", "broadcast_to", "concatenate", "correlate", "cumulative_sum", "dot", "einsum",
    "get_item", "global_average", "identity", "kron", "matmul", "multiply", "outer", "slice_out", "stack", "stack_along",
    "subtract", "take", "take_along_axis", "tensordot",
}  # fmt: skip
"""Rules of functions that are linear in each input, the others held."""

OPERATIONS = {
    "Add", "AddN", "AddV2", "AvgPool", "AvgPool3D", "BatchMatMulV2", "BatchToSpaceND", "BiasAdd", "BroadcastTo", "Cast",
    "ConcatV2", "Cumsum", "DepthToSpace", "Einsum", "ExpandDims", "GatherNd", "GatherV2", "Identity", "IdentityN", "MatMul",
    "MatrixDiagPartV3", "MatrixDiagV3", "Mean", "MirrorPad", "Mul", "Neg", "Pack", "Pad", "PadV2", "RealDiv", "Reshape",
    "ResizeBilinear", "ResizeNearestNeighbor", "ReverseV2", "Roll", "Slice", "SpaceToBatchND", "SpaceToDepth", "Split",
    "SplitV", "Squeeze", "StridedSlice", "Sub", "Sum", "Tile", "Transpose", "Unpack",
}  # fmt: skip
"""Types of TensorFlow's operations of this kind."""


def is_linear(link: Any) -> bool:
    """Whether a link is known to be linear in each of its inputs.

    Observed derivatives cannot tell: those of a maximum are constant, too, as long as the same number is the largest.
    """
    if isinstance(link.op, Operation):
        return link.op.operation.type in OPERATIONS
    return link.rule in RULES


def is_elementwise(link: Any) -> bool:
    """Whether every number of what comes out depends on that number alone of what goes in, as far as can be told."""
    if link.jacobian is None:
        return link.formula is None or link.kind != "activation"
    ((jacobian,),) = link.jacobian()
    return jacobian is not None and not np.any(jacobian * (1 - np.eye(jacobian.shape[-1])))


def accounts_for(every: list, link: Any, varied: list) -> bool:
    """Whether the derivatives of single examples give what the link made of the gradient."""
    dys = [np.zeros(np.shape(y)) if dy is None else dy for y, dy in zip(link.outputs, link.upstream, strict=True)]
    for place, n in enumerate(varied):
        dx = sum(np.einsum("no,noi->ni", flat(dy), jacobians[place]) for dy, jacobians in zip(dys, every, strict=True))
        if link.downstream[n] is not None and not agrees(dx, flat(link.downstream[n])):
            return False
    return True
