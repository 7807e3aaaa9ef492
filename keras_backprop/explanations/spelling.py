"""Which number is meant: names of weights, units, gradients and updates in the spellings in which people write them."""

import re
from typing import Any, NamedTuple

import numpy as np

from keras_backprop.explanations.asked import whole
from keras_backprop.explanations.notation import plain
from keras_backprop.explanations.reading import is_role, kind_of, normalised, parsed_name

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


class Spelling:
    """The names of one explanation.

    Args:
        explanation: the `Explanation`.
        graph: its `Graph`.
        convention: "row" (w₁₂ leads from unit 1 to unit 2: Keras's matrix, x·W) or "column" (w₁₂ leads to unit 1 from unit 2).
    """

    def __init__(self, explanation: Any, graph: Any, convention: str = "row") -> None:
        if convention not in ("row", "column"):
            raise ValueError(f'`convention` must be "row" or "column". Received: {convention!r}')
        self.explanation, self.graph, self.convention = explanation, graph, convention
        self.weights = {w.path: w for w in (*explanation.weights, *explanation.frozen)}
        self._plain = any(node.plain and node.letter in "za" for node in graph.nodes)
        self._dense = [
            path
            for path, w in sorted(self.weights.items(), key=lambda one: one[1].symbol.subscript or 0)  # frozen ones stand last
            if w.symbol.letter in ("w", "W") and np.ndim(w.value) == 2
        ]  # fmt: skip

    def name(self, path: str, index: Any) -> str:
        """The name of one entry of a weight as LaTeX: `w^{(2)}_{11}`, in a chain of single units `w_2`."""
        symbol, value = self.weights[path].symbol, self.weights[path].value
        if index is None or (np.size(value) == 1 and self._plain):
            return symbol.latex
        if len(symbol.letter) > 1 or symbol.role:
            return rf"{symbol.latex}[{','.join(map(str, index))}]"
        numbers = [i + 1 for i in index]
        if self.convention == "column" and len(numbers) == 2:
            numbers.reverse()
        below = ("" if max(numbers) < 10 else ",").join(map(str, numbers))
        above = f"^{{({symbol.subscript})}}" if symbol.subscript is not None else ""
        return f"{symbol.letter.lower()}{above}_{{{below}}}"

    def running(self, path: str, index: Any) -> int | None:
        """Which weight it is, counted layer by layer and unit by unit, from 1: w₅ of the textbook network."""
        start = 0
        for one in self._dense:
            rows, columns = np.shape(self.weights[one].value)
            if one == path and index is not None:
                return start + index[1] * rows + index[0] + 1
            start += rows * columns
        return None

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

    def available(self) -> str:
        """A sentence with the names that there are."""
        nodes = list(
            dict.fromkeys(plain(node.name(unit)) for node in self.graph.nodes for unit in range(min(node.units, 4)))
        )
        weights = [
            f"{w.symbol}" + (f" of shape {np.shape(w.value)}" if np.size(w.value) > 1 else "") + f" ({path})"
            for path, w in self.weights.items()
        ]  # fmt: skip
        return (
            f"Weights: {', '.join(weights)}; gradients are called ∂E/∂… or d…, new weights …_new; values: "
            f"{', '.join(nodes[:24])}; and E."
        )

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
                index = place[1] or (0, 0)
                name = rf"\frac{{\partial {node.name(index[1])}}}{{\partial {self.name(use.path, index)}}}"
                return Found("value", node=use.edge.source, unit=index[0], latex=name)
        return None

    def _node(self, name, letter):
        """(node, unit or None) of a name; `letter` is meant where the name has none (δ₁ is that of z₁)."""
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
        unit = (places[0] - (0 if zero_based else 1)) if places else None
        if timed:
            return self._pick(timed, unit)
        if len(nodes) == 1 and not places:
            return self._pick(nodes, number - 1)  # x₂: the second number of the only x
        if number >= 10 and not places and number < 100:  # z₁₂: layer 1, unit 2
            return self._pick([node for node in nodes if (node.time or node.layer) == number // 10], number % 10 - 1)
        return None

    @staticmethod
    def _pick(nodes, unit):
        nodes = [node for node in nodes if unit is None or 0 <= unit < node.units]
        return (nodes[-1], unit) if nodes else None

    def _weight_or_none(self, spelled):
        try:
            return self._weight(spelled)
        except KeyError:
            return None

    def _weight(self, spelled):
        """(path, index or None)"""
        path = getattr(spelled, "path", spelled)
        if not isinstance(path, str):
            raise KeyError(f"A weight is given by its name, its path or as a variable. Received: {spelled!r}")
        for one in self.weights:
            if one == path or one.endswith("/" + path):
                return one, (0,) * np.ndim(self.weights[one].value) if np.size(self.weights[one].value) == 1 else None
        for one, weight in self.weights.items():
            if weight.symbol.role and is_role(path, weight.symbol):
                return one, None
        entry = re.fullmatch(r"(.+?[/_].+?)((?:\[[\d,\s]+\])+)", path)
        if entry:
            one, _ = self._weight(entry[1])
            return one, self._checked(one, tuple(map(int, re.findall(r"\d+", entry[2]))))
        parsed = parsed_name(normalised(path), None)
        if parsed is not None:
            found = self._symbolic(*parsed)
            if found is not None:
                return found
        raise KeyError(f"There is no weight {path!r}. {self._in_several(parsed)}{self.available()}")

    def _in_several(self, parsed):
        """Of w₁₁ in a network of several layers: which there are."""
        letter, number, places, _ = parsed or ("", None, [], False)
        digits = places or ([int(d) for d in str(number)] if number is not None and number >= 10 else [])
        digits = [int(d) for d in str(digits[0])] if len(digits) == 1 else digits
        names = [
            plain(self.name(path, tuple(d - 1 for d in digits)))
            for path, w in self.weights.items()
            if w.symbol.letter.lower() == letter.lower() and len(digits) == np.ndim(w.value)
            and all(1 <= d <= n for d, n in zip(digits, np.shape(w.value), strict=True))
        ]  # fmt: skip
        return f"In which layer? {' or '.join(names)}. " if names else ""

    def _symbolic(self, letter, number, places, zero_based):
        same = [p for p, w in self.weights.items() if w.symbol.letter.lower() == letter.lower() and not w.symbol.role]
        of_layer = [p for p in same if self.weights[p].symbol.subscript == number]
        if places:
            chosen = of_layer or (same if number is None and len(same) == 1 else [])
            if not chosen:
                return None
            if zero_based:
                return chosen[0], self._checked(chosen[0], tuple(places))
            numbers = (
                places
                if len(places) > 1 or np.ndim(self.weights[chosen[0]].value) == 1
                else list(map(int, str(places[0])))
            )
            if self.convention == "column" and len(numbers) == 2:
                numbers = numbers[::-1]
            return chosen[0], self._checked(chosen[0], tuple(n - 1 for n in numbers))
        single = [p for p in of_layer if np.size(self.weights[p].value) == 1]
        if single:
            return single[0], (0,) * np.ndim(self.weights[single[0]].value)
        if number is None:
            if len(same) != 1:
                return None
            value = self.weights[same[0]].value
            return same[0], (0,) * np.ndim(value) if np.size(value) == 1 else None
        if of_layer and letter.isupper():
            return of_layer[0], None
        if letter.lower() == "w" and self._dense:
            place = self._counted(number)
            if place is not None:
                return place
        if of_layer:
            return of_layer[0], None
        if number >= 10 and len(same) == 1 and letter.lower() in "wu":  # w₂₁ where there is one layer
            return self._symbolic(letter, self.weights[same[0]].symbol.subscript, [number], False)
        return None

    def _counted(self, number):
        for path in self._dense:
            rows, columns = np.shape(self.weights[path].value)
            if number <= rows * columns:
                return path, ((number - 1) % rows, (number - 1) // rows)
            number -= rows * columns
        return None

    def _checked(self, path, index):
        shape = np.shape(self.weights[path].value)
        inside = all(whole(i) and -n <= i < n for i, n in zip(index, shape, strict=False))
        if len(index) != len(shape) or not inside:
            raise IndexError(
                f"{self.weights[path].symbol} ({path}) has the shape {shape}; as many indices from 0 are wanted. "
                f"Received: {tuple(index)}"
            )
        return tuple(int(i) % n for i, n in zip(index, shape, strict=True))


def primed(name: str) -> str:
    """The name of a new weight: `w_2^{\\prime}`."""
    return name.replace(")}", r")\prime}", 1) if "^{(" in name else name + r"^{\prime}"
