"""The figures that `figures.c` knows, and how a step asks for them."""

import math
import pathlib
from typing import Any

import tensorflow as tf

from keras_backprop import _tensorflow, native_library

SOURCE = pathlib.Path(__file__).with_name("figures.c")

ROW, MEASURE, ROW_OF = "KerasBackpropRow", "KerasBackpropMeasure", "KerasBackpropRowOf"

FIGURES = ("squares", "mean", "spread", "max", "min", "zeros", "finite", "saturated", "change")
"""In the order of their bits, and in which they are put out."""

TOGETHER = 2**14
"""Elements of the tensors of weights that one operation measures, at most (64 KiB): so they are in the cache for it."""


class Measured:
    """A tensor and what is to be measured of it.

    Attributes:
        x: tensor or variable of single precision.
        columns: dict, figure -> the number of its column in a row.
        limits: (float, float), outside of which it is "saturated".
        weight: the Keras variable whose "change" from x is measured; None without it.
        of_weight: bool, whether x is a weight or a gradient of one.
    """

    def __init__(self, x: Any, of_weight: bool = False) -> None:
        self.x, self.of_weight = x, of_weight
        self.columns: dict = {}
        self.limits: tuple = (-math.inf, math.inf)
        self.weight: Any = None

    @property
    def tensors(self) -> list[Any]:
        """What the operation takes: x, and the weight as it has become."""
        return [self.x] if self.weight is None else [self.x, self.weight.value]

    @property
    def in_order(self) -> list[int]:
        """The columns, in the order in which the operation gives its figures."""
        return [self.columns[name] for name in FIGURES if name in self.columns]

    @classmethod
    def of(cls, name: str, x: Any, known: dict, of_weight: bool) -> "Measured":
        """The one among those `known`, by the identity of tensors, or a new one.

        Args:
            name: str, a figure for which `measures(name, x)`.
            x: tensor; of "saturated" (limits, tensor), of "change" (weight, its value before).
            known: dict.
            of_weight: bool, of a new one.
        """
        tensor = _tensor(x)
        one = known.setdefault(id(tensor), cls(tensor, of_weight))
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
        and all(native_library.is_loaded(SOURCE, operation) for operation in (ROW, MEASURE, ROW_OF))
    )


def vector_of(measured: list, otherwise: Any) -> tuple[Any, list[int]]:
    """Figures of tensors, by operations of our own where the step runs in a compiled loop.

    Args:
        measured: list of `Measured`.
        otherwise: function (measured, columns) -> the figures of these columns by TensorFlow's operations, a vector.

    Returns:
        A vector, and the columns that it holds.
    """
    columns: list = []
    inputs: list = []
    graph = tf.compat.v1.GraphDef()
    row = graph.node.add(name="row", op=ROW)
    for group in _groups(measured):
        node = graph.node.add(name=f"measure_{len(inputs)}", op=MEASURE, input=["row"])
        node.attr["place"].i = len(columns)
        for one in group:
            columns += one.in_order
            for x in one.tensors:
                names = one.columns if x is one.x else ()
                node.attr["wanted"].list.i.append(sum(1 << FIGURES.index(name) for name in names))
                node.attr["lower"].list.f.append(one.limits[0])
                node.attr["upper"].list.f.append(one.limits[1])
                node.input.append(str(len(inputs)))
                inputs.append(tf.convert_to_tensor(x))
        node.attr["N"].i = len(node.input) - 1
    row.attr["width"].i = len(columns)
    graph.node.add(
        name="row_of", op=ROW_OF, input=["row", *(f"^{node.name}" for node in graph.node if node is not row)]
    )
    return _tensorflow.substitutable(otherwise(measured, columns), inputs, graph), columns


def columns_of(measured: list) -> list[int]:
    """The columns of tensors, in the order in which `vector_of` has them."""
    return [column for group in _groups(measured) for one in group for column in one.in_order]


def _groups(measured):
    """What one operation measures: a tensor of a link, or as many of weights as fit into the cache together.

    What is made in a link is measured by itself: in a loop of one thread that comes before others take it, and the last of these
    may write its result over it. Of tensors that stay for longer, fewer operations are less work.
    """
    found: list = [[one] for one in measured if not one.of_weight]
    size = TOGETHER
    for one in measured:
        if one.of_weight:
            own = sum(x.shape.num_elements() or 0 for x in one.tensors)
            if size + own > TOGETHER:
                found.append([])
                size = 0
            found[-1].append(one)
            size += own
    return found
