"""Nodes of tensors with positions: windows of a convolution, words of a sentence, what is moved, pooled, put side by side.

The units of such a node are all numbers of an example in a row. A number that is only taken from another place keeps its
name, and is no factor of its own.
"""

from fractions import Fraction
from typing import Any

import keras
import numpy as np

from keras_backprop.explanations.numbers.nodes import Edge, Node, Use, places_in
from keras_backprop.explanations.numbers.products import stages_of

__all__ = ["by_position", "derived", "fits", "flat", "joined", "node_of"]

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
    stages = None if source is None else stages_of(link)
    if stages is None or max(len(stage.products) for stage in stages) > MOST_POSITIONS:
        return None
    symbol, nodes, uses = link.output_symbols[0], [], []
    for stage in stages:
        last = stage is stages[-1]
        letter = symbol.letter if last else "u"
        made, used = _positions(link, stage, source, letter, path_of, link.weight_symbols.get("bias") if last else None)
        whole = Node(letter, np.concatenate([node.value for node in made[1::2]], -1), symbol.subscript)
        whole.shape = stage.shape if len(stage.shape) > 1 else ()
        source = joined(whole, made[1::2])
        nodes, uses = [*nodes, *made, source], [*uses, *used]
    if not np.allclose(source.value, flat(link.outputs[0]), rtol=1e-3, atol=1e-5):
        return None  # it does something else besides
    graph.nodes += nodes
    graph.uses += uses
    return source


def _positions(link, stage, source, letter, path_of, bias):
    """The nodes of a stage, in turn what goes in at a position and what comes out, and the uses of its weights."""
    nodes: list = []
    uses: list = []
    path, weight = path_of[link.weight_symbols[stage.weight]], np.array(link.weights[stage.weight], "float64")
    number, units = link.output_symbols[0].subscript, stage.shape[len(stage.positions) :]
    if bias is not None:
        b = np.array(link.weights["bias"], "float64")
        biases = np.broadcast_to(places_in(b), stage.shape).reshape(len(stage.products), -1)
    for n, (position, (taken, entries)) in enumerate(zip(np.ndindex(*stage.positions), stage.products, strict=True)):
        window = Node(source.letter, _taken(source.value, taken), edges=[Edge(source, taken=taken)])
        window.origins = [None if of < 0 else (source, int(of)) for of in taken]
        window.compute = lambda x, taken=taken: _taken(x, taken)
        edge = Edge(window, path, entries, matrix=np.where(entries < 0, 0.0, weight.ravel()[entries]), rule=link.rule)
        node = Node(letter, window.value @ edge.matrix, number, edges=[edge], place=tuple(i + 1 for i in position))
        node.shape = units if len(units) > 1 else ()
        uses.append(Use(path, node, edge))
        if bias is not None:
            uses.append(Use(path_of[bias], node, None, biases[n]))
            node.bias = b.ravel()[biases[n]]
            node.value = node.value + node.bias
        nodes += [window, node]
    return nodes, uses


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
        row = keys[(slice(None), *position)]
        graph.uses.append(Use(path, node, None, row[:, None] * y.shape[-1] + np.arange(y.shape[-1])))
        made.append(node)
    whole = joined(node_of(symbol, y), made)
    graph.nodes += [*made, whole]
    return whole


def joined(node: Node, parts: list) -> Node:
    """The node, which is made of these others, side by side."""
    start = 0
    for part in parts:
        taken = np.full(node.units, -1)
        taken[start : start + part.units] = np.arange(part.units)
        node.edges.append(Edge(part, taken=taken))
        node.origins += [(part, unit) for unit in range(part.units)]
        start += part.units
    node.compute = lambda *values: np.concatenate(values, -1)
    return node


def _taken(x, taken):
    return np.where(taken < 0, 0.0, x[:, taken])


def derived(node: Node, sources: list, jacobians: list, rule: str, constant: bool) -> Node:
    """A node with its edges, from the derivatives of each of its units.

    Args:
        node: the `Node`, without edges.
        sources: list of `Node`, one for each input.
        jacobians: list of arrays `(n, out, in)`.
        rule: str, the name of the rule that gave them.
        constant: bool, whether the link is known to be linear in each source, the others held.
    """
    steady = constant and all(np.all(one == one[:1]) for one in jacobians)
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
