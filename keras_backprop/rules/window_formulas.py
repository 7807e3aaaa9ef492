"""How convolutions, pooling and layers that move numbers are written, one window at a time.

`window(x)` is what a window sees, as a row; `spread` puts rows back where a window took them, and adds up where windows overlap.
`channels` says that every channel is by itself. Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016).
"""

from dataclasses import replace

from keras import layers

from keras_backprop._keras import ops
from keras_backprop.formula import Cases, Formula
from keras_backprop.rules.operation_formulas import side_by_side

_DEPTHWISE = Formula(
    "channels(window(x) @ W) + b",
    gradients={"x": "channels(spread(dy @ W.T))", "W": "channels(window(x).T @ dy)", "b": "examples(dy)"},
)
_SEPARABLE = Formula(
    "u @ P + b",
    gradients={
        "x": "channels(spread(du @ D.T))",
        "D": "channels(window(x).T @ du)",
        "P": "u.T @ dy",
        "b": "examples(dy)",
    },
    parts=(("u", "channels(window(x) @ D)"), ("du", "dy @ P.T")),
)
_LARGEST = Formula("largest(window(x))", gradients={"x": "spread(dy*(window(x) == y))"})
_MEAN = Formula("mean(window(x))", gradients={"x": "spread(dy/k)"})

_REPEATED = Formula("repeated(x)", gradients={"x": "total(window(dy))"})


def _has_one_way(name):
    """Whether a layer of this class enlarges in one way only."""
    return name in ("UpSampling1D", "UpSampling3D")


_TO_THE_ONES_TAKEN = {"x": "spread(dy/total(x == y))*(x == y)"}

WINDOWS = {
    (layers.Conv1D, layers.Conv2D, layers.Conv3D): Formula(
        "window(x) @ W + b", gradients={"x": "spread(dy @ W.T)", "W": "window(x).T @ dy", "b": "examples(dy)"}
    ),
    (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose): Formula(
        "spread(x @ W.T) + b", gradients={"x": "window(dy) @ W", "W": "window(dy).T @ x", "b": "examples(dy)"}
    ),
    (layers.DepthwiseConv1D, layers.DepthwiseConv2D): _DEPTHWISE,
    (layers.SeparableConv1D, layers.SeparableConv2D): _SEPARABLE,
    (layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D): _LARGEST,
    (layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D): _MEAN,
    (layers.AdaptiveMaxPooling1D, layers.AdaptiveMaxPooling2D, layers.AdaptiveMaxPooling3D): _LARGEST,
    (layers.AdaptiveAveragePooling1D, layers.AdaptiveAveragePooling2D, layers.AdaptiveAveragePooling3D): _MEAN,
    (layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D, layers.GlobalAveragePooling3D): Formula(
        "mean(x)", gradients={"x": "spread(dy/k)"}, when={"masked": False}
    ),
    (layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D): Formula(
        "largest(x)", gradients={"x": "spread(dy*(x == y)/total(x == y))"}
    ),
    (layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D): Cases(
        (replace(_REPEATED, when={"interpolation": "nearest"}), replace(_REPEATED, when={"class": _has_one_way}))
    ),
    (layers.RepeatVector,): _REPEATED,
    (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D): Formula(
        "padded(x)", gradients={"x": "cropped(dy)"}
    ),
    (layers.Cropping1D, layers.Cropping2D, layers.Cropping3D): Formula("cropped(x)", gradients={"x": "padded(dy)"}),
    (layers.Flatten, layers.Reshape, ops.Reshape, ops.Ravel, ops.ExpandDims, ops.Squeeze): Formula(
        "x", gradients={"x": "dy"}
    ),
    (ops.Transpose, ops.Swapaxes, ops.Moveaxis, ops.Flip, ops.Roll): Formula(
        "permuted(x)", gradients={"x": "permuted(dy)"}
    ),
    (ops.Sum,): Formula("total(x)", gradients={"x": "spread(dy)"}),
    (ops.Mean,): Formula("mean(x)", gradients={"x": "spread(dy/k)"}),
    (ops.Max, ops.Amax): Cases(
        (
            Formula("largest(x)", gradients=_TO_THE_ONES_TAKEN, when={"class": lambda name: name in ("Max", "Amax")}),
            Formula("smallest(x)", gradients=_TO_THE_ONES_TAKEN, when={"class": lambda name: name in ("Min", "Amin")}),
        )
    ),
    (layers.Permute,): Formula("permuted(x)", gradients={"x": "permuted(dy)"}),
    (layers.Concatenate,): side_by_side(axis=-1),
}
"""What takes its numbers from places: y, and the gradients of what goes in."""
