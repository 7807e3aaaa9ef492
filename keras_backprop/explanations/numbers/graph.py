"""The graph of a small network: its nodes, where the gradient comes in, and both passes through it.

A `Graph` is made of the links of an explanation, by `units.py`. Every value and derivative comes from the record. What is not
looked into ends the paths: there the record's own ∂E/∂· is a factor. `backward` multiplies and adds up with NumPy, so that one
can ask what a mistake would have given.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_backprop.explanations.numbers.nodes import Node

__all__ = ["Graph", "Head"]


@dataclass(eq=False)
class Head:
    """Where the gradient comes in.

    Attributes:
        node: `Node`.
        value: array `(n, units)`: ∂E/∂node, or the part of it that comes this way.
        text: str, LaTeX template in `{T}` and `{a}`; "" where it is not known.
        targets: array of the targets, or None.
        prediction: `Node`, the predictions: the node, or what a softmax makes of it.
        slope: function (values of node and prediction) -> value; None where it is not known.
        inner: function of the same -> ∂E/∂prediction, where that lies behind node: the activation between the two was
            differentiated together with the error. None elsewhere, and where it is not known.
        inner_of_quotient: the same, where Keras divides the predictions by their sum before: ΣT/Σa − T/a.
        via: str, which loss or link it comes from.
        formula: the `LossFormula`, or None.
        options: dict, letters of the formula -> numbers: the options of the loss.
    """

    node: Node
    value: np.ndarray
    text: str = ""
    targets: Any = None
    prediction: Any = None
    slope: Callable | None = None
    inner: Callable | None = None
    inner_of_quotient: Callable | None = None
    via: str = ""
    formula: Any = None
    options: dict = field(default_factory=dict)


@dataclass(eq=False)
class Graph:
    """The nodes in forward order, where the gradient comes in, and where the weights are.

    Attributes:
        nodes, heads, uses: lists.
        weights: dict, path -> array, before the update.
        extra: dict, path -> array: what penalties add to the gradient of a weight.
        opaque: dict, path -> list of (rule, array): contributions of links that are not looked into.
        errors: list of (`Node` of predictions, function predictions -> error), of the losses whose formula is known.
        penalties: float, the rest of E.
    """

    nodes: list = field(default_factory=list)
    heads: list = field(default_factory=list)
    uses: list = field(default_factory=list)
    weights: dict = field(default_factory=dict)
    extra: dict = field(default_factory=dict)
    opaque: dict = field(default_factory=dict)
    errors: list = field(default_factory=list)
    penalties: float = 0.0

    @property
    def error(self) -> float:
        """E."""
        with np.errstate(all="ignore"):  # what a mistake gives may be no number
            return self.penalties + sum(function(node.value) for node, function in self.errors)

    def backward(self, round_to: Any = None) -> None:
        """Give every node its ∂E/∂node. `round_to`: decimals to which every intermediate result is rounded, or None."""
        for node in self.nodes:
            node.gradient = np.zeros_like(node.value)
        for head in self.heads:
            head.node.gradient = head.node.gradient + head.value
        for node in reversed(self.nodes):
            for edge in node.edges:
                edge.source.gradient = _rounded(edge.source.gradient + edge.back(node.gradient), round_to)
        for head in self.heads:  # last: what passes the activation is in the gradient of the node already
            if head.inner is not None:
                direct = head.inner(head.node.value, head.prediction.value)
                head.prediction.gradient = _rounded(head.prediction.gradient + direct, round_to)

    def forward(self, round_to: Any = None) -> bool:
        """Compute all values anew, and the derivatives and heads. False where something is not known: then nothing is sure."""
        known = True
        for node in self.nodes:
            if not node.edges:
                continue
            values = [edge.source.value for edge in node.edges]
            if all(edge.weight is not None for edge in node.edges):
                products = [
                    value * edge.local if edge.matrix is None else value @ edge.matrix
                    for value, edge in zip(values, node.edges, strict=True)
                ]
                node.value = _rounded(sum(products) + node.bias, round_to)
                continue
            if node.compute is None:
                known = False
                continue
            node.value = _rounded(node.compute(*values) + node.bias, round_to)
            for edge in node.edges:
                if edge.derive is None:
                    known = known and not edge.function
                    continue
                derivative = _rounded(edge.derive(node.value, *values), round_to)
                edge.local, edge.jacobian = (derivative, None) if derivative.ndim == 2 else (None, derivative)
        for head in self.heads:
            if head.slope is None:
                known = False
            else:
                head.value = _rounded(head.slope(head.node.value, head.prediction.value), round_to)
        return known

    def gradient_of(self, path: str) -> Any:
        """∂E/∂weight, from the gradients of the nodes."""
        shape = np.shape(self.weights[path])
        total = np.zeros(shape) + self.extra.get(path, 0.0)
        for _, part in self.opaque.get(path, ()):
            total = total + part
        return total + sum(use.gradient(shape) for use in self.uses if use.path == path)

    def on_the_way(self) -> list:
        """The nodes that the gradient passes; not a softmax that the error was differentiated together with."""
        passed = {id(head.node) for head in self.heads} | {
            id(edge.source) for node in self.nodes for edge in node.edges
        }
        return [node for node in self.nodes if id(node) in passed]

    def is_skipped(self, node: Node) -> bool:
        """Whether the gradient jumps over a node, and what it is there is not known."""
        return any(head.prediction is node is not head.node and head.inner is None for head in self.heads)

    def consumers(self, node: Node) -> list:
        """(consumer, edge) for every edge that starts at a node."""
        return [(one, edge) for one in self.nodes for edge in one.edges if edge.source is node]


def _rounded(array, digits):
    return array if digits is None else np.round(array, digits)
