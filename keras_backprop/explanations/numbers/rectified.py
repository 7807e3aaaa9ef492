"""PReLU: what is below 0 is multiplied by a weight of its own, α."""

from typing import Any

import numpy as np

from keras_backprop.explanations.numbers.agreement import agrees
from keras_backprop.explanations.numbers.nodes import Edge, Node, Use, places_in
from keras_backprop.explanations.numbers.positions import fits, node_of

__all__ = ["rectified"]

_BOTH = r"[{x} > 0] + {w} \cdot [{x} < 0]"


def rectified(link: Any, graph: Any, source: Any, path_of: dict) -> Any:
    """Add the node of a `PReLU` to a graph, and that of min(0, z), which its weight multiplies.

    Args:
        link: the `Link`.
        graph: the `Graph`.
        source: the `Node` of its input.
        path_of: dict, symbol of a weight -> its path.

    Returns:
        The `Node` of its output; None where it is no such layer.
    """
    if link.rule != "prelu" or source is None or link.formula is None or not fits(link.outputs[0]):
        return None
    path, weight = path_of[link.weight_symbols["alpha"]], np.array(link.weights["alpha"], "float64")
    entries = np.broadcast_to(places_in(weight), np.shape(link.outputs[0])[1 if link.steps is None else 2 :])
    entries = np.tile(entries.ravel(), link.steps or 1)
    alpha, z = weight.ravel()[entries], source.value

    def derive(y, x):
        return (x > 0) + alpha * (x < 0)

    below = Node(r"\min", np.minimum(z, 0), called=r"\min(0, {})")
    below.edges = [Edge(source, local=1.0 * (z < 0), text="[{x} < 0]", derive=lambda y, x: 1.0 * (x < 0))]
    below.compute = lambda x: np.minimum(x, 0)
    node = node_of(link.output_symbols[0], link.outputs[0], source.plain)
    edge = Edge(source, None, entries, local=derive(None, z), text=_BOTH, rule=link.rule, function=True, named=path)
    edge.derive, node.edges = derive, [edge]
    node.compute, node.text = (
        lambda x: np.maximum(x, 0) + alpha * np.minimum(x, 0),
        r"\max(0, {x}) + {w} \cdot \min(0, {x})",
    )
    if not agrees(node.compute(z), node.value):
        return None
    graph.nodes += [below, node]
    graph.uses.append(Use(path, node, Edge(below, path, entries, local=alpha * np.ones_like(z), rule=link.rule)))
    return node
