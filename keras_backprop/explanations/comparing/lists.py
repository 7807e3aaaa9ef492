"""Names that mean a list of arrays, one for each of several weights."""

from typing import Any

import numpy as np

__all__ = ["BY_LETTER", "kind_of_list", "weights_of_list"]

LISTS = ("gradients", "weights", "updates")
"""Names that mean an array for each weight."""

BY_LETTER = ("dw", "db", "w", "b", "w_new", "b_new", "dw_new")
"""Names that mean the weight of that shape, or a list with an array for each weight of that letter."""


def weights_of_list(name: str, values: Any, weights: list) -> list | None:
    """The weights that a list has an array for, one each; None where the value is one array.

    Args:
        name: str, as in `compare(dW=values)`.
        values: what was given.
        weights: list of `Weight`, all of them.
    """
    if name.lower() in LISTS:
        return weights
    if name.lower() not in BY_LETTER or not isinstance(values, (list, tuple)):
        return None
    biases = "b" in name.lower()
    wanted = [w for w in weights if (w.symbol.letter == "b" if biases else np.ndim(w.value) > 1)]
    if len(values) == len(weights) and not biases:
        wanted = weights
    shapes = [_shape(value) for value in values]
    sizes = [None if shape is None else int(np.prod(shape)) for shape in shapes]
    fits = len(wanted) > 1 and sizes == [np.size(w.value) for w in wanted]  # two of one shape could be one array, too
    return wanted if fits or len(set(shapes)) > 1 else None


def kind_of_list(name: str) -> str:
    """ "gradient", "update" or "weight": what such a name asks of the weights."""
    name = name.lower()
    if name in ("weights", "updates") or name.endswith("_new"):
        return "update"
    return "gradient" if name[0] in "dg" else "weight"


def _shape(value):
    try:
        return np.shape(value)
    except ValueError:  # rows of different lengths
        return None
