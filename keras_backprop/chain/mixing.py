"""Which links mix the examples of a batch, on the way from weights to the error.

The error is a sum over the examples in the end; that mixes nothing, as long as what comes after it adds up and scales only. Any
other link that is given rows of examples and returns none makes a gradient depend on who else is in the batch.
"""

import keras

from keras_backprop.chain.rows import MIXED
from keras_backprop.rule import Operation

MIXING_LOSSES = (keras.losses.Circle, keras.losses.Dice, keras.losses.Tversky)
"""Losses of Keras whose values for an example may depend on the others."""


def mixing(seen, upstream, rows):
    """The links that mix the examples. One of which it is not known counts as one that does.

    Args:
        seen: list of (call, dys, dxs, weight gradients by name), in backward order.
        upstream: list of (tensor, gradient): the error is the sum of these products.
        rows: `Rows` of the forward pass.

    Returns:
        dict, path -> why, in forward order.
    """
    links = [
        (
            call,
            [x for x, dx in zip(call.inputs, dxs, strict=True) if dx is not None and rows.depends(x)],
            [y for y, dy in zip(call.outputs, dys, strict=True) if dy is not None],
        )
        for call, dys, dxs, _ in seen
    ]
    added = {id(y) for y, _ in upstream}  # the error is a sum of what these consist of
    for call, given, outputs in links:
        if _adds(call, given) and all(id(y) in added for y in outputs):
            added.update(map(id, given))
    found, scaled = {}, set()  # `scaled`: rows, times something that depends on other examples and has no gradient
    for call, given, outputs in reversed(links):
        had_rows = any(rows.of(x) is not MIXED or id(x) in scaled for x in given)
        have_rows = all(rows.depends(y) and rows.of(y) is not MIXED for y in outputs)
        if not had_rows or have_rows or _is_of_examples(call, outputs):
            continue
        if scales(call, given) and outputs[0].shape == given[0].shape:
            scaled.add(id(outputs[0]))
        elif not (_adds(call, given) and all(id(y) in added for y in outputs)):
            found[call.path] = (
                f"the result of '{call.path}' ({kind_of(call.op)}) has no rows that belong to one example each"
            )
    return found


def kind_of(op):
    """The type of an operation of TensorFlow, or the name of a class."""
    return op.name if isinstance(op, Operation) else type(op).__name__


SUMS = frozenset(
    ["Add", "AddN", "AddV2", "Cast", "Identity", "Mean", "Neg", "Pack", "Reshape", "Stack", "Sub", "Subtract", "Sum"]
)
QUOTIENTS = frozenset(["DivNoNan", "Divide", "DivideNoNan", "RealDiv", "TrueDivide"])
_PRODUCTS = frozenset(["Mul", "Multiply"])


def _adds(call, given):
    """Whether a link is linear in what has a gradient, and makes of its inputs what may be added up."""
    return kind_of(call.op) in SUMS or scales(call, given)


def scales(call, given):
    kind = kind_of(call.op)
    return len(given) == 1 and (kind in _PRODUCTS or (kind in QUOTIENTS and given[0] is call.inputs[0]))


def _is_of_examples(call, outputs):
    """Whether it is a loss of Keras that returns a value for each example, or a penalty that adds up over them."""
    if type(call.op) in (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2):
        return True
    of_keras = isinstance(call.op, keras.losses.Loss) and type(call.op).__module__.startswith("keras.")
    return of_keras and not isinstance(call.op, MIXING_LOSSES) and all(y.shape.rank for y in outputs)
