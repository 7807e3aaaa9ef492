"""The options of a call of which formulas speak, and under which they hold: numbers, words, None."""

from typing import Any

import numpy as np

from keras_backprop import _keras

__all__ = ["options_of"]

ATTRIBUTES = (
    "negative_slope", "alpha", "max_value", "threshold", "approximate", "l1", "l2", "rate", "axis",
    "epsilon", "delta", "score_mode",
    "use_scale", "invert", "interpolation", "tie_weights", "logit_soft_cap", "normalize",
    "dropout", "recurrent_dropout", "reset_after", "is_causal", "equation", "renorm", "scale", "offset", "order",
    "x_min", "x_max", "mode", "turns", "upper", "compute_uv",
)  # fmt: skip


def options_of(call: Any, gradients: Any) -> dict:
    """The options of a `Call`, by name.

    Args:
        call: the `Call`.
        gradients: for each input its gradient, None where there is none.

    Besides what the operation and the call say: "class", the name of the operation's class; "inputs" and "outputs", how many
    tensors go in and come out; "masked" and "biased", whether there is a mask, or something is added to scores; "masks_queries",
    whether there is a mask of the first of several inputs; "broadcasts", whether an input that has a
    gradient is of another shape than the output; "of_batch", whether a normalisation has the statistics of the batch; "rank", of
    the first input; "over", what an axis (of the last input) spans: the whole "batch", an "example" with all its axes, or
    "others"; "wide", whether the matrix that goes in is wider than tall; "cut", whether a transform is of a given length; "last",
    whether an axis is the last one; "row", which of two inputs is one row that all examples have.
    """
    own = {name: _as_plain(getattr(call.op, name)) for name in ATTRIBUTES if hasattr(call.op, name)}
    given = {name: value for name, value in own.items() if value is None or _is_plain(value)}
    given |= {**_keras.options_of(call.op), **call.arguments}
    plain = {name: _as_plain(value) for name, value in given.items()}
    varied = [
        x for x, dx in zip(call.inputs, gradients, strict=True) if dx is not None
    ]  # a constant may be of any shape
    return {name: value for name, value in plain.items() if value is None or _is_plain(value)} | {
        "class": type(call.op).__name__,
        "inputs": len(call.inputs),
        "outputs": len(call.outputs),
        "masked": _some(call.arguments.get("mask"))
        or bool(call.arguments.get("use_causal_mask"))
        or bool(given.get("is_causal")),
        "masks_queries": isinstance(mask := call.arguments.get("mask"), (list, tuple)) and _some(mask[:1]),
        "biased": call.arguments.get("bias") is not None,
        "broadcasts": any(x.shape != y.shape for y in call.outputs[:1] for x in varied),
        "of_batch": bool({"reserve", "centred"} & set(call.saved)),
        "rank": len(call.inputs[0].shape) if call.inputs else 0,
        "over": _spanned(given.get("axis"), call.inputs),
        "row": _row(call),
        "wide": bool(call.inputs)
        and call.inputs[0].shape.rank >= 2
        and call.inputs[0].shape[-1] > call.inputs[0].shape[-2],
        "cut": {**vars(call.op), **call.arguments}.get("fft_length") is not None
        if hasattr(call.op, "__dict__")
        else False,
        "last": bool(call.outputs) and given.get("axis") in (-1, len(call.outputs[0].shape) - 1),
    }


def _row(call):
    """Which of two inputs, "a" or "b", is one row that all examples have; None for none."""
    if len(call.inputs) != 2 or len(call.outputs) != 1 or len(call.outputs[0].shape) != 2:
        return None
    a, b, y = (x.shape for x in (*call.inputs, call.outputs[0]))
    return "b" if a == y and b == y[1:] else "a" if b == y and a == y[1:] else None


def _spanned(axis, inputs):
    """What a sum over an axis, or over several, spans."""
    if axis is None or not inputs:
        return "batch"
    rank = len(inputs[-1].shape)
    axes = {one % rank for one in (axis if isinstance(axis, (list, tuple)) else [axis])} if rank else set()
    return {frozenset(range(rank)): "batch", frozenset(range(1, rank)): "example"}.get(frozenset(axes), "others")


def _as_plain(value):
    """An array or a tensor of one number as that number."""
    if isinstance(value, (np.generic, np.ndarray)) and np.size(value) == 1:
        return value.item()
    if hasattr(value, "numpy") and getattr(value, "shape", None) == ():
        return value.numpy().item()
    return value


def _is_plain(value):
    return isinstance(value, (int, float, str))


def _some(mask):
    """Whether there is a mask, or one in a list."""
    return any(one is not None for one in mask) if isinstance(mask, (list, tuple)) else mask is not None
