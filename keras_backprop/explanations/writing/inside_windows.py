"""What happens inside convolution and pooling: one window written out, forward, and of the gradient of one weight."""

import keras
import numpy as np

from keras_backprop.explanations.numbers.windows import windows_of
from keras_backprop.explanations.writing.notation import number

__all__ = ["WINDOWS"]

MOST = 27  # so many products are written out


def _windows(link, example, size):
    """The windows of one example, by position `(…, size…, channels)`; None where the layout is another."""
    places = windows_of(link, size)
    return None if places is None else np.where(places < 0, 0.0, np.ravel(link.inputs[0][example])[places])


def _convolution(link, example):
    """Two lines of a convolution: the first number that comes out, and the gradient of the first weight."""
    layer, kernel, bias = link.op, link.weights.get("kernel"), link.weights.get("bias")
    if kernel is None or kernel[..., 0].size > MOST or layer.groups != 1:
        return []
    windows = _windows(link, example, layer.kernel_size)
    if windows is None:
        return []
    y = _positions(link.outputs[0][example])[0, 0]
    rows = [("first window, first channel", _sum(windows[0], kernel[..., 0], bias, y))]
    return rows + _of_first_weight(link, "kernel", _first_of_each(windows), example)


def _depthwise(link, example):
    """Of a convolution of every channel by itself."""
    layer, kernel, bias = link.op, link.weights.get("kernel"), link.weights.get("bias")
    if kernel is None or kernel[..., 0, 0].size > MOST:
        return []
    windows = _windows(link, example, layer.kernel_size)
    if windows is None:
        return []
    y = _positions(link.outputs[0][example])[0, 0]
    rows = [("first window of the first channel", _sum(windows[0][..., 0], kernel[..., 0, 0], bias, y))]
    return rows + _of_first_weight(link, "kernel", _first_of_each(windows), example)


def _separable(link, example):
    """Of a separable convolution: every channel by itself, and the sum over the channels."""
    layer, D, P = link.op, link.weights.get("depthwise_kernel"), link.weights.get("pointwise_kernel")
    if D is None or D[..., 0, 0].size > MOST or P.shape[-2] > MOST:
        return []
    windows = _windows(link, example, layer.kernel_size)
    if windows is None:
        return []
    u = np.sum(windows[0][..., None] * D, axis=tuple(range(D.ndim - 2))).ravel()
    y = _positions(link.outputs[0][example])[0, 0]
    return [
        ("first window of the first channel", _sum(windows[0][..., 0], D[..., 0, 0], None, u[0])),
        ("the channels there, put together", _sum(u, P.reshape(-1, P.shape[-1])[:, 0], link.weights.get("bias"), y)),
    ]


def _transposed(link, example):
    """Of a transposed convolution: what the first position spreads, before what others add where they overlap."""
    layer, kernel = link.op, link.weights.get("kernel")
    if layer.data_format != "channels_last" or kernel is None or kernel[..., 0, 0].size > MOST:
        return []
    x = _positions(link.inputs[0][example])[0]
    spread = np.asarray(kernel[..., 0, :], "float64") @ x
    if kernel.shape[-1] > MOST:
        return []
    first = np.ravel(kernel[(0,) * (kernel.ndim - 2)][0])
    numbers = ", ".join(number(value) for value in spread.ravel())
    return [
        ("first position, spread over its window (first channel)", numbers),
        ("its first number, without the bias", _sum(x, first, None, spread.ravel()[0])),
    ]


def _positions(array):
    """(…, channels) -> (positions, channels)"""
    return np.asarray(array).reshape(-1, np.shape(array)[-1])


def _first_of_each(windows):
    return windows.reshape(len(windows), -1)[:, 0]


def _of_first_weight(link, name, xs, example):
    """x·∂E/∂y over the windows, of one example."""
    dW, dy = link.weight_gradients.get(name), link.upstream[0]
    if dW is None or dy is None or len(dy) != 1 or len(xs) > MOST:
        return []
    products = _products(xs, _positions(dy[example])[:, 0])
    z = link.output_symbols[0] or "y"
    return [(f"∂E/∂(first weight), x·∂E/∂{z} over the windows", f"{products} = {number(np.ravel(dW)[0])}")]


def _sum(x, W, bias, y):
    """x·W + b = y in numbers."""
    products = _products(np.ravel(x), np.ravel(W))
    return f"{products}{'' if bias is None else f' + {_signed(np.ravel(bias)[0])}'} = {number(y)}"


def _products(first, second):
    return " + ".join(f"{_signed(x)}·{_signed(w)}" for x, w in zip(first, second, strict=True))


def _pooling(link, example):
    if link.op.padding != "valid":  # what is padded does not count
        return []
    windows = _windows(link, example, link.op.pool_size)
    if windows is None or windows[0][..., 0].size > MOST:
        return []
    numbers = ", ".join(number(x) for x in windows[0][..., 0].ravel())
    y = np.asarray(link.outputs[0])[example].reshape(-1, windows.shape[-1])[0, 0]
    word = "largest" if "Max" in type(link.op).__name__ else "mean"
    return [("first window, first channel", f"{word} of {numbers} = {number(y)}")]


def _signed(value):
    return f"({number(value)})" if value < 0 else number(value)


_L = keras.layers
WINDOWS = (
    ((_L.Conv1D, _L.Conv2D, _L.Conv3D), _convolution),
    ((_L.DepthwiseConv1D, _L.DepthwiseConv2D), _depthwise),
    ((_L.SeparableConv1D, _L.SeparableConv2D), _separable),
    ((_L.Conv1DTranspose, _L.Conv2DTranspose, _L.Conv3DTranspose), _transposed),
    ((_L.MaxPooling1D, _L.MaxPooling2D, _L.MaxPooling3D), _pooling),
    ((_L.AveragePooling1D, _L.AveragePooling2D, _L.AveragePooling3D), _pooling),
)  # fmt: skip
"""(kinds of layers, function (link, example) -> lines) for each."""
