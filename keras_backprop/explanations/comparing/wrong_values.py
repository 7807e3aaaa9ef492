"""What the usual mistakes make of a value, an error δ, a factor, or E: another unit, another example, z for a."""

import numpy as np

from keras_backprop.explanations.comparing.mistakes import read
from keras_backprop.explanations.comparing.wrong_errors import WrongErrors
from keras_backprop.explanations.writing.notation import plain

__all__ = ["WrongValues"]


class WrongValues(WrongErrors):
    """The mistakes in what is calculated for a unit, or for the whole error, with a sentence each."""

    def _of_node(self, found, key, right):
        if found.node is None:
            return
        kind, position, unit, *_ = key
        node = self.graph.nodes[position]
        if kind == "value":
            yield from self._of_value(node, unit)
        yield from self._of_other_places(node, key)
        if kind == "delta":
            yield from self._of_delta(node, key)
        if kind == "factor":
            yield from self._of_factor(node, node.edges[key[5]], unit or 0)

    def _of_value(self, node, unit):
        for edge in node.edges:
            if edge.function:
                z = self._rows(edge.source.value, unit)
                yield "the activation was not applied: that is z", z
                yield from _of_softmax(edge, unit, self.example)
                yield "tanh instead of the sigmoid", np.tanh(z)
                with np.errstate(over="ignore"):
                    yield "the sign in the exponent: 1/(1 + eᶻ) instead of 1/(1 + e⁻ᶻ)", 1 / (1 + np.exp(z))
                    yield "the sigmoid instead of this activation", 1 / (1 + np.exp(-z))
        for consumer, edge in self.graph.consumers(node):
            if edge.function:
                yield "the activation was applied already: that is a", self._rows(consumer.value, unit)

    def _rows(self, value, unit):
        """What is asked of the values of a node: of a unit, of an example."""
        return _row_of(value if unit is None else value[:, unit], self.example)

    def _of_other_places(self, node, key):
        """The same quantity of another unit, or of another example."""
        kind, position, unit, *rest = key
        for other in range(node.units if unit is not None else 0):
            if other != unit:
                of_other = read(self.graph, [kind, position, other, *rest], self.example)
                yield f"another unit: that is the number of {plain(node.name(other))}", of_other
        for example in range(self.explanation.examples if self.example is not None else 0):
            if example != self.example:
                of_other = read(self.graph, key, example)
                yield f"another example: that is the number of example {example + 1}", of_other

    def _of_delta(self, node, key):
        _, _, unit, *rest = key

        def delta_of(other):
            return read(self.graph, ["delta", self.graph.nodes.index(other), unit, *rest], self.example)

        yield "that is the value, not the error δ", read(self.graph, ["value", *key[1:]], self.example)
        for edge in node.edges:
            if edge.function:
                yield "that is ∂E/∂z, not ∂E/∂a: σ′ is in it", delta_of(edge.source)
        for consumer, edge in self.graph.consumers(node):
            if edge.function:
                yield "that is ∂E/∂a, not δ = ∂E/∂z: the factor σ′ is missing", delta_of(consumer)

    def _of_factor(self, node, edge, unit):
        if not edge.function or edge.local is None:
            return
        row = self.example or 0
        a, z = node.value[row, unit], edge.source.value[row, unit]
        yield "a instead of a(1 − a): that is the activation itself", a
        yield "(1 − a) instead of a(1 − a)", 1 - a
        yield "z(1 − z) instead of a(1 − a)", z * (1 - z)
        yield "1 − a² (tanh′) instead of a(1 − a)", 1 - a**2
        yield "a(1 − a) instead of 1 − a²", a * (1 - a)
        if edge.derive is not None and node.compute is not None:
            again = edge.derive(node.compute(node.value), node.value)
            yield "σ′ was taken at a instead of z: σ′(a) instead of σ′(z)", again[row, unit]


def _row_of(value, example):
    """The row of an example, or of the only one there is; all rows where none is asked for."""
    return value if example is None and len(value) > 1 else value[example or 0]


def _of_softmax(edge, unit, example):
    """The exponentials not divided by their sum, or no exponentials."""
    if edge.jacobian is None or unit is None:
        return
    z = _row_of(edge.source.value, example)
    with np.errstate(all="ignore"):
        yield "exp(z) was not divided by the sum over all outputs", np.exp(z)[..., unit]
        yield "z was divided by the sum of z: the exponentials are missing", (z / z.sum(-1, keepdims=True))[..., unit]
