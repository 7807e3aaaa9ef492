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
            for edge in node.edges:
                if edge.function:
                    z = edge.source.value if unit is None else edge.source.value[:, unit]
                    z = z if self.example is None and len(z) > 1 else z[self.example or 0]
                    yield "the activation was not applied: that is z", z
                    yield from _of_softmax(edge, unit, self.example)
                    yield "tanh instead of the sigmoid", np.tanh(z)
                    with np.errstate(over="ignore"):
                        yield "the sign in the exponent: 1/(1 + eᶻ) instead of 1/(1 + e⁻ᶻ)", 1 / (1 + np.exp(z))
                        yield "the sigmoid instead of this activation", 1 / (1 + np.exp(-z))
            for consumer, edge in self.graph.consumers(node):
                if edge.function:
                    a = consumer.value if unit is None else consumer.value[:, unit]
                    yield (
                        "the activation was applied already: that is a",
                        a if self.example is None and len(a) > 1 else a[self.example or 0],
                    )
        for other in range(node.units if unit is not None else 0):
            if other != unit:
                yield (
                    f"another unit: that is the number of {plain(node.name(other))}",
                    read(self.graph, [kind, position, other, *key[3:]], self.example),
                )
        if self.example is not None:
            for example in range(self.explanation.examples):
                if example != self.example:
                    yield (
                        f"another example: that is the number of example {example + 1}",
                        read(self.graph, key, example),
                    )
        if kind == "delta":
            yield "that is the value, not the error δ", read(self.graph, ["value", *key[1:]], self.example)
            for edge in node.edges:
                if edge.function:
                    other = self.graph.nodes.index(edge.source)
                    yield (
                        "that is ∂E/∂z, not ∂E/∂a: σ′ is in it",
                        read(self.graph, ["delta", other, unit, *key[3:]], self.example),
                    )
            for consumer, edge in self.graph.consumers(node):
                if edge.function:
                    other = self.graph.nodes.index(consumer)
                    yield (
                        "that is ∂E/∂a, not δ = ∂E/∂z: the factor σ′ is missing",
                        read(self.graph, ["delta", other, unit, *key[3:]], self.example),
                    )
        if kind == "factor":
            edge = node.edges[key[5]]
            if edge.function and edge.local is not None:
                row, u = self.example or 0, unit or 0
                a, z = node.value[row, u], edge.source.value[row, u]
                yield "a instead of a(1 − a): that is the activation itself", a
                yield "(1 − a) instead of a(1 − a)", 1 - a
                yield "z(1 − z) instead of a(1 − a)", z * (1 - z)
                yield "1 − a² (tanh′) instead of a(1 − a)", 1 - a**2
                yield "a(1 − a) instead of 1 − a²", a * (1 - a)
                if edge.derive is not None and node.compute is not None:
                    again = edge.derive(node.compute(node.value), node.value)
                    yield "σ′ was taken at a instead of z: σ′(a) instead of σ′(z)", again[row, u]


def _of_softmax(edge, unit, example):
    """The exponentials not divided by their sum, or no exponentials."""
    if edge.jacobian is None or unit is None:
        return
    z = edge.source.value if example is None and len(edge.source.value) > 1 else edge.source.value[example or 0]
    with np.errstate(all="ignore"):
        yield "exp(z) was not divided by the sum over all outputs", np.exp(z)[..., unit]
        yield "z was divided by the sum of z: the exponentials are missing", (z / z.sum(-1, keepdims=True))[..., unit]
