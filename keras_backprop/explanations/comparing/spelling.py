"""Which number is meant: names of weights, units, gradients and updates in the spellings in which people write them."""

import functools
import re
from typing import Any, NamedTuple

import numpy as np

from keras_backprop.explanations.comparing.reading import kind_of, normalised, parsed_name
from keras_backprop.explanations.comparing.weight_names import WeightNames, primed
from keras_backprop.explanations.writing.notation import plain

__all__ = ["Found", "Spelling"]


class Found(NamedTuple):
    """What a name means.

    Attributes:
        kind: "error", "value", "delta", "factor", "weight", "gradient", "update" or "change".
        node, unit: the `Node` and its unit (None for all of them), of a value, a delta or a factor.
        path, index: the weight and the place in it (None for the whole weight).
        latex: str, its name.
        of: for a factor, the `Edge` and the unit of its source.
    """

    kind: str
    node: Any = None
    unit: Any = None
    path: str = ""
    index: Any = None
    latex: str = ""
    of: Any = None


class Spelling(WeightNames):
    """The names of all numbers of one explanation. See `WeightNames` for its arguments."""

    def weight(self, spelled: Any, index: tuple = ()) -> Found:
        """A weight, or one entry of it.

        Raises:
            KeyError: there is none of that name; the message says which there are.
            IndexError: the index is outside it.
        """
        path, place = self._weight(spelled)
        if index:
            place = self._checked(path, index)
        return Found("weight", path=path, index=place, latex=self.name(path, place))

    def quantity(self, spelled: str) -> Found:
        """Any number of the explanation.

        Raises:
            KeyError: there is none of that name.
        """
        if spelled in self.weights:  # "dense/kernel" is no d of "ense/kernel"
            place = self._weight(spelled)
            return Found("weight", path=place[0], index=place[1], latex=self.name(*place))
        text = normalised(spelled)
        if text.lower() in ("e", "loss", "error", "etotal", "e_total", "l", "j", "mse", "cost"):
            return Found("error", latex="E")
        match = re.fullmatch(r"(?:∂|d)(?!E)(.+?)(?:/|_)(?:∂|d)(.+)", text)
        if match and not re.match(r"(?:∂|d)?[Ee](?:/|_)", text):
            factor = self._factor(*match.groups())
            if factor is not None:
                return factor
        kind, name = kind_of(text)
        if kind in ("delta", "value"):
            node = self._node(name, "z" if kind == "delta" else None)
            if node is not None:
                return self._of_node(kind, *node)
        if kind == "value":
            place = self._weight_or_none(name)
            if place is not None:
                return Found("weight", path=place[0], index=place[1], latex=self.name(*place))
        if kind == "gradient" and normalised(name) in self._printed and not self.is_called(name):
            return self._of_node("delta", *self._printed[normalised(name)])  # the gate u₁, where the weight is U₁
        if kind in ("gradient", "update", "change"):
            place = self._weight_or_none(name)
            if place is not None:
                above = {
                    "gradient": rf"\frac{{\partial E}}{{\partial {self.name(*place)}}}",
                    "change": rf"\Delta {self.name(*place)}",
                }
                return Found(kind, path=place[0], index=place[1], latex=above.get(kind, primed(self.name(*place))))
            node = self._node(name, None) if kind == "gradient" else None
            if node is not None:
                return self._of_node("delta", *node)
        raise KeyError(f"There is no number {spelled!r}. {self.available()}")

    def _of_node(self, kind, node, unit):
        name = node.name(unit or 0) if unit is not None or node.units == 1 else node.name(0)[: node.name(0).rfind("_")]
        unit = 0 if unit is None and node.units == 1 else unit
        latex = name if kind == "value" else rf"\frac{{\partial E}}{{\partial {name}}}"
        return Found(kind, node=node, unit=unit, latex=latex)

    def _factor(self, above, below):
        upper, lower = self._node(above, None), self._node(below, None)
        if upper is None:
            return None
        node, unit = upper[0], upper[1] or 0
        if lower is not None:
            for edge in node.edges:
                if edge.source is lower[0]:
                    of = lower[1] if lower[1] is not None else (unit if edge.local is not None else 0)
                    name = rf"\frac{{\partial {node.name(unit)}}}{{\partial {lower[0].name(of)}}}"
                    return Found("factor", node=node, unit=unit, latex=name, of=(edge, of))
            return None
        place = self._weight_or_none(below)
        for use in self.graph.uses if place is not None else ():
            if use.path == place[0] and use.node is node and use.edge is not None:
                index = place[1] or (0,) * np.ndim(self.weights[use.path].value)
                entry = int(np.ravel_multi_index(index, np.shape(self.weights[use.path].value)))
                for of, to in use.places(entry, 0):
                    if upper[1] in (None, to):
                        name = rf"\frac{{\partial {node.name(to)}}}{{\partial {self.name(use.path, index)}}}"
                        return Found("value", node=use.edge.source, unit=of, latex=name)
        return None

    @functools.cached_property
    def _printed(self):
        """The names of all units as they are printed, in a terminal and in LaTeX, and without the underscore: -> (node, unit)."""
        names: dict = {}
        for node in self.graph.nodes:
            for unit in range(node.units):
                latex = normalised(node.name(unit))
                for name in (latex, normalised(plain(node.name(unit))), latex.replace("_", "")):
                    names.setdefault(name, (node, unit if node.units > 1 or "," in latex else None))
        return names

    def _node(self, name, letter):
        """(node, unit or None) of a name; `letter` is meant where the name has none (δ₁ is that of z₁)."""
        if normalised(name) in self._printed:
            return self._printed[normalised(name)]
        short = re.fullmatch(r"(net|out|in)?_?\{?([ho])_?(\d+)\}?", name)
        layers = sorted(
            {node.layer for node in self.graph.nodes if node.letter == "z" and node.time is None and node.layer}
        )
        recurrent = any(node.time is not None for node in self.graph.nodes)
        if short and layers and not (recurrent and short[2] == "h"):
            number = layers[-1] if short[2] == "o" else layers[0]
            wanted = letter or ("z" if short[1] in ("net", "in") else "a")
            return self._pick(
                [n for n in self.graph.nodes if n.letter == wanted and n.layer == number], int(short[3]) - 1
            )
        parsed = parsed_name(name, letter)
        if parsed is None:
            return None
        first, number, places, zero_based = parsed
        nodes = [node for node in self.graph.nodes if node.letter == first]
        if not nodes:
            return None
        numbered = [
            node
            for node in nodes
            if number is not None and (node.time if node.time is not None else node.layer) == number
        ]
        timed = [node for node in numbered if node.time is not None] or numbered
        if number is None:
            return self._pick(nodes if len(nodes) == 1 else nodes[:0], None) or (
                self._pick(nodes[-1:], None) if letter else None
            )
        if timed:
            return self._pick(timed, _unit(timed[-1], places, zero_based))
        if len(nodes) == 1 and not places:
            return self._pick(nodes, number - 1)  # x₂: the second number of the only x
        if number >= 10 and not places and number < 100:  # z₁₂: layer 1, unit 2
            return self._pick([node for node in nodes if (node.time or node.layer) == number // 10], number % 10 - 1)
        return None

    @staticmethod
    def _pick(nodes, unit):
        nodes = [node for node in nodes if unit is None or 0 <= unit < node.units]
        return (nodes[-1], unit) if nodes else None


def _unit(node, places, zero_based):
    """Which unit of a node is meant by its numbers, −1 for none: one, or row, column and channel."""
    if not places:
        return None
    if len(places) == 1 < len(node.shape) and not zero_based:
        places = [int(digit) for digit in str(places[0])]
    places = [n - (0 if zero_based else 1) for n in places]
    shape = node.shape or (node.units,)
    inside = len(places) == len(shape) and all(0 <= n < size for n, size in zip(places, shape, strict=True))
    return int(np.ravel_multi_index(places, shape)) if inside else -1
