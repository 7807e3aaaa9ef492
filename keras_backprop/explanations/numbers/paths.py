"""The chain of one weight: every path from the error to it, as a product of factors, and their sum."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_backprop.explanations.numbers.path_finder import Factor, Finder, Path
from keras_backprop.explanations.observing.asked import place
from keras_backprop.explanations.writing.breaking import broken, broken_text
from keras_backprop.explanations.writing.markdown import aligned, display, table
from keras_backprop.explanations.writing.notation import (
    columns,
    decimals_of_change,
    derivative,
    latex_factor,
    latex_number,
    number,
    plain,
    precision,
)

__all__ = ["Chain", "Factor", "Path", "chain_of"]


@dataclass(frozen=True, eq=False)
class Chain:
    """The gradient of one weight as a sum over paths of products. What `explanation.chain` returns.

    Attributes:
        name: str, LaTeX, of the weight.
        path: str, of the variable.
        index: tuple, the place in it.
        paths: list of `Path`; their values add up to the gradient.
        gradient: float, ∂E/∂weight, from the record.
        before, after: floats, the weight before and after the update.
        also: int or None, which weight it is, counted through the network.
        explanation: the `Explanation`.
        example: int or None, the only example whose paths these are.
    """

    name: str
    path: str
    index: tuple
    paths: list
    gradient: float
    before: float
    after: float
    also: Any = None
    explanation: Any = None
    digits: Any = None
    trained: bool = True
    example: Any = None
    _graph: Any = field(default=None, repr=False)

    @property
    def factors(self) -> list[Factor]:
        """The factors of all paths, each once, in the order in which they are met."""
        return list({factor.name: factor for path in self.paths for factor in path.factors}.values())

    @property
    def examples(self) -> list[int]:
        """The examples that contribute."""
        return sorted({path.example for path in self.paths if path.example is not None})

    def table(self) -> list[dict]:
        """A row for each path: `example`, every factor by its name, `product`."""
        return [
            {"example": path.example, **{plain(f.name): f.value for f in path.factors}, "product": path.value}
            for path in self.paths
        ]

    @property
    def _is_whole(self):
        """Whether the only factor is the gradient itself: nothing is known of how it comes about."""
        return [f.name for path in self.paths for f in path.factors] == [derivative("E", self.name)]

    def to_text(self, digits: Any = None) -> str:
        """The chain for a terminal. `digits`: int, decimals; by default four."""
        with precision(self.digits if digits is None else digits):
            return "\n".join(self._lines())

    def _lines(self):
        name, several = plain(self.name), len(self.examples) > 1
        place = f"{self.path}[{', '.join(map(str, self.index))}]" if self.index else self.path
        also = (
            f"w{str(self.also).translate(_SUBSCRIPTS)}, "
            if self.also is not None and f"_{self.also}" not in self.name
            else ""
        )
        same = name == place.replace(" ", "")
        lines = [f"The chain of {name}" + ("" if same else f"  ({also}{place})"), ""]
        if not several:
            rows = [
                (plain(f.name), "= " + plain(f.formula) if f.formula else "", number(f.value)) for f in self.factors
            ]
            lines += [*columns(rows), ""] if not self._is_whole else []
        for count, path in enumerate(self.paths, start=1):
            lead = f"  path {count}" if len(self.paths) > 1 else "  ∂E/∂" + name
            where = f", example {path.example + 1}" if several and path.example is not None else ""
            if self._is_whole:
                lines.append(f"  ∂E/∂{name} = {number(path.value)}, by the rule of a link that is not looked into")
                continue
            names = " · ".join(plain(f.name) for f in path.factors)
            product = f"{_product(path)} = {number(path.value)}"
            if len(self.paths) > 1:
                lines += [*broken_text(f"{lead}{where}: ", names), *broken_text("      = ", product)]
            else:
                lines += [*broken_text(f"{lead} = ", names), *broken_text(f"  {' ' * len('∂E/∂' + name)} = ", product)]
        if len(self.paths) > 1:
            total = " + ".join(_in_brackets(number(path.value)) for path in self.paths) if len(self.paths) <= 8 else (
                f"the sum of {len(self.paths)} products")  # fmt: skip
            lines += ["", *broken_text(f"  ∂E/∂{name} = ", f"{total} = {number(self.gradient)}")]
        if not self.trained:
            lines += [f"  {name} is frozen: its gradient is not computed."]
        elif not self.paths:
            lines += [f"  E does not depend on {name}: ∂E/∂{name} = {number(self.gradient)}"]
        weight = self.explanation.weight(self.path).value  # its type says how many digits there are
        with precision(decimals_of_change(*np.array([self.before, self.after], weight.dtype))):
            update = f"  {name}: {number(self.before)} → {number(self.after)}"
        return [
            *lines,
            f"{update}  ({self.explanation.optimizer})" if self.trained else f"{update}  (frozen: not trained)",
        ]

    def to_markdown(self, digits: Any = None, flavor: Any = None) -> str:
        """The chain as LaTeX formulas with the numbers put in; over several examples with a table example × factor.

        Args:
            digits: int, decimals; by default four.
            flavor: None, or "github" for its `math` blocks.
        """
        with precision(self.digits if digits is None else digits):
            gradient = derivative("E", self.name)
            several, lines = len(self.examples) > 1, []
            parts = [f"### The chain of ${self.name}$"]
            if several:
                parts.append(self._table(table))
            elif not self._is_whole:
                rows = [
                    (f"${f.name}$", f"${f.formula}$" if f.formula else "", f"${latex_number(f.value)}$")
                    for f in self.factors
                ]
                parts.append(table(("factor", "formula", "value"), rows))
            for path in self.paths if len(self.paths) <= 12 else ():
                names = r" \cdot ".join(f.name for f in path.factors)
                values = r" \cdot ".join(latex_factor(f.value) for f in path.factors)
                if self._is_whole:
                    by = r"\text{ by the rule of a link that is not looked into}"
                    lines += aligned(gradient, [latex_number(path.value) + by])
                elif len(self.paths) == 1:
                    lines += aligned(gradient, [names, values, latex_number(path.value)])
                elif not several:
                    lines += [f"& {part}" for part in broken(names)]
                    lines += [rf"&\quad {'= ' * (n == 0)}{part}" for n, part in enumerate(broken(values))]
                    lines[-1] += f" = {latex_number(path.value)}"
            if len(self.paths) > 1:
                total = " + ".join(latex_factor(path.value) for path in self.paths) if len(self.paths) <= 6 else r"\sum"
                lines += aligned(gradient, [total, latex_number(self.gradient)])
            parts.append(display(lines, flavor))
            return "\n\n".join(parts) + "\n"

    def _table(self, table):
        names = list(dict.fromkeys(f.name for path in self.paths for f in path.factors))
        rows = []
        for path in self.paths:
            values = {f.name: latex_number(f.value) for f in path.factors}
            example = "" if path.example is None else str(path.example + 1)
            rows.append(
                (example, *(f"${values[n]}$" if n in values else "" for n in names), f"${latex_number(path.value)}$")
            )
        rows.append(("sum", *("" for _ in names), f"${latex_number(self.gradient)}$"))
        return table(("example", *(f"${n}$" for n in names), "product"), rows)

    def plot(self, path: Any, example: Any = None) -> Any:
        """Draw the network with the paths to this weight lit. Returns the path.

        Args:
            path: str or path, the file to write: `.png`, `.svg` or `.pdf`.
            example: int from 0, as in `Explanation.plot`; by default the one that the chain is of, if it is of one.

        Raises:
            ImportError, ValueError: as `Explanation.plot`.
        """
        return self.explanation.plot(path, chain=self, example=example)

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return f"<Chain of {plain(self.name)}: {len(self.paths)} paths, ∂E/∂{plain(self.name)} = {self.gradient:.6g}>"


_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def _product(path):
    return " · ".join(_in_brackets(number(f.value)) for f in path.factors)


def _in_brackets(text):
    return f"({text})" if text.startswith("-") else text


def chain_of(explanation: Any, spelling: Any, weight: Any, index: tuple, example: Any, digits: Any) -> Chain:
    """The chain of one weight. See `Explanation.chain`."""
    found, graph = spelling.weight(weight, index), spelling.graph
    one = spelling.weights[found.path]
    if found.index is None:
        shape = np.shape(one.value)
        places = ", ".join(str(n - 1) for n in shape)
        raise IndexError(
            f"{one.symbol} ({found.path}) has the shape {shape}: say which of its numbers is meant, by indices from 0, "
            f"chain({weight!r}, {places}), or by name, chain({plain(spelling.name(found.path, tuple(n - 1 for n in shape)))!r})."
        )
    finder = Finder(graph, spelling)
    count = explanation.examples
    if example is not None:
        place("example", example, count)
    paths = finder.paths(found.path, found.index, range(count) if example is None else [example]) if one.trained else []
    gradient = 0.0 if one.gradient is None else float(np.asarray(one.gradient)[found.index])
    if example is not None:
        gradient = sum(path.value for path in paths)
    return Chain(
        name=found.latex, path=found.path, index=found.index, paths=paths, gradient=gradient,
        before=float(one.value[found.index]), after=float(one.updated[found.index]),
        also=spelling.running(found.path, found.index), explanation=explanation, digits=digits, trained=one.trained,
        example=example, _graph=graph,
    )  # fmt: skip
