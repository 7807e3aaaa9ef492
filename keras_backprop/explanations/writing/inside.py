"""What happens inside layers: one window, one unit, one row written out."""

from typing import Any

import keras
import numpy as np

from keras_backprop._keras import ops
from keras_backprop.explanations.writing.inside_windows import WINDOWS
from keras_backprop.explanations.writing.notation import A_FEW_ROWS, brief, number

__all__ = ["inside_rows"]


def inside_rows(link: Any, example: int = 0) -> list[tuple[str, str]]:
    """Lines (what, numbers) of a link whose rule says what it does; none for others.

    Args:
        link: the `Link` of a layer.
        example: int, of which example.
    """
    if link.formula is None or not link.outputs:
        return []
    for kinds, rows in _ROWS:
        if isinstance(link.op, kinds):
            of = "" if link.steps is None else ", first time step"
            return [(what + of, numbers) for what, numbers in rows(link.of_one_step(), example)]
    return []


def _normalised(over):
    """What the first number of an example is normalised by, checked against what came out; over "batch", "units", "group"."""

    def rows(link, example):
        layer, x, y = link.op, np.asarray(link.inputs[0], "float64"), np.asarray(link.outputs[0], "float64")
        if layer.axis not in (-1, x.ndim - 1, [-1], [x.ndim - 1]):
            return []
        channels = x.shape[-1] // (layer.groups if over == "group" else 1)
        values = {
            "batch": x[..., 0], "units": x[example].reshape(-1, x.shape[-1])[0], "group": x[example][..., :channels],
        }[over].ravel()  # fmt: skip
        centred = not isinstance(layer, keras.layers.RMSNormalization)
        mean = values.mean() if centred else 0.0
        variance, epsilon = np.mean((values - mean) ** 2), layer.epsilon
        first = x[example].reshape(-1, x.shape[-1])[0, 0]
        x_hat = (first - mean) / np.sqrt(variance + epsilon)
        scale, shift = (np.ravel(link.weights.get(name, default))[0] for name, default in _scales(link))
        if not np.isclose(scale * x_hat + shift, y[example].reshape(-1, x.shape[-1])[0, 0], rtol=1e-3, atol=1e-5):
            return []  # with other statistics: those of all batches before, or of what a mask shows
        sizes = f"μ = {number(mean)}, σ² = {number(variance)}" if centred else f"mean x² = {number(variance)}"
        written = "(x − μ)/√(σ² + ε)" if centred else "x/√(mean x² + ε)"
        return [(_OVER[over], f"{sizes}, ε = {number(epsilon)}; x̂ = {written} = {number(x_hat)}")]

    return rows


def _scales(link):
    return (("scale", 1.0) if "scale" in link.weights else ("gamma", 1.0)), ("beta", 0.0)


_OVER = {
    "batch": "first unit, over the batch", "units": "over the units of one example", "group": "first group of one example",
}  # fmt: skip


def _embedding(link, example):
    k = np.asarray(link.inputs[0])[example].ravel()
    rows = np.asarray(link.outputs[0])[example].reshape(len(k), -1)
    return [
        (
            "rows that were looked up",
            "; ".join(f"C_{int(i)} = {brief(row)}" for i, row in zip(k[:4], rows[:4], strict=True)),
        )
    ]


def _attention(link, example):
    """Scores, weights, output, where the weights times the values are what came out: without masks and dropout."""
    arrays = [np.asarray(x, "float64")[example] for x in link.inputs[:3]]
    output, scale, of = np.asarray(link.outputs[0])[example], 1.0, ""
    if link.kind == "op":  # (positions, heads, components)
        if len(arrays) < 3 or any(a.ndim != 3 for a in arrays):
            return []
        arrays, output = [a[:, 0] for a in (arrays[0], arrays[2], arrays[1])], output[:, 0]
        scale, of = float(link.options.get("scale") or arrays[0].shape[-1] ** -0.5), ", first head"
    if len(arrays) < 2 or any(a.ndim != 2 for a in arrays):
        return []
    q, v, k = (*arrays, arrays[1])[:3]
    scores = scale * q @ k.T
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    if not np.allclose(weights @ v, output, rtol=1e-3, atol=1e-5):
        return []
    written = "q·kᵀ" if scale == 1 else f"{number(scale)}·q·kᵀ"
    shown = ((f"scores S = {written}", scores), ("weights P = softmax(S)", weights), ("output P·v", weights @ v))
    return [(what + of, _rows_of(array)) for what, array in shown]


def _rows_of(array):
    return brief(array, few=A_FEW_ROWS)


def _dropout(link, example):
    x, y = (np.asarray(a)[example].ravel() for a in (link.inputs[0], link.outputs[0]))
    dy, dx = (None if a[0] is None else np.asarray(a[0])[example].ravel() for a in (link.upstream, link.downstream))

    def factor(i):
        if x[i]:
            return number(y[i] / x[i])
        return number(dx[i] / dy[i]) if dy is not None and dx is not None and dy[i] else "?"

    mask = [factor(i) for i in range(min(12, len(x)))]
    return [("mask m (0, or 1/(1 − rate))", " ".join(mask) + (" …" if len(x) > 12 else ""))]


_L = keras.layers
_ROWS = (
    *WINDOWS,
    (_L.BatchNormalization, _normalised("batch")),
    ((_L.LayerNormalization, _L.RMSNormalization), _normalised("units")),
    (_L.GroupNormalization, _normalised("group")),
    (_L.Embedding, _embedding),
    ((_L.Attention, ops.DotProductAttention), _attention),
    (_L.Dropout, _dropout),
)
