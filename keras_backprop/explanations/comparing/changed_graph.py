"""What all mistakes are made of: changed copies of the graph of an explanation, after which the backward pass is done again."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_backprop.explanations.writing.notation import plain

__all__ = ["ChangedGraph", "edges_with"]


def edges_with(graph: Any, path: str) -> Iterator[Any]:
    """The edges of a graph whose matrix is a weight."""
    return (edge for node in graph.nodes for edge in node.edges if edge.weight == path)


class ChangedGraph:
    """The graph of one explanation, changed in one place at a time.

    Args:
        explanation: the `Explanation`.
        spelling: its `Spelling`.
    """

    def __init__(self, explanation: Any, spelling: Any) -> None:
        self.explanation, self.spelling, self.graph = explanation, spelling, spelling.graph

    def _changed(self, change: Any) -> Any:
        """A copy on which `change(graph)` was made before the backward pass."""
        graph = copy.deepcopy(self.graph)
        change(graph)
        graph.backward()
        return graph

    def _changed_forward(self, sentence: str, change: Any) -> Iterator[tuple[str, Any]]:
        """(sentence, graph) of a copy on which `change(graph)` was made before the forward pass, if that can be made."""
        graph = copy.deepcopy(self.graph)
        change(graph)
        if graph.forward():
            graph.backward()
            yield sentence, graph

    def _matrices(self) -> list[str]:
        """The paths of the weights that are matrices of edges."""
        return list(dict.fromkeys(edge.weight for node in self.graph.nodes for edge in node.edges if edge.weight))

    def _updated(self) -> dict[str, Any]:
        """Path -> the weight after the update."""
        return {w.path: np.asarray(w.updated, "float64") for w in self.explanation.weights}

    def _is_square(self, path: str) -> bool:
        """Whether a weight enters everywhere as a square matrix, which can be turned by mistake: a scale or a gate need not."""
        shapes = [np.shape(edge.matrix) for edge in edges_with(self.graph, path)]
        return all(len(shape) == 2 and shape[0] == shape[1] > 1 for shape in shapes)

    def _activations(self) -> Iterator[tuple[list[int], str, str]]:
        """Lists of the positions of nodes that are one layer's activation, and what it and its input are called; and of all."""
        groups: dict = {}
        for position, node in enumerate(self.graph.nodes):
            if any(edge.function for edge in node.edges):
                groups.setdefault((node.letter, node.layer, node.time is not None), []).append(position)
        for positions in groups.values():
            node = self.graph.nodes[positions[-1]]
            yield positions, plain(node.name(0)), plain(node.edges[0].source.name(0))
        if len(groups) > 1:
            yield [p for positions in groups.values() for p in positions], "", ""
