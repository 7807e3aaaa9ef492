"""Vectors of numbers, the edges between them with their derivatives, and the places where weights enter."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["Edge", "Node", "Use", "below", "places_in"]


@dataclass(eq=False)
class Node:
    """A vector of numbers for every example: z, a, h₃.

    Attributes:
        letter: str.
        value: array of shape `(n, units)`.
        layer: int or None, which layer, from 1.
        time: int or None, which time step, from 1.
        edges: list of `Edge`, from what it is computed of.
        compute: function of the values of the edges' sources -> value without the bias; None where it is not known, or the edges
            have weights. Copies of a graph share it: what a mistake may change stands in the node and its edges, not in it.
        bias: array, what is added to the products, or to what `compute` gives.
        text: str, LaTeX of the formula of a unit, a template of `{x}`, the name of what it is made of, and `{w}`: `Edge.named`.
        gradient: array, ∂E/∂node.
        plain: bool, its layer needs no number, its only unit none either.
        shape: tuple, how the units lie: rows, columns, channels. Empty: in a row.
        place: tuple of ints from 1, of one position of a layer: which.
        called: str, where a unit has no letter of its own: the template of its name, in that of the unit of which it is made.
        origins: list, for each unit the (node, unit) that it was taken from as it is, or None; it then has that name.
    """

    letter: str
    value: np.ndarray
    layer: int | None = None
    time: int | None = None
    edges: list = field(default_factory=list)
    compute: Callable | None = None
    bias: Any = 0.0
    text: str = ""
    gradient: Any = None
    plain: bool = False
    shape: tuple = ()
    place: tuple = ()
    called: str = ""
    origins: list = field(default_factory=list)

    @property
    def units(self) -> int:
        return int(self.value.shape[-1])

    def name(self, unit: int = 0) -> str:
        """The name of a unit, as LaTeX: `a^{(1)}_{2}`, in a chain of single units `a_1`."""
        if self.origins and self.origins[unit] is not None:
            node, of = self.origins[unit]
            return node.name(of)
        if self.called:
            return self.called.format(self.edges[0].source.name(unit))
        if self.shape or self.place:
            return self._name_at((*self.place, *(i + 1 for i in np.unravel_index(unit, self.shape or (self.units,)))))
        if self.time is not None:
            return below(self._above(), f"{self.time}" if self.units == 1 else f"{self.time},{unit + 1}")
        if self.plain:
            return below(self.letter, self.layer)
        return below(self._above(), unit + 1) if self.units > 1 or self.layer is not None else self.letter

    @property
    def vector(self) -> str:
        """The name of all units together of a time step, h_2; where they are one row taken from another node, that row's."""
        if self.called:
            return self.called.format(self.edges[0].source.vector)
        node, row, units = self, 0, [(self, unit) for unit in range(self.units)]
        while all(one.origins and one.origins[of] is not None for one, of in units):
            units = [one.origins[of] for one, of in units]
            one, first = units[0]
            whole = [(one, first + unit) for unit in range(one._width)]
            if units == whole and first % one._width == 0:
                node, row = one, first // one._width
        if node.time is not None:
            return below(node._above(), node.time)
        rows = [i + 1 for i in np.unravel_index(row, node.shape[:-1])] if node.shape else []
        return below(node._above(), ",".join(map(str, (*node.place, *rows))) or None)

    @property
    def _width(self):
        """How many units there are in a row."""
        return self.shape[-1] if self.shape else self.units

    def _above(self):
        """The letter with the layer's number above; beside that of a gate: z^{i,(2)}."""
        if self.layer is None:
            return self.letter
        number = f"({self.layer})"
        return self.letter.replace("}", f",{number}}}") if "^{" in self.letter else f"{self.letter}^{{{number}}}"

    def _name_at(self, place):
        """`y^{(1)}_{2,1,3}`: row, column, channel."""
        return f"{self._above()}_{{{','.join(map(str, place))}}}"

    def __repr__(self) -> str:
        return f"<Node {self.name()} of shape {self.value.shape}>"

    def taken_from(self, unit: int, node: "Node", of: int) -> bool:
        """Whether a unit is nothing but that unit of another node."""
        return bool(self.origins) and self.origins[unit] is not None and self.origins[unit] == (node, of)


def below(letter: str, number: Any) -> str:
    """A letter as LaTeX with a number, or several, below; without where it is None."""
    if number is None:
        return letter
    return f"{letter}_{number}" if len(str(number)) == 1 else f"{letter}_{{{number}}}"


@dataclass(eq=False)
class Edge:
    """How a node depends on another.

    Attributes:
        source: `Node`.
        weight: str or None, the path of the weight between the two.
        entries: array of ints, `(in, out)` of a matrix, `(units,)` of a scale: which entry of the weight, counted along it,
            stands at each place, −1 for none: the columns of a gate, the kernel of a window.
        matrix: array `(in, out)` of the weights, or None.
        local: array `(n, units)`, the derivative of each unit by the same unit of the source, or None. With a weight: a scale.
        jacobian: array `(n, out, in)`, or None. (Softmax, pooling.)
        taken: array `(out,)` of ints, which unit of the source each unit is, −1 for none; or None. (Flatten, Concatenate.)
        text: str, LaTeX of the derivative; with `{y}` or `{x}` a template, y the node's name, x the source's: `{y}(1 - {y})`. ""
            where it is not known.
        beside: tuple of `Node`, whose units make the derivative: the other factor of a product of two. `text` is then a template
            of their names, `(1 - {0})`, by default `{0}`.
        named: str or None, the path of a weight whose entry at a unit, by `entries`, `text` calls `{w}`.
        rule: str, the name of the rule that gave it.
        function: bool, whether it is the derivative of an activation function.
        derive: function (node's value, the sources' values…) -> local or Jacobian; None where it is not known, or needs none.
    """

    source: Node
    weight: str | None = None
    entries: Any = None
    matrix: np.ndarray | None = None
    local: np.ndarray | None = None
    jacobian: np.ndarray | None = None
    taken: np.ndarray | None = None
    text: str = ""
    rule: str = ""
    function: bool = False
    beside: tuple = ()
    named: str | None = None
    derive: Callable | None = None

    def reached(self, of: int, example: Any = None) -> Any:
        """The units of the node that depend on a unit of the source, in one example or in any."""
        if self.local is not None:
            return (of,)
        if self.taken is not None:
            return np.flatnonzero(self.taken == of).tolist()
        if self.matrix is not None:
            return np.flatnonzero(self.entries[of] >= 0).tolist()
        assert self.jacobian is not None
        of_examples = self.jacobian[:, :, of] if example is None else self.jacobian[[example], :, of]
        return np.flatnonzero(np.any(of_examples, 0)).tolist()

    def entry(self, of: int, unit: int) -> int:
        """Which entry of the weight leads from a unit of the source to a unit of the node."""
        return int(self.entries[of, unit] if self.matrix is not None else self.entries[unit])

    def made_of(self, weight: Any) -> Any:
        """The matrix, or the scale, that another array in the place of the weight would give."""
        values = np.where(self.entries < 0, 0.0, np.ravel(weight)[self.entries])
        return values if self.matrix is not None else np.broadcast_to(values, self.source.value.shape)

    @property
    def coefficients(self) -> Any:
        """The matrix, or the scale, by which the source is multiplied."""
        return self.matrix if self.matrix is not None else self.local

    @coefficients.setter
    def coefficients(self, values: Any) -> None:
        if self.matrix is not None:
            self.matrix = values
        else:
            self.local = values

    def derivative(self, example: int, unit: int, of: int) -> float:
        """∂(the node's unit)/∂(the source's unit)."""
        if self.local is not None:
            return float(self.local[example, unit])
        if self.taken is not None:
            return float(self.taken[unit] == of)
        if self.matrix is not None:
            return float(self.matrix[of, unit])
        assert self.jacobian is not None
        return float(self.jacobian[example, unit, of])

    def back(self, dy: Any) -> Any:
        """∂E/∂source from ∂E/∂node, shapes `(n, units)`."""
        if self.local is not None:
            return dy * self.local
        if self.taken is not None:
            dx = np.zeros((len(dy), self.source.units))
            for unit in np.flatnonzero(self.taken >= 0):
                dx[:, self.taken[unit]] += dy[:, unit]
            return dx
        if self.matrix is not None:
            return dy @ self.matrix.T
        assert self.jacobian is not None
        return np.einsum("no,noi->ni", dy, self.jacobian)


@dataclass(eq=False)
class Use:
    """A place where a weight enters a node: as a factor of what comes along an edge, or, without an edge, as a term.

    Attributes:
        path: str, of the weight.
        node: `Node`.
        edge: `Edge`, or None: b in z = x·W + b, a row of a table.
        of_units: array of ints, of a term: which entry of the weight each unit of the node has, `(units,)`, or, where examples
            differ, `(n, units)`.
    """

    path: Any
    node: Node
    edge: Edge | None
    of_units: Any = None

    def places(self, entry: int, example: int) -> list:
        """Where an entry of the weight stands: (unit of the source, or None, unit of the node)."""
        if self.edge is None:
            row = self.of_units if self.of_units.ndim == 1 else self.of_units[example]
            return [(None, int(unit)) for unit in np.flatnonzero(row == entry)]
        if self.edge.matrix is not None:
            return [(int(of), int(unit)) for of, unit in np.argwhere(self.edge.entries == entry)]
        return [(int(unit), int(unit)) for unit in np.flatnonzero(self.edge.entries == entry)]

    def gradient(self, shape: tuple, example: Any = None, x: Any = None) -> Any:
        """What this place adds to ∂E/∂weight, an array of that shape.

        Args:
            shape: of the weight.
            example: int, what this one adds; None: all.
            x: array `(n, in)`, in the place of what comes along the edge; of a term, where it is 1, `(n, 1)` or `(n, units)`.
        """
        rows = slice(None) if example is None else slice(example, example + 1)
        parts, at = self.node.gradient[rows], self.of_units
        if self.edge is not None:
            given, at = (self.edge.source.value if x is None else x)[rows], self.edge.entries
            parts = given.T @ parts if self.edge.matrix is not None else given * parts
        else:
            parts = parts if x is None else parts * x[rows]
            at = at[rows] if at.ndim == 2 else at
        parts = parts if parts.ndim == at.ndim else parts.sum(0)
        total = np.zeros(int(np.prod(shape)))
        np.add.at(total, at[at >= 0], parts[at >= 0])
        return total.reshape(shape)


def places_in(weight: Any) -> Any:
    """The entries of a weight, counted along it, in its shape."""
    return np.arange(np.size(weight)).reshape(np.shape(weight))
