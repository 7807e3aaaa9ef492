"""Names of weights, both ways: how one is called, and which one a name in any spelling means."""

import re
from typing import Any

import numpy as np

from keras_backprop.explanations.comparing.reading import is_role, normalised, parsed_name
from keras_backprop.explanations.observing.asked import whole
from keras_backprop.explanations.writing.notation import plain

__all__ = ["WeightNames", "primed"]


class WeightNames:
    """The names of the weights of one explanation.

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
            if _is_kernel(w) and np.ndim(w.value) == 2
        ]  # fmt: skip
        if any(_is_kernel(w) and np.ndim(w.value) > 2 for w in self.weights.values()):
            self._dense = []  # beside a kernel of more axes, as of a convolution, nobody counts them so

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

    def name(self, path: str, index: Any) -> str:
        """The name of one entry of a weight as LaTeX: `w^{(2)}_{11}`, in a chain of single units `w_2`."""
        symbol, value = self.weights[path].symbol, self.weights[path].value
        if index is None or (np.size(value) == 1 and self._plain):
            return symbol.latex
        if (
            len(symbol.letter) > 1 or symbol.role or symbol.letter == "C"
        ):  # the rows of a table are called by their keys
            return rf"{symbol.latex}[{','.join(map(str, index))}]"
        numbers = [i + 1 for i in index]
        if self.convention == "column" and len(numbers) == 2:
            numbers.reverse()
        below = ("" if max(numbers) < 10 and len(numbers) < 3 else ",").join(map(str, numbers))
        above = f"^{{({symbol.subscript})}}" if symbol.subscript is not None else ""
        return f"{symbol._replace(letter=symbol.letter.lower()).latex_letter}{above}_{{{below}}}"

    def entry(self, path: str, number: int) -> str:
        """The name of one entry, counted along the weight."""
        return self.name(path, tuple(map(int, np.unravel_index(number, np.shape(self.weights[path].value)))))

    def running(self, path: str, index: Any) -> int | None:
        """Which weight it is, counted layer by layer and unit by unit, from 1: w₅ of the textbook network."""
        start = 0
        for one in self._dense:
            rows, columns = np.shape(self.weights[one].value)
            if one == path and index is not None:
                return start + index[1] * rows + index[0] + 1
            start += rows * columns
        return None

    def is_called(self, name: str) -> bool:
        """Whether a weight is called exactly so, or one of its entries."""
        place = self._weight_or_none(name)
        return place is not None and normalised(plain(self.name(*place))) == normalised(name)

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
            shape = np.shape(self.weights[chosen[0]].value)
            if len(places) < len(shape) == 2 and min(shape) == 1 and (zero_based or places[0] < 10):
                along, first = int(np.argmax(shape)), 0 if zero_based else 1  # the only row, or the only column
                return chosen[0], self._checked(chosen[0], tuple((places[0] - first) * (n == along) for n in range(2)))
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


def _is_kernel(weight):
    """Whether it is a kernel of a layer, w or W, and no projection of attention: those are called by their roles."""
    return weight.symbol.letter in ("w", "W") and not weight.symbol.role


def primed(name: str) -> str:
    """The name of a new weight: `w_2^{\\prime}`."""
    return name.replace(")}", r")\prime}", 1) if "^{(" in name else name + r"^{\prime}"
