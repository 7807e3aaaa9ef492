"""What happens inside convolution, pooling, normalisation, embedding, attention: one window, one unit, one row written out."""

from typing import Any

import keras
import numpy as np

from keras_backprop.explanations.notation import brief, number

__all__ = ["inside_rows"]

MOST = 27  # so many products are written out


def inside_rows(link: Any, example: int = 0) -> list[tuple[str, str]]:
    """Lines (what, numbers) of a link whose rule says what it does; none for others.

    Args:
        link: the `Link` of a layer.
        example: int, of which example.
    """
    if link.formula is None or link.kind != "layer":
        return []
    for kinds, rows in _ROWS:
        if isinstance(link.op, kinds):
            return rows(link, example)
    return []


def _windows(link, example, size, strides):
    """The first window of one example, `(…, channels)`; None where the layout is another."""
    layer, x = link.op, np.asarray(link.inputs[0])[example]
    if layer.data_format != "channels_last" or layer.padding != "valid":
        return None
    return x[tuple(slice(0, s) for s in size)]


def _conv(link, example):
    layer = link.op
    window = _windows(link, example, layer.kernel_size, layer.strides)
    kernel = link.weights.get("kernel")
    if window is None or kernel is None or kernel[..., 0].size > MOST or any(d != 1 for d in layer.dilation_rate):
        return []
    products = [f"{_signed(x)}·{_signed(w)}" for x, w in zip(window.ravel(), kernel[..., 0].ravel(), strict=True)]
    bias = link.weights.get("bias")
    y = np.asarray(link.outputs[0])[example].reshape(-1, kernel.shape[-1])[0, 0]
    text = " + ".join(products) + ("" if bias is None else f" + {_signed(bias[0])}") + f" = {number(y)}"
    return [("first window, first channel", text)]


def _pooling(link, example):
    window = _windows(link, example, link.op.pool_size, link.op.strides)
    if window is None or window[..., 0].size > MOST:
        return []
    numbers = ", ".join(number(x) for x in window[..., 0].ravel())
    y = np.asarray(link.outputs[0])[example].reshape(-1, window.shape[-1])[0, 0]
    word = "largest" if "Max" in type(link.op).__name__ else "mean"
    return [("first window, first channel", f"{word} of {numbers} = {number(y)}")]


def _normalised(axis):
    def rows(link, example):
        x = np.asarray(link.inputs[0], "float64")
        flat = x.reshape(-1, x.shape[-1])
        values = flat[:, 0] if axis == 0 else x.reshape(len(x), -1)[example] if x.ndim == 2 else flat[0]
        mean, variance, epsilon = values.mean(), values.var(), link.op.epsilon
        x_hat = (values[example if axis == 0 and x.ndim == 2 else 0] - mean) / np.sqrt(variance + epsilon)
        of = "first unit, over the batch" if axis == 0 else "over the units of one example"
        return [
            (
                of,
                f"μ = {number(mean)}, σ² = {number(variance)}, ε = {number(epsilon)}; x̂ = (x − μ)/√(σ² + ε) = {number(x_hat)}",
            )
        ]

    return rows


def _embedding(link, example):
    k = np.asarray(link.inputs[0])[example].ravel()
    rows = np.asarray(link.outputs[0])[example].reshape(len(k), -1)
    return [
        (
            "rows that were looked up",
            "; ".join(f"E_{int(i)} = {brief(row)}" for i, row in zip(k[:4], rows[:4], strict=True)),
        )
    ]


def _attention(link, example):
    arrays = [np.asarray(x, "float64")[example] for x in link.inputs[:3]]
    if len(arrays) < 2 or any(a.ndim != 2 for a in arrays):
        return []
    q, v, k = (*arrays, arrays[1])[:3]
    scores = q @ k.T
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    if not np.allclose(weights @ v, np.asarray(link.outputs[0])[example], rtol=1e-3, atol=1e-5):
        return []  # masked, or with dropout
    return [
        ("scores q·kᵀ", brief(scores)),
        ("weights softmax(q·kᵀ)", brief(weights)),
        ("output weights·v", brief(weights @ v)),
    ]


def _dropout(link, example):
    x, y = (np.asarray(a)[example].ravel() for a in (link.inputs[0], link.outputs[0]))
    mask = [number(b / a) if a else "?" for a, b in zip(x[:12], y[:12], strict=True)]
    return [("mask m (0, or 1/(1 − rate))", " ".join(mask) + (" …" if len(x) > 12 else ""))]


def _signed(value):
    return f"({number(value)})" if value < 0 else number(value)


_L = keras.layers
_ROWS = (
    ((_L.Conv1D, _L.Conv2D, _L.Conv3D), _conv),
    (
        (
            _L.MaxPooling1D,
            _L.MaxPooling2D,
            _L.MaxPooling3D,
            _L.AveragePooling1D,
            _L.AveragePooling2D,
            _L.AveragePooling3D,
        ),
        _pooling,
    ),
    (_L.BatchNormalization, _normalised(0)),
    (_L.LayerNormalization, _normalised(1)),
    (_L.Embedding, _embedding),
    (_L.Attention, _attention),
    (_L.Dropout, _dropout),
)
