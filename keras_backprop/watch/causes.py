"""What is likely wrong where a value turns non-finite, and what helps: a table by operation, and what is known of the step."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

GROWTH = 100.0
"""Weights or a loss that have grown by this factor within the frames speak of a learning rate."""


@dataclass
class Circumstances:
    """What is known of the place.

    Attributes:
        kind: str, the type of the operation.
        inputs: list of arrays, what went into it.
        bad: bool array, where its result is not finite; of the backward pass, where the gradient is not.
        dtype: of its result.
        frames: list of `Frame`.
        backward: bool, whether a gradient is concerned, and the forward values are finite where they count.
        named: None, or ("x" | "y" | "sample_weight" | "weight" | "constant", name): the source that was not finite to begin with.
        layer: str, the path.
        gradient: None or array, the gradient that is not finite.
        direction: str.
    """

    kind: str
    inputs: list
    bad: Any
    dtype: Any
    frames: list
    backward: bool = False
    named: Any = None
    layer: str = ""
    gradient: Any = None
    direction: str = ""

    @staticmethod
    def suspicious(kind, inputs):
        """Whether an operation was taken where its derivative, or its value, is not finite."""
        return kind in _DOMAIN and bool(inputs) and _DOMAIN[kind](*inputs) is not None


def cause_of(c: Circumstances) -> tuple[str, str]:
    """The likely cause and its remedy, two strings."""
    if c.named is not None:
        return _of_source(c)
    at_edge = _DOMAIN[c.kind](*c.inputs) if c.kind in _DOMAIN and c.inputs else None
    if at_edge is not None:
        return _at_the_edge(c, *at_edge)
    if _blown_up(c.frames):
        return _learning_rate(c.frames)
    largest, half = _largest(c.inputs), c.dtype == tf.float16
    if c.kind in ("Exp", "Expm1", "Sinh", "Cosh"):
        dtype = c.dtype.real_dtype  # of a complex one
        limit = np.log(float(dtype.max)) + (np.log(2) if c.kind in ("Sinh", "Cosh") else 0)  # which are half of exp
        return (
            f"overflow of {c.kind.lower()} in {dtype.name} (the largest argument is {largest:.4g}; it overflows above "
            f"{limit:.4g})",
            "subtract the maximum before it, clip its argument, or stay with logarithms (`logsumexp`, `log_softmax`, `softplus`)",
        )
    if half:
        what = "a gradient" if c.backward else "a value"
        return (
            f"overflow in float16: {what} is beyond 65504 (largest |input| {largest:.4g})",
            "use `mixed_bfloat16`, give this layer dtype='float32', or scale its inputs down",
        )
    if c.direction == "incoming delta":
        return (
            "deltas that are finite one by one add up to more than the dtype can hold, or the error's own gradient is not finite",
            "clip the loss or its inputs, or scale them down",
        )
    if largest > 1e15:
        return (
            f"overflow: the values are too large (largest |input| {largest:.4g})",
            "scale the inputs, normalise in between, or lower the learning rate if weights have grown",
        )
    what = f"the derivative of {c.kind or 'the rule'}" if c.backward else f"{c.kind}"
    return f"{what} is not finite at these values", "keep the values away from there, by clipping or a small ε"


def _at_the_edge(c, cause, remedy):
    """An operation at the edge of its domain; backward, its derivative is infinite there."""
    if not c.backward:
        return cause, remedy
    hidden = c.gradient is None or np.isnan(c.gradient).any()
    why = ", although `where` or a zero hides the value: 0·∞ is NaN" if hidden else ""
    return (
        f"the gradient of {cause} is infinite{why}",
        f"make the argument safe before it, x = where(x > 0, x, 1), as well as the result after it; or {remedy}",
    )


def _of_source(c):
    part, name = c.named
    if part == "weight":
        return (
            f"the weight '{name}' is not finite already before this step: a learning rate that blew the weights up, or weights "
            "that were loaded so",
            "lower the learning rate or clip gradients; look at the weights that were loaded",
        )
    if part == "constant":
        return (
            "an infinity or NaN that the model computes with, a constant of its own, and that reaches the loss",
            "put a large finite number such as −1e9 in its place, or mask what it reaches",
        )
    word = {"x": "the data (x)", "y": "a label (y)", "sample_weight": "a sample weight"}[part]
    return f"inf or NaN in {word}", "remove or replace these entries before training"


def _learning_rate(frames):
    last, first = frames[-1], frames[0]
    largest = max(last.weights.values(), default=0.0)
    if len(frames) < 2:
        seen = f"the largest weight is {largest:.3g}"
    else:
        grown = largest / max(max(first.weights.values(), default=1.0), 1e-30)
        seen = (
            f"in the last {len(frames) - 1} steps the largest weight grew {grown:.3g} times, to {largest:.3g}; the loss was "
            f"{first.loss:.3g} at first"
        )
    return (
        f"a learning rate that blew the weights up: {seen}",
        "lower the learning rate, warm it up, or clip gradients (`clipnorm`)",
    )


def _blown_up(frames):
    if not frames:
        return False
    last, first = frames[-1], frames[0]
    w_last, w_first = (max(f.weights.values(), default=0.0) for f in (last, first))
    weights = w_last > max(1e3, GROWTH * w_first) or w_last > 1e6
    loss = np.isfinite(last.loss) and abs(last.loss) > 1e4 * max(abs(first.loss), 1e-3) and w_last > 10 * w_first
    return bool(weights or loss)


def _largest(inputs):
    sizes = [np.abs(x[np.isfinite(x)]).max() for x in inputs if x.size and np.issubdtype(x.dtype, np.floating)
             and np.isfinite(x).any()]  # fmt: skip
    return float(max(sizes, default=0.0))


_POSITIVE = "keep the argument positive: `maximum(x, ε)`, or x + ε where x ≥ 0"


def _log(x, *_):
    if (x == 0).any():
        return "log of 0", _POSITIVE
    return ("log of a negative number", _POSITIVE) if (x < 0).any() else None


def _log1p(x, *_):
    return ("log1p of −1 or less, a log of 0 or of a negative number", _POSITIVE) if (x <= -1).any() else None


def _sqrt(x, *_):
    if (x < 0).any():
        return "√ of a negative number (sqrt)", _POSITIVE
    return ("√ at 0 (sqrt)", "add a small ε under the root: `sqrt(x + 1e-7)`") if (x == 0).any() else None


def _rsqrt(x, *_):
    return ("1/√ at 0 or below (rsqrt)", "add a small ε under the root") if (x <= 0).any() else None


def _divide(a, b, *_):
    if not (b == 0).any():
        return None
    a, b = np.broadcast_arrays(a, b)
    what = "0/0" if (a[b == 0] == 0).all() else "a division by 0"
    return what, "`divide_no_nan`, or a small ε in the denominator"


def _reciprocal(x, *_):
    return ("a division by 0 (1/x)", "a small ε in the denominator") if (x == 0).any() else None


def _power(x, p, *_):
    x, p = np.broadcast_arrays(x, p)
    if ((x < 0) & (p != np.floor(p))).any():
        return "a broken power of a negative number", _POSITIVE
    if ((x == 0) & (p < 1) & (p != 0)).any():
        return "a power below 1 at 0", "add a small ε to the base"
    return None


def _softmax(x, *_):
    masked = np.isneginf(x).all(-1).any() if x.ndim else False
    if masked:
        return (
            "softmax of an all-masked row, −∞ everywhere (an attention row in which nothing may be attended to)",
            "mask with a large negative number such as −1e9 instead of −∞, or let every row see at least one position",
        )
    return None


def _outside(low, high, name):
    def domain(x, *_):
        return (
            (f"{name} at the edge of its domain or outside", "clip the argument a little inside the domain")
            if ((x <= low) | (x >= high)).any()
            else None
        )

    return domain


_DOMAIN = {
    "Log": _log, "Log1p": _log1p, "Sqrt": _sqrt, "Rsqrt": _rsqrt, "RealDiv": _divide, "Div": _divide, "Xdivy": _divide,
    "Reciprocal": _reciprocal, "Inv": _reciprocal, "Pow": _power, "Softmax": _softmax, "LogSoftmax": _softmax,
    "Acos": _outside(-1, 1, "arccos"), "Asin": _outside(-1, 1, "arcsin"), "Atanh": _outside(-1, 1, "artanh"),
    "Acosh": _outside(1, np.inf, "arcosh"),
}  # fmt: skip
"""Type of an operation -> function of what went in: (cause, remedy), or None where its value and derivative are finite."""
