"""The usual mistakes of a calculation by hand: what each would have given.

A mistake is a change of the graph (a factor replaced, a matrix turned, a path forgotten), after which the backward pass is done
again; or a change of the result (a factor 2, the sign). Each has one sentence.
"""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_backprop.explanations.comparing.changed_graph import edges_with
from keras_backprop.explanations.comparing.forward_mistakes import ForwardMistakes
from keras_backprop.explanations.comparing.loss_mistakes import LossMistakes
from keras_backprop.explanations.comparing.repeated_mistakes import RepeatedMistakes

__all__ = ["Mistakes", "read", "right_as_well"]


def read(graph: Any, what: Any, example: Any = None) -> Any:
    """The number that is meant, in a graph.

    Args:
        graph: a `Graph`, or a changed copy of it.
        what: a `Key`.
        example: int, or None: all.
    """
    kind, position, unit, path, index, edge, of = what
    if kind == "error":
        return graph.error
    if kind == "weight":
        return graph.weights[path][index if index is not None else ...]
    if kind == "gradient":
        return graph.gradient_of(path)[index if index is not None else ...]
    node = graph.nodes[position]
    if kind == "factor":
        rows = range(len(node.value)) if example is None else [example]
        values = np.array([node.edges[edge].derivative(row, unit, of) for row in rows])
        return values if example is None and len(values) > 1 else values[0]
    array = node.value if kind == "value" else node.gradient
    array = array if unit is None else array[:, unit]
    return array if example is None and len(array) > 1 else array[example or 0]


def right_as_well(graph: Any, what: Any, example: Any = None) -> Iterator[Any]:
    """What else is right: ∂E/∂a of a softmax with the quotient a/Σa, of which its sum 1 is not used yet."""
    node = None if what[1] is None else graph.nodes[what[1]]
    for head in graph.heads if what[0] == "delta" else ():
        if head.prediction is node is not head.node and head.inner_of_quotient:
            values, other, changed = (head.node.value, node.value), copy.copy(node), copy.copy(graph)
            other.gradient = node.gradient - head.inner(*values) + head.inner_of_quotient(*values)
            changed.nodes = [other if one is node else one for one in graph.nodes]
            yield read(changed, what, example)


MOST_NODES, MOST_NUMBERS = 120, 20_000
"""In larger networks only the mistakes in the result are tried: a factor, the sign, an index, the update."""


class Mistakes(ForwardMistakes, LossMistakes, RepeatedMistakes):
    """The mistakes that could have been made in one explanation.

    Args:
        explanation: the `Explanation`.
        spelling: its `Spelling`.
    """

    def __init__(self, explanation: Any, spelling: Any) -> None:
        super().__init__(explanation, spelling)
        self._variants: Any = None
        numbers = sum(node.value.size for node in self.graph.nodes) + sum(w.size for w in self.graph.weights.values())
        self.small = len(self.graph.nodes) <= MOST_NODES and numbers <= MOST_NUMBERS

    def rounded(self) -> Iterator[tuple[int, Any]]:
        """(decimals, graph) with all intermediate results rounded; forward too where that is possible, and backward only."""
        for decimals in (4, 3, 5, 6, 2, 7, 8) if self.small else ():
            both = copy.deepcopy(self.graph)
            if both.forward(decimals):
                both.backward(decimals)
                yield decimals, both
            back = copy.deepcopy(self.graph)
            for node in back.nodes:
                node.value = np.round(node.value, decimals)
                for edge in node.edges:
                    edge.local = None if edge.local is None else np.round(edge.local, decimals)
            for head in back.heads:
                head.value = np.round(head.value, decimals)
            back.backward(None)
            yield decimals, back

    def of_gradients(self) -> list[tuple[str, Any]]:
        """(sentence, changed graph) of mistakes on the way back, and of those in the forward pass that change it."""
        if self._variants is None:
            with np.errstate(all="ignore"):  # a wrong calculation may overflow
                self._variants = [*self._backward_mistakes(), *self._forward_mistakes()] if self.small else []
        return self._variants

    def _backward_mistakes(self):
        yield from self._of_functions()
        yield from self._of_matrices()
        yield from self._of_heads()
        yield from self._of_time()
        yield from self._of_repeated()
        yield from self._of_branches()
        yield from self._of_masks()

    def _of_functions(self):
        for positions, a, z in self._activations():
            of = f"σ′ = ∂{a}/∂{z}" if a else "σ′ in all layers"
            every = [(p, self.graph.nodes[p].edges[0]) for p in positions]
            if any(edge.local is None for _, edge in every):
                continue

            def put(local, positions=positions):
                def change(graph):
                    for p in positions:
                        node = graph.nodes[p]
                        node.edges[0].local = local(node, node.edges[0])

                return self._changed(change)

            if all(edge.derive is not None and self.graph.nodes[p].compute is not None for p, edge in every):
                yield (
                    f"{of} was taken at a instead of z: σ′(a) instead of σ′(z) = a(1 − a) and the like",
                    put(lambda node, edge: edge.derive(node.compute(node.value), node.value)),
                )
            yield (
                f"the derivative {of} is missing: a factor was left out",
                put(lambda node, edge: np.ones_like(edge.local)),
            )
            yield (
                f"a instead of a(1 − a): {of} was replaced by the activation itself",
                put(lambda node, edge: node.value),
            )
            yield f"{of} was multiplied twice: a doubled factor", put(lambda node, edge: edge.local**2)
            if all(edge.text == "{y}(1 - {y})" for _, edge in every):
                yield f"(1 − a) instead of a(1 − a) as {of}", put(lambda node, edge: 1 - node.value)
                yield (
                    f"z(1 − z) instead of a(1 − a) as {of}",
                    put(lambda node, edge: edge.source.value * (1 - edge.source.value)),
                )
                yield f"1 − a² (tanh′) instead of a(1 − a) as {of}", put(lambda node, edge: 1 - node.value**2)
            if all(edge.text == "1 - {y}^2" for _, edge in every):
                yield (
                    f"a(1 − a) (that of the sigmoid) instead of 1 − a² as {of}",
                    put(lambda node, edge: node.value * (1 - node.value)),
                )
                yield f"1 − a instead of 1 − a² as {of}", put(lambda node, edge: 1 - node.value)
                yield f"1 + a² instead of 1 − a² as {of}", put(lambda node, edge: 1 + node.value**2)
                yield f"1 − z² instead of 1 − a² as {of}", put(lambda node, edge: 1 - edge.source.value**2)

    def _of_matrices(self):
        news, paths = self._updated(), self._matrices()
        for path in paths:
            name = str(self.spelling.weights[path].symbol)

            def put(coefficients, path=path):
                def change(graph):
                    for edge in edges_with(graph, path):
                        edge.coefficients = coefficients(edge)

                return self._changed(change)

            if path in news:
                yield (
                    f"the updated {name} was used: all gradients of a step are made with the weights before it",
                    put(lambda edge, path=path: edge.made_of(news[path])),
                )
            shapes = {np.shape(edge.matrix) for edge in edges_with(self.graph, path)}
            if self._is_square(path):
                yield (
                    f"{name} is transposed: the indices of the matrix are the other way round",
                    put(lambda edge: edge.matrix.T),
                )
            ones = np.ones(np.shape(self.graph.weights[path]))
            yield f"the factor {name} is missing on the way back", put(lambda edge, ones=ones: edge.made_of(ones))
            yield f"the factor {name} was multiplied twice: a doubled factor", put(lambda edge: edge.coefficients**2)
            for columns in {s[1] for s in shapes if s and 1 < s[1] <= 8}:
                for unit in range(columns):
                    yield (
                        f"a path is missing: only the one over unit {unit + 1} behind {name} was followed",
                        put(lambda edge, unit=unit: edge.matrix * (np.arange(edge.matrix.shape[1]) == unit)),
                    )
        if len([p for p in paths if p in news]) > 1:

            def all_new(graph):
                for path, new in news.items():
                    for edge in edges_with(graph, path):
                        edge.coefficients = edge.made_of(new)

            yield (
                "the updated weights were used: all gradients of a step are made with the weights before it",
                self._changed(all_new),
            )
