"""Finds the paths from the error to a weight through a graph of numbers."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from keras_backprop.explanations.writing.formulas import filled
from keras_backprop.explanations.writing.notation import derivative

__all__ = ["Factor", "Finder", "Path"]

MOST_PATHS = 64
"""Of one use of the weight in one example. Where there are more, ∂E/∂a of a unit further down is one factor, summed already."""


class Factor(NamedTuple):
    """One factor of the chain rule.

    Attributes:
        name: str, LaTeX: ∂a₂/∂z₂.
        formula: str, LaTeX: a₂(1 − a₂); "" where the rule does not say.
        value: float.
        start, end: (node, unit) that the factor leads from and to; of the first start is None.
    """

    name: str
    formula: str
    value: float
    start: Any = None
    end: Any = None


@dataclass(frozen=True, eq=False)
class Path:
    """One way from the error to the weight.

    Attributes:
        example: int, which example of the batch, from 0; None of a penalty, and where a rule gave the sum only.
        factors: list of `Factor`, from the error back to the weight.
        value: float, their product.
    """

    example: Any
    factors: list
    value: float


class Finder:
    """Finds the paths from the error to units of a graph.

    Args:
        graph: the `Graph`.
        spelling: the `Spelling`, which names weights.
    """

    def __init__(self, graph, spelling):
        self.graph, self.spelling = graph, spelling
        self._consumers = {id(node): graph.consumers(node) for node in graph.nodes}
        self._heads: dict = {}
        for head in graph.heads:
            self._heads.setdefault(id(head.node), []).append(head)
        self._counts: dict = {}

    def paths(self, path, index, examples):
        found = []
        for example in examples:
            for use in self.graph.uses:
                if use.path == path:
                    found += self._of_use(use, index, example)
        for _, gradient in self.graph.opaque.get(path, ()):
            name = derivative("E", self.spelling.name(path, index))
            found.append(Path(None, [Factor(name, "", float(gradient[index]))], float(gradient[index])))
        extra = self.graph.extra.get(path)
        if extra is not None:
            name = derivative("R", self.spelling.name(path, index))
            found.append(Path(None, [Factor(name, "", float(extra[index]))], float(extra[index])))
        return found

    def _of_use(self, use, index, example):
        weight, paths = self.spelling.name(use.path, index), []
        entry = int(np.ravel_multi_index(index, np.shape(self.graph.weights[use.path]))) if index else 0
        for of, unit in use.places(entry, example):
            name = derivative(use.node.name(unit), weight)
            if of is None:
                last = Factor(name, "1", 1.0, (use.node, unit), None)
            else:
                source = use.edge.source
                if source.origins and source.origins[of] is None:
                    continue  # what is beyond the edge of a picture
                value = float(source.value[example, of])
                last = Factor(name, source.name(of), value, (use.node, unit), (source, of))
            for factors in self._to(use.node, unit, example):
                every = [*factors, last]
                paths.append(Path(example, every, float(np.prod([f.value for f in every]))))
        return paths

    def _count(self, node):
        """How many paths lead from the error to one unit of a node, at the most."""
        if id(node) not in self._counts:
            self._counts[id(node)] = len(self._heads.get(id(node), ())) + sum(
                self._count(one) * max((len(edge.reached(unit)) for unit in range(node.units)), default=0)
                for one, edge in self._consumers[id(node)]
            )
        return self._counts[id(node)]

    def _to(self, node, unit, example):
        """The lists of factors from the error to a unit."""
        if self._count(node) > MOST_PATHS:
            return [
                [Factor(derivative("E", node.name(unit)), "", float(node.gradient[example, unit]), None, (node, unit))]
            ]
        found = []
        for head in self._heads.get(id(node), ()):
            found.append([self._head(head, node, unit, example)])
        for consumer, edge in self._consumers[id(node)]:
            for other in edge.reached(unit, example):
                if consumer.taken_from(other, node, unit):  # the same number, at another place
                    found += self._to(consumer, other, example)
                    continue
                factor = Factor(
                    derivative(consumer.name(other), node.name(unit)), self._formula(edge, consumer, other, node, unit),
                    edge.derivative(example, other, unit), (consumer, other), (node, unit),
                )  # fmt: skip
                found += [[*factors, factor] for factors in self._to(consumer, other, example)]
        return found

    def _head(self, head, node, unit, example):
        units, name = node.units, derivative("E", node.name(unit))
        formula = head.text
        if formula:
            T = "T" if units == 1 else f"T_{unit + 1}" if unit < 9 else f"T_{{{unit + 1}}}"
            formula = filled(formula, T=T, a=head.prediction.name(unit))
        others = len(self._heads[id(node)]) > 1
        if others and not formula:
            name = derivative("E", node.name(unit)) + rf"\text{{ by {head.via.replace('_', chr(160))}}}"
        return Factor(name, formula, float(head.value[example, unit]), None, (node, unit))

    def _formula(self, edge, consumer, other, node, unit):
        if edge.beside:
            return (edge.text or "{0}").format(*(beside.name(unit) for beside in edge.beside))
        if edge.weight is not None:
            return self.spelling.entry(edge.weight, edge.entry(unit, other))
        if not edge.text:
            return ""
        if edge.named is not None:
            return filled(edge.text, x=node.name(unit), w=self.spelling.entry(edge.named, edge.entry(unit, other)))
        if "{j}" in edge.text:
            y, k = consumer.name(other), consumer.name(unit)
            return f"{y}(1 - {y})" if other == unit else f"-{y} \\cdot {k}"
        if "{x}" in edge.text or "{y}" in edge.text:
            return filled(edge.text, x=node.name(unit), y=consumer.name(other))
        return edge.text
