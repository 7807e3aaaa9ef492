"""What the usual mistakes make of a value, an error δ, a factor, or E: another unit, another example, z for a."""

import math
from typing import Any

import numpy as np

from keras_backprop.explanations.mistakes import read
from keras_backprop.explanations.notation import plain

__all__ = ["WrongValues"]


class WrongValues:
    """The mistakes in what is calculated for a unit, or for the whole error, with a sentence each."""

    explanation: Any
    spelling: Any
    graph: Any
    example: Any
    slips: Any

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

    def _of_error(self, right, n, outputs):
        formulas = [head.formula for head in self.graph.heads if head.formula is not None]
        halved, mean = any(f.factor == 0.5 for f in formulas), any(f.mean for f in formulas)
        yield ("the ½ of the error is missing" if halved else "a factor 2 too much"), right * 2
        yield ("the ½ of the error was multiplied twice" if halved else "a ½ too much: this error has none"), right / 2
        if n > 1:
            yield f"the sum over the {n} examples instead of the mean", right * n
            yield f"the mean over the {n} examples was taken once more", right / n
        if outputs > 1 and mean:
            yield f"the sum over the {outputs} outputs instead of the mean", right * outputs
        elif outputs > 1:
            yield f"the mean over the {outputs} outputs instead of the sum", right / outputs
        yield "the sign is wrong", -right
        yield "log₁₀ instead of the natural logarithm", right / math.log(10)
        yield "log₂ instead of the natural logarithm", right / math.log(2)
        for head in self.graph.heads:
            if head.targets is not None and np.shape(head.targets) == head.prediction.value.shape:
                d = np.asarray(head.targets, "float64") - head.prediction.value
                yield "the square is missing: |T − a|", np.abs(d).sum()
                yield "the square of the sum instead of the sum of the squares", d.sum() ** 2
                yield "the square of the sum instead of the sum of the squares", d.sum() ** 2 / 2
                yield "the square is missing: ½·|T − a|", np.abs(d).sum() / 2
                yield "the square is missing: T − a", d.sum()
                for unit in range(d.shape[1]) if d.shape[1] > 1 else ():
                    yield f"only output {unit + 1} was counted", right * (d[:, unit] ** 2).sum() / (d**2).sum()
        if n > 1:
            for node, function in self.graph.errors:
                for example in range(n):
                    base = self._error_of(function, node.value, example)
                    if base is not None:
                        yield f"only example {example + 1} was counted", base * n
                        yield f"only example {example + 1} was counted, and divided by {n}", base
        weighted = self.graph.penalties
        if abs(weighted) > 1e-12:
            yield "the penalty on the weights is missing", right - weighted

    @staticmethod
    def _error_of(function, values, example):
        """The part of one example in an error that is a sum over them."""
        rows = getattr(function, "rows", None)
        return None if rows is None else rows(values)[example]
