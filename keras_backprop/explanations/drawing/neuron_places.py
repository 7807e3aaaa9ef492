"""Where things stand in a drawing of neurons, which of them a chain lights, and numbers short enough for an edge."""

import math
from typing import Any

__all__ = ["MOST_LABELLED_EDGES", "along", "between", "lit", "lit_blocks", "room", "short"]

MOST_LABELLED_EDGES = 8
"""Between two layers; of more the gradient is a colour and a width."""


def room(sources, targets):
    """Whether there is room for numbers on every edge between two layers."""
    return sources * targets <= MOST_LABELLED_EDGES


def lit(explanation, chain):
    """The units, edges and outputs on the paths of a chain: sets of (layer, unit), (layer, from, to) and units."""
    lit = {"units": set(), "edges": set(), "outputs": set()}
    numbers: dict = {}
    for node in explanation.graph.nodes if chain is not None else ():
        if node.letter == "z":
            layer = len(set(numbers.values()))
            numbers[id(node)] = layer
            numbers.update({id(one): layer for one, edge in explanation.graph.consumers(node) if edge.function})
    for path in chain.paths if chain is not None else ():
        for factor in path.factors:
            for place in (factor.start, factor.end):
                if place is not None and id(place[0]) in numbers:
                    lit["units"].add((numbers[id(place[0])], place[1]))
            if factor.start is None and factor.end is not None:
                lit["outputs"].add(factor.end[1])
            elif factor.start is not None and factor.end is not None and factor.start[0].letter == "z":
                lit["edges"].add((numbers[id(factor.start[0])], factor.end[1], factor.start[1]))
    return lit


def along(sources, targets):
    """How far along the edges between two layers their labels stand: where the edges are evenly spaced."""
    return 1 / (1 + targets) if targets <= sources else 1 - 1 / (1 + sources)


def between(start, end, start_radius, end_radius):
    """The part of a line outside the two circles around its ends."""
    length = math.dist(start, end)
    direction = [(e - s) / length for s, e in zip(start, end, strict=True)]
    return (
        tuple(s + start_radius * d for s, d in zip(start, direction, strict=True)),
        tuple(e - end_radius * d for e, d in zip(end, direction, strict=True)),
    )


def short(value):
    """A number in six or seven characters."""
    value = float(value) + 0.0  # no −0
    if value == round(value, 2) or 0.01 <= abs(value) < 10:
        return f"{value:.3f}".rstrip("0").rstrip(".") if value == round(value, 2) else f"{value:.3f}"
    mantissa, _, exponent = f"{value:.2g}".partition("e")
    return rf"{mantissa}\mathrm{{e}}{{{int(exponent)}}}" if exponent else mantissa


def lit_blocks(blocks: Any, chain: Any) -> set:
    """The ids of the blocks of a drawing layer by layer, from the weight of a chain to the error."""
    lit: set = set()
    for block in blocks if chain is not None and chain.paths else ():
        if chain.path in block.weights or any(id(source) in lit for source, _ in block.sources):
            lit.add(id(block))
    return lit
