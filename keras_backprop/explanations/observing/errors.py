"""An error of one's own, which is followed operation by operation, as one link; and a penalty of one's own as another."""

from typing import Any

import numpy as np

from keras_backprop.explanations.observing.link import WEIGHTS, Link, Symbol
from keras_backprop.explanations.observing.names import is_conversion
from keras_backprop.rule import WeightRead

__all__ = ["errors_in_one"]


def errors_in_one(links: list, after: int) -> list:
    """The links of an explanation, with those in one that make an error of the predictions.

    Args:
        links: list of `Link`.
        after: int, how many of them are of the forward pass; the operations after these make errors and penalties.
    """
    tail = links[after:]
    operations = [link for link in tail if link.kind == "op" and not isinstance(link.op, WeightRead)]
    if not any(not is_conversion(link.op) for link in operations):
        return links
    made = {
        symbol for link in links[:after] for symbol in (*link.output_symbols, *link.input_symbols) if symbol is not None
    }
    groups: dict = {}
    for link in operations:
        name = link.path.split("/")[0]
        groups.setdefault(name if "/" in link.path else None, []).append(link)
    sums = groups.pop(None, [])  # averages over the batch, and what adds up errors
    if not groups:
        groups, sums = {"error": operations}, []
    new = [_composite(name, group, made) for name, group in groups.items()]
    if any(link is None for link in new) or any(set(link.input_symbols) & made for link in sums):
        return links
    dropped = {id(link) for link in operations}
    kept = [link for link in links if id(link) not in dropped]
    return [*kept, *new]


def _composite(name: str, group: list, made: set) -> Any:
    """One link of a group of operations: from what comes from outside to its last output."""
    # What a conversion puts out is called as what it is given.
    computing = [link for link in group if not {*link.output_symbols} & {*link.input_symbols} - {None}]
    inside = {symbol for link in computing for symbol in link.output_symbols if symbol is not None}
    inputs: dict[Symbol, list] = {}
    for link in computing:
        for symbol, value, dx in zip(link.input_symbols, link.inputs, link.downstream, strict=True):
            if symbol is not None and symbol not in inside:
                parts = inputs.setdefault(symbol, [value, None])
                if dx is not None:
                    parts[1] = dx if parts[1] is None else parts[1] + dx
    last = group[-1]
    penalty = not any(symbol in made and symbol.letter != "T" for symbol in inputs) or all(
        symbol.letter in WEIGHTS or len(symbol.letter) > 1 for symbol in inputs
    )
    symbols = sorted(inputs, key=lambda symbol: symbol.letter != "T")
    if not symbols or (last.upstream[0] is None and not penalty):
        return None
    downstream = tuple(inputs[symbol][1] for symbol in symbols)
    letter = "R" if penalty else "e"
    return Link(
        path=name,
        kind="regularizer" if penalty else "loss",
        rule=name,
        op=name,
        inputs=tuple(inputs[symbol][0] for symbol in symbols),
        outputs=last.outputs,
        input_symbols=tuple(symbols),
        output_symbols=(Symbol(letter),),
        upstream=last.upstream,
        downstream=downstream,
        local_derivative=None if penalty else next((np.asarray(dx) for dx in downstream if dx is not None), None),
    )
