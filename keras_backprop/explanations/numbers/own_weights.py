"""Operations with a weight in layers of one's own: products of matrices, scales and shifts, which a layer of Keras would be."""

from typing import Any

import numpy as np

from keras_backprop.explanations.numbers.agreement import CLOSE
from keras_backprop.explanations.numbers.nodes import Edge, Use, places_in
from keras_backprop.explanations.numbers.positions import fits, node_of
from keras_backprop.formula import Formula

__all__ = ["add_reads", "with_weight"]


def with_weight(link: Any, graph: Any, nodes: dict, path_of: dict) -> Any:
    """Add the node of an operation of a tensor and a weight to a graph: x·W, or x·w or x + w with one row for all examples.

    Args:
        link: the `Link`.
        graph: the `Graph`.
        nodes: dict, symbol -> `Node`.
        path_of: dict, symbol of a weight -> its path.

    Returns:
        (the `Node` of its output, which input the weight is); None where it is no such operation.
    """
    if link.kind != "op" or not isinstance(link.formula, Formula) or len(link.inputs) != 2 or not fits(link.outputs[0]):
        return None
    place = next((n for n, symbol in enumerate(link.input_symbols) if symbol in path_of), None)
    source = None if place is None else nodes.get(link.input_symbols[1 - place])
    if place is None or source is None or link.output_symbols[0] is None or link.downstream[place] is None:
        return None
    path, weight = path_of[link.input_symbols[place]], np.array(link.inputs[place], "float64")
    node, edge = node_of(link.output_symbols[0], link.outputs[0]), Edge(source, rule=link.rule)
    if link.formula.value == "a @ b" and place == 1 and weight.ndim == 2 and np.ndim(link.outputs[0]) == 2:
        edge.weight, edge.entries, edge.matrix = path, places_in(weight), weight
    elif link.options.get("row") != "ab"[place]:
        return None
    elif link.formula.value == "a*b":
        edge.weight, edge.entries, edge.local = path, places_in(weight), weight * np.ones_like(source.value)
    elif link.formula.value == "a + b":
        edge.local, edge.text, node.bias = np.ones_like(source.value), "1", weight
        edge.derive = lambda y, x: np.ones_like(x)
        node.compute = lambda x: x
    else:
        return None
    node.edges.append(edge)
    graph.nodes.append(node)
    graph.uses.append(Use(path, node, edge) if edge.weight else Use(path, node, None, places_in(weight)))
    return node, place


def add_reads(explanation: Any, graph: Any, path_of: dict, followed: dict) -> None:
    """Add to a graph what penalties and operations make of weights that are read outside of layers' rules.

    Args:
        explanation: the `Explanation`.
        graph: the `Graph`.
        path_of: dict, symbol of a weight -> its path.
        followed: dict, symbol of a weight -> the part of its gradient that nodes of the graph give.
    """
    totals: dict = {}
    for link in explanation.links:
        if not link.inputs and "weight" in link.weight_gradients:
            symbol = link.weight_symbols["weight"]
            totals[symbol] = totals.get(symbol, 0.0) + np.array(link.weight_gradients["weight"], "float64")
    for symbol, total in totals.items():
        path = path_of.get(symbol)
        if path is None:
            continue
        penalties = [
            np.array(dx, "float64")
            for link in explanation.links if link.kind == "regularizer"
            for one, dx in zip(link.input_symbols, link.downstream, strict=True) if one == symbol and dx is not None
        ]  # fmt: skip
        if penalties:
            graph.extra[path] = graph.extra.get(path, 0.0) + sum(penalties)
        rest = total - sum(penalties) - followed.get(symbol, 0.0)
        if np.max(np.abs(rest), initial=0.0) > CLOSE * np.max(np.abs(total), initial=0.0):
            graph.opaque.setdefault(path, []).append(("", rest))
