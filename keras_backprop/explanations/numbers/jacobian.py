"""All derivatives of what comes out of a small link by what goes in, one output at a time, by the rule that ran."""

import functools
from typing import Any

import numpy as np
import tensorflow as tf

__all__ = ["jacobian_of"]

MOST_OUTPUTS, MOST_NUMBERS = 64, 250_000
"""So many numbers of an example may come out, and so many derivatives there may be."""


def jacobian_of(call: Any, rule: Any) -> Any:
    """A function that gives the derivatives of a call that has no weights; None where there are too many of them.

    Args:
        call: the `Call`.
        rule: the `Rule` that ran.

    Returns:
        A function without arguments: for each output a list with, for each input, an array `(n, out, in)` of numbers of single
        examples, or None where there is no derivative.
    """
    examples = {int(y.shape[0]) if y.shape.rank and y.dtype.is_floating else 0 for y in call.outputs}
    count = examples.pop() if len(examples) == 1 else 0
    sides = call.outputs, [x for x in call.inputs if _of_examples(x, count)]
    out, into = (sum(int(np.prod(x.shape[1:])) for x in side) for side in sides)
    if not (count and into and 0 < out <= MOST_OUTPUTS) or out * into * count > MOST_NUMBERS:
        return None
    return functools.partial(_derivatives, call, rule)


def _of_examples(x, count):
    """Whether a tensor has a row for each of the examples; others are constants."""
    return bool(x.shape.rank) and x.dtype.is_floating and x.shape[0] == count


def _derivatives(call, rule):
    found = []
    for position, y in enumerate(call.outputs):
        shape = tuple(map(int, y.shape))
        rows: list = [[] for _ in call.inputs]
        for unit in range(int(np.prod(shape[1:]))):
            seed = np.zeros((shape[0], int(np.prod(shape[1:]))))
            seed[:, unit] = 1.0
            dys = [tf.zeros_like(one) for one in call.outputs]
            dys[position] = tf.constant(seed.reshape(shape), y.dtype)
            for into, dx in zip(rows, _applied(call, rule, dys), strict=True):
                into.append(dx)
        found.append([_stacked(into) for into in rows])
    return found


def _applied(call, rule, dys):
    """∂/∂input for each input, as `(n, units)`; None where there is none, or it is of another shape."""
    gradients = rule.backward(call, tuple(dys) if len(dys) > 1 else dys[0]).inputs
    for x, dx in zip(call.inputs, gradients, strict=True):
        dx = dx() if callable(dx) else dx
        if dx is None or not _of_examples(x, dys[0].shape[0]):
            yield None
            continue
        array = _unbroadcast(np.asarray(tf.convert_to_tensor(dx), "float64"), tuple(x.shape))
        yield array.reshape(len(array), -1) if array.shape == tuple(x.shape) else None


def _unbroadcast(dx, shape):
    """Summed over the axes along which an input of this shape was broadcast: rules leave that to others."""
    dx = dx.sum(tuple(range(max(dx.ndim - len(shape), 0))))
    ones = tuple(axis for axis, size in enumerate(shape) if size == 1 and dx.ndim == len(shape))
    return dx.sum(ones, keepdims=True) if ones else dx


def _stacked(rows):
    return None if not rows or any(row is None for row in rows) else np.stack(rows, 1)
