"""By what an error is made of the errors of the examples, where no loss of Keras says so: their mean, or their sum.

It is read off the links between what has rows of the examples and the error: the first that has none adds up or averages, and
what comes after may multiply by constants, or divide by the number of examples.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_backprop.chain.mixing import QUOTIENTS, SUMS, kind_of, mixing, scales
from keras_backprop.chain.rows import MIXED

SUM, MEAN = "sum", "mean"


def reduction(seen: Any, upstream: Any, rows: Any, n: Any) -> tuple[Any, Any]:
    """What an error is of the examples' errors.

    Args:
        seen: list of (call, dys, dxs, weight gradients by name), in backward order.
        upstream: list of (tensor, gradient): the error is the sum of these products.
        rows: `Rows` of the forward pass.
        n: int or None, how many examples there are, if that is known.

    Returns:
        `SUM` or `MEAN`, and None; or None, and why it is not known.
    """
    found = next(iter(mixing(seen, upstream, rows).values()), None)
    if found is not None:
        return None, found
    kinds: dict = {}  # of tensors that depend on the examples and have no rows for them
    for call, dys, dxs, _ in reversed(seen):
        given = [x for x, dx in zip(call.inputs, dxs, strict=True) if dx is not None and rows.depends(x)]
        outputs = [y for y, dy in zip(call.outputs, dys, strict=True) if dy is not None]
        if not given or all(rows.depends(y) and rows.of(y) is not MIXED for y in outputs):
            continue
        kind = _after(call, given, kinds, rows, n)
        if kind is None:
            return (
                None,
                f"what '{call.path}' ({kind_of(call.op)}) makes of the examples' errors is neither a mean nor a sum",
            )
        kinds.update((id(y), kind) for y in outputs)
    ends = {kinds.get(id(y)) for y, _ in upstream if rows.depends(y)}
    if len(ends) != 1 or None in ends:
        return None, "it is no sum over the examples"
    return ends.pop(), None


def _after(call, given, kinds, rows, n):
    name = kind_of(call.op)
    if id(given[0]) not in kinds and len(given) == 1 and name in ("Mean", "Sum"):
        return MEAN if name == "Mean" else SUM
    of_inputs = {kinds.get(id(x)) for x in given}
    if len(of_inputs) != 1 or None in of_inputs:
        return None
    (kind,) = of_inputs
    if scales(call, given):
        return _scaled(kind, name, next((x for x in call.inputs if x is not given[0]), None), rows, n)
    return kind if name in SUMS else None


def _scaled(kind, name, factor, rows, n):
    """The kind after a multiplication or division by something that has no gradient."""
    if factor is None or rows.depends(factor):
        return None
    if name in QUOTIENTS and (rows.counts(factor) or (n and _is(factor, lambda value: (value == n) & (value > 2)))):
        return MEAN if kind == SUM else None
    # A multiple of the number of examples may be how many numbers there are, or happen to be one: then it is not known.
    of_sizes = rows.is_of_sizes(factor) or (
        n not in (None, 1) and _is(factor, lambda value: (value > 0) & (value % n == 0))
    )
    return None if of_sizes else kind


def _is(x, what):
    """Whether it is known of all numbers of a tensor."""
    value = tf.get_static_value(x)
    return value is not None and bool(np.all(what(value)))
