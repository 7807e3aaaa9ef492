"""The figures that `figures.c` knows, and how a step asks for them."""

import math
import pathlib
from typing import Any

import tensorflow as tf

from keras_backprop import _tensorflow, native_library

SOURCE = pathlib.Path(__file__).with_name("figures.c")

OPERATION = "KerasBackpropFigures"

FIGURES = ("squares", "mean", "spread", "max", "min", "zeros", "finite", "saturated", "change")
"""In the order of their bits, and in which they are put out."""

TOGETHER = 2**14
"""Elements of all tensors that one operation measures, at most (64 KiB): so they are measured while they are in the cache."""

UNKNOWN = 32
"""What a size that is not known counts."""


class Measured:
    """A tensor and what is to be measured of it.

    Attributes:
        x: tensor or variable of single precision.
        columns: dict, figure -> the number of its column in a row.
        limits: (float, float), outside of which it is "saturated".
        weight: the Keras variable whose "change" from x is measured; None without it.
    """

    def __init__(self, x: Any) -> None:
        self.x = x
        self.columns: dict = {}
        self.limits: tuple = (-math.inf, math.inf)
        self.weight: Any = None

    @property
    def size(self) -> int:
        """The number of elements, of batches of `UNKNOWN` examples where it is not known."""
        return math.prod(UNKNOWN if size is None else size for size in self.x.shape)

    @classmethod
    def of(cls, name: str, x: Any, known: dict) -> "Measured":
        """The one among those `known`, by the identity of tensors, or a new one.

        Args:
            name: str, a figure for which `measures(name, x)`.
            x: tensor; of "saturated" (limits, tensor), of "change" (weight, its value before).
            known: dict.
        """
        tensor = _tensor(x)
        one = known.setdefault(id(tensor), cls(tensor))
        if name == "saturated":
            one.limits = x[0]
        elif name == "change":
            one.weight = x[0]
        return one


def _tensor(x):
    return x[-1] if isinstance(x, tuple) else x


def measures(name: str, x: Any) -> bool:
    """Whether the operation can be asked for a figure in the graph that is being traced.

    Args:
        name: str.
        x: as `Measured.of` takes it.
    """
    x = _tensor(x)
    return (
        name in FIGURES
        and isinstance(x, (tf.Tensor, tf.Variable))
        and x.dtype == tf.float32
        and x.shape.rank is not None
        and not tf.executing_eagerly()
        and not tf.config.list_logical_devices("GPU")
        and native_library.is_loaded(SOURCE, OPERATION)
    )


def parts(measured: Any) -> list[list[Measured]]:
    """Tensors in groups, of which each is measured by one operation."""
    found: list = []
    size = TOGETHER
    for one in measured:
        if size + one.size > TOGETHER:
            found.append([])
            size = 0
        found[-1].append(one)
        size += one.size
    return found


def vector_of(measured: list, otherwise: Any) -> tuple[Any, list[int]]:
    """Figures of tensors, by one operation where the step runs in a compiled loop.

    Args:
        measured: list of `Measured`.
        otherwise: function (measured, columns) -> the figures of these columns by TensorFlow's operations, a vector.

    Returns:
        A vector, and the columns that it holds.
    """
    columns = [one.columns[name] for one in measured for name in FIGURES if name in one.columns]
    inputs, wanted, limits = [], [], []
    for one in measured:
        inputs.append(tf.convert_to_tensor(one.x))
        wanted.append(sum(1 << FIGURES.index(name) for name in one.columns))
        limits.append(one.limits)
        if one.weight is not None:
            inputs.append(tf.convert_to_tensor(one.weight.value))
            wanted.append(0)
            limits.append(one.limits)
    node = tf.compat.v1.NodeDef(op=OPERATION)
    node.attr["N"].i = len(inputs)
    node.attr["wanted"].list.i.extend(wanted)
    node.attr["lower"].list.f.extend(lower for lower, _ in limits)
    node.attr["upper"].list.f.extend(upper for _, upper in limits)
    return _tensorflow.substitutable(otherwise(measured, columns), inputs, node), columns
