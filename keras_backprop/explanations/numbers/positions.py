"""Nodes of tensors with positions: windows of a convolution, words of a sentence, what is moved, pooled, put side by side.

The units of such a node are all numbers of an example in a row. A number that is only taken from another place keeps its
name, and is no factor of its own.
"""

from fractions import Fraction
from typing import Any

import keras
import numpy as np

from keras_backprop.explanations.numbers.graph import Edge, Node, Use, as_matrix
from keras_backprop.explanations.writing.inside_windows import places_of_windows

__all__ = ["by_position", "derived", "fits", "flat", "node_of"]

MOST_UNITS, MOST_POSITIONS = 512, 64
"""Of an example; larger tensors end the paths."""


def fits(value: Any) -> bool:
    """Whether a tensor becomes a node: examples first, not too large."""
    value = np.asarray(value)
    return (
        value.ndim >= 2 and value.dtype.kind == "f" and (value.ndim == 2 or int(np.prod(value.shape[1:])) <= MOST_UNITS)
    )


def flat(value: Any) -> Any:
    """(n, …) -> (n, units), in float64."""
    value = np.array(value, "float64")
    return value.reshape(len(value), -1)


def node_of(symbol: Any, value: Any, plain: bool = False) -> Node:
    """The node of a tensor."""
    shape = tuple(np.shape(value)[1:])
    return Node(symbol.letter, flat(value), symbol.subscript, plain=plain, shape=shape if len(shape) > 1 else ())


def by_position(link: Any, graph: Any, source: Any, path_of: dict) -> Any:
    """Add the nodes of a link that does the same with a weight at every position.

    Args:
        link: the `Link`.
        graph: the `Graph`.
        source: the `Node` of its input, or None.
        path_of: dict, symbol of a weight -> its path.

    Returns:
        The `Node` of its output; None where it is no such link, or too large.
    """
    if not link.outputs or link.output_symbols[0] is None or not fits(link.outputs[0]):
        return None
    if isinstance(link.op, keras.layers.Embedding):
        return _table(link, graph, path_of)
    places = None if source is None else _places(link)
    if places is None or len(places) > MOST_POSITIONS:
        return None
    symbol, shape = link.output_symbols[0], np.shape(link.outputs[0])[1:-1]
    path, bias = path_of[link.weight_symbols["kernel"]], link.weight_symbols.get("bias")
    matrix = as_matrix(np.array(link.weights["kernel"], "float64"))
    made = []
    for position, taken in zip(np.ndindex(*shape), places, strict=True):
        window = Node(source.letter, _taken(source.value, taken), edges=[Edge(source, taken=taken)])
        window.origins = [None if of < 0 else (source, int(of)) for of in taken]
        window.compute = lambda x, taken=taken: _taken(x, taken)
        edge = Edge(window, path, matrix=matrix, text="{w}", rule=link.rule)
        value = flat(np.asarray(link.outputs[0])[(slice(None), *position)])
        node = Node(symbol.letter, value, symbol.subscript, edges=[edge], place=tuple(i + 1 for i in position))
        graph.uses.append(Use(path, node, edge))
        if bias is not None:
            graph.uses.append(Use(path_of[bias], node, None))
            node.bias = np.array(link.weights["bias"], "float64")
        made += [window, node]
    graph.nodes += made
    return _joined(node_of(symbol, link.outputs[0]), made[1::2], graph)


def _places(link):
    """For every position of the output the units of the input that it sees, −1 for none; None where it is no such link."""
    layer, x = link.op, np.asarray(link.inputs[0])
    kernel = link.weights.get("kernel")
    if kernel is None:
        return None
    if isinstance(layer, keras.layers.Dense) and x.ndim > 2:
        return np.arange(int(np.prod(x.shape[1:]))).reshape(-1, x.shape[-1])
    if isinstance(layer, (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)) and layer.groups == 1:
        places = places_of_windows(link, layer.kernel_size)
        return None if places is None else places.reshape(len(places), -1)
    return None


def _table(link, graph, path_of):
    """An embedding: every position is a row of the table."""
    symbol, path = link.output_symbols[0], path_of.get(next(iter(link.weight_symbols.values()), None))
    keys, y = np.asarray(link.inputs[0]).astype(int), np.asarray(link.outputs[0])
    if path is None or np.prod(keys.shape[1:]) > MOST_POSITIONS:
        return None
    made = []
    for position in np.ndindex(*keys.shape[1:]):
        value = flat(y[(slice(None), *position)])
        node = Node(symbol.letter, value, symbol.subscript, place=tuple(i + 1 for i in position))
        graph.uses.append(Use(path, node, None, row=keys[(slice(None), *position)]))
        made.append(node)
    graph.nodes += made
    return _joined(node_of(symbol, y), made, graph)


def _joined(node, parts, graph):
    """The node that is made of others, side by side."""
    start = 0
    for part in parts:
        taken = np.full(node.units, -1)
        taken[start : start + part.units] = np.arange(part.units)
        node.edges.append(Edge(part, taken=taken))
        node.origins += [(part, unit) for unit in range(part.units)]
        start += part.units
    node.compute = lambda *values: np.concatenate(values, -1)
    graph.nodes.append(node)
    return node


def _taken(x, taken):
    return np.where(taken < 0, 0.0, x[:, taken])


def derived(node: Node, sources: list, jacobians: list, rule: str) -> Node:
    """A node with its edges, from the derivatives of each of its units.

    Args:
        node: the `Node`, without edges.
        sources: list of `Node`, one for each input.
        jacobians: list of arrays `(n, out, in)`.
        rule: str, the name of the rule that gave them.
    """
    steady = all(np.all(one == one[:1]) for one in jacobians)
    products = sum(np.einsum("noi,ni->no", J, x.value) for J, x in zip(jacobians, sources, strict=True))
    linear = steady and np.allclose(products, node.value, rtol=1e-5, atol=1e-7)
    moved = linear and all(np.all((one == 0) | (one == 1)) for one in jacobians)
    moved = moved and bool(np.all(sum(one[0].sum(1) for one in jacobians) <= 1))
    if moved:
        node.origins = [None] * node.units
        for source, jacobian in zip(sources, jacobians, strict=True):
            taken = np.where(jacobian[0].any(1), jacobian[0].argmax(1), -1)
            node.edges.append(Edge(source, taken=taken, rule=rule))
            for unit, of in enumerate(taken):
                if of >= 0:
                    node.origins[unit] = (source, int(of))
        node.compute = lambda *xs: sum(_taken(x, e.taken) for x, e in zip(xs, node.edges, strict=True))
        return node
    for source, jacobian in zip(sources, jacobians, strict=True):
        edge = Edge(source, jacobian=jacobian, rule=rule, text=_one_number(jacobian) if linear else "")
        edge.derive = (lambda y, *xs, J=jacobian: J) if linear else None
        node.edges.append(edge)
    if linear:
        node.compute = lambda *xs: sum(np.einsum("noi,ni->no", J, x) for J, x in zip(jacobians, xs, strict=True))
    return node


def _one_number(jacobian):
    """A derivative that is the same everywhere, as LaTeX: 1/4."""
    values = np.unique(np.abs(jacobian[jacobian != 0]))
    if len(values) == 0 or np.ptp(jacobian[jacobian != 0]) > 1e-6:
        return ""
    fraction = Fraction(float(jacobian[jacobian != 0][0])).limit_denominator(1000)
    if fraction.denominator == 1:
        return str(fraction.numerator)
    return rf"{'-' if fraction < 0 else ''}\frac{{{abs(fraction.numerator)}}}{{{fraction.denominator}}}"
