"""Recurrent layers step by step: the nodes of every time step, from the weights and inputs that the layer had."""

from typing import Any

import keras
import numpy as np

from keras_backprop.explanations.numbers.agreement import agrees
from keras_backprop.explanations.numbers.nodes import Edge, Node, Use, below, places_in
from keras_backprop.explanations.numbers.positions import flat
from keras_backprop.explanations.numbers.windows import as_matrix, windows_over
from keras_backprop.explanations.writing.formulas import template
from keras_backprop.formula_latex import latex
from keras_backprop.formula_value import evaluate
from keras_backprop.registry import registered

__all__ = ["RECURRENT", "unroll"]

MOST_STEPS, MOST_PRODUCTS = 24, 100_000
"""So many steps, and of a convolution so many products in each of them; more end the paths."""

_CONVOLUTIONAL = (keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)
RECURRENT = (keras.layers.SimpleRNN, keras.layers.LSTM, keras.layers.GRU, *_CONVOLUTIONAL)
"""The layers that are looked into."""

_LETTERS = {"cell.kernel": "W", "cell.recurrent_kernel": "U"}


def unroll(link: Any, graph: Any, source: Any, states: list, path_of: dict, number: int | None) -> Any:
    """Add the nodes of every time step of a recurrent layer to a graph.

    Args:
        link: the `Link` of the layer.
        graph: the `Graph`.
        source: the `Node` of the sequence, or None.
        states: list, for each further input its `Node`, or None: the states that the layer begins with.
        path_of: dict, symbol of a weight -> its path.
        number: int, which layer this call is, where there are several; else None. Weights have the number of their first call.

    Returns:
        The nodes of h in the order of the steps, and the list of the nodes of the last states; None where the layer does
        something besides: masks, dropout, many steps.
    """
    steps = _Steps(link, source, states, path_of, number)
    outputs = np.asarray(link.outputs[0], "float64")
    every = link.op.return_sequences
    if not steps.possible() or (link.op.go_backwards and every):
        return None
    hidden, carried = steps.run()
    found = np.stack([node.value for node in hidden], 1) if every else hidden[-1].value
    if not agrees(found.reshape(outputs.shape), outputs, rtol=1e-4):
        return None
    graph.nodes += steps.nodes
    graph.uses += steps.uses
    return hidden, carried


class _Steps:
    def __init__(self, link, source, states, path_of, number):
        self.link, self.layer, self.path_of = link, link.op, path_of
        self.source, self.states, self.number = source, states, number
        self.nodes: list = []
        self.uses: list = []

    @property
    def gates(self):
        """The letters of the gates and the candidate, in the order of the columns of W."""
        kinds = {(keras.layers.LSTM, *_CONVOLUTIONAL): "ifgo", keras.layers.GRU: "urg"}
        return next((letters for kind, letters in kinds.items() if isinstance(self.layer, kind)), "")

    @property
    def positions(self):
        """Of a convolutional layer the shape of a picture of the state; else empty."""
        shape = np.shape(self.link.outputs[0])[1:-1]
        return (shape[1:] if self.layer.return_sequences else shape) if isinstance(self.layer, _CONVOLUTIONAL) else ()

    @property
    def units(self):
        """How many numbers a state has."""
        filters = self.layer.filters if self.positions else self.layer.units
        return filters * int(np.prod(self.positions))

    def possible(self):
        link, cell = self.link, self.layer.cell
        functions = [cell.activation, *([cell.recurrent_activation] if hasattr(cell, "recurrent_activation") else [])]
        known = all(_formula(one) is not None for one in functions)
        return (
            known and link.inputs[0].ndim == 3 + len(self.positions) and link.inputs[0].shape[1] <= MOST_STEPS
            and not (cell.dropout or cell.recurrent_dropout)
            and (not self.positions or self._possible_windows())
        )  # fmt: skip

    def _possible_windows(self):
        into = max(int(np.prod(self.link.inputs[0].shape[2:])), self.units)
        return self.layer.data_format == "channels_last" and 4 * self.units * into <= MOST_PRODUCTS

    def run(self):
        """(the nodes of h, the last states)"""
        x = np.asarray(self.link.inputs[0], "float64")
        carried = [self._start("h", 0)]
        if self.gates == "ifgo":
            carried.append(self._start("c", 1))
        runs: dict[str, Any] = {"": self._simple, "ifgo": self._lstm, "urg": self._gru}
        run = runs[self.gates]
        order = range(x.shape[1])
        hidden = []
        for t, place in enumerate(reversed(order) if self.layer.go_backwards else order, start=1):
            carried = run(t, self._given("x", x[:, place].reshape(len(x), -1), place + 1, self.source, place), *carried)
            hidden.append(carried[0])
        return hidden, carried

    def _start(self, letter, position):
        """A state before the first step: given, or zeros."""
        rank = 2 + len(self.positions)
        values = [v for v in self.link.inputs[1:] if np.ndim(v) == rank and np.asarray(v).dtype.kind == "f"]
        if position < len(values):
            nodes = [node for node in self.states if node is not None]
            node = nodes[position] if len(nodes) == len(values) else None
            return self._given(letter, flat(values[position]), 0, node)
        return self._node(letter, np.zeros((len(self.link.inputs[0]), self.units)), 0)

    def _given(self, letter, value, time, source, place=0):
        """What comes from outside: some units of another node, where there is one."""
        node = self._node(letter, value, time)
        node.layer = None if letter == "x" else node.layer  # the same in every layer that is given it
        if source is not None:
            taken = place * node.units + np.arange(node.units)
            node.edges, node.origins = [Edge(source, taken=taken)], [(source, int(of)) for of in taken]
            node.compute = lambda x: x[:, taken]
        return node

    def _node(self, letter, value, time, edges=(), compute=None, text=""):
        node = Node(letter, value, self.number, time, list(edges), compute, text=text)
        if self.positions:  # row, column and channel stand behind the time
            node.place = (time,)
            node.shape = np.shape(self.link.inputs[0])[2:] if letter == "x" else (*self.positions, self.layer.filters)
        self.nodes.append(node)
        return node

    def _weight(self, name):
        return np.asarray(self.link.weights[name], "float64") if name in self.link.weights else None

    def _path(self, name):
        symbol = self.link.weight_symbols.get(name)
        return self.path_of.get(symbol, "")

    def _affine(self, letter, time, sources, gate=0, bias_rows=(None,)):
        """z = Σ x·W + b of one gate; sources: list of (node, name of the weight)."""
        size = self.layer.filters if self.positions else self.layer.units
        columns = slice(gate * size, (gate + 1) * size)
        edges = [
            Edge(node, self._path(name), self._entries(name, columns), rule=self.link.rule) for node, name in sources
        ]
        for edge, (_, name) in zip(edges, sources, strict=True):
            edge.matrix = np.where(edge.entries < 0, 0.0, self._weight(name).ravel()[edge.entries])
        bias, name = self._weight("cell.bias"), "cell.bias"
        rows = [] if bias is None else [row for row in bias_rows if row is not False]
        of_bias = [places_in(bias)[columns] if row is None else places_in(bias)[row, columns] for row in rows]
        of_bias = [np.tile(places, self.units // size) for places in of_bias]
        total = sum((bias.ravel()[places] for places in of_bias), np.zeros(self.units))
        of_gate = f"^{self.gates[gate]}" if self.gates else ""
        number = None if self.number is None else self.link.weight_symbols["cell.kernel"].subscript
        letters = {weight: below(letter + of_gate, number) for weight, letter in _LETTERS.items()}
        biases = [below(f"b'{of_gate}" if row == 1 else f"b{of_gate}", number) for row in rows]
        times = "*" if self.positions else r"\cdot"  # a convolution
        text = " + ".join([*(rf"{node.vector} {times} {letters[weight]}" for node, weight in sources), *biases])

        value = sum(n.value @ edge.matrix for (n, _), edge in zip(sources, edges, strict=True)) + total
        node = self._node(letter, value, time, edges, text=text)
        node.bias = total
        self.uses += [Use(edge.weight, node, edge) for edge in edges]
        self.uses += [Use(self._path(name), node, None, places) for places in of_bias]
        return node

    def _entries(self, name, columns):
        """Which entry of a weight stands between each number that goes in and each that comes out; −1 for none."""
        places = places_in(self._weight(name))[..., columns]
        if not self.positions:
            return places
        shape, cell, rank = np.shape(self.link.inputs[0])[2:-1], self.layer.cell, len(self.positions)
        windows: Any = (cell.strides, cell.dilation_rate, cell.padding)
        if name == "cell.recurrent_kernel":
            shape, windows = self.positions, ((1,) * rank, (1,) * rank, "same")
        seen = windows_over(shape, self.positions, places.shape[:-2], *windows)
        return as_matrix(places, seen, int(np.prod(shape)) * places.shape[-2])

    def _function(self, letter, time, z, function):
        formula = _formula(function)

        def compute(x):
            return evaluate(formula.value, {"x": x}) * np.ones_like(x)

        def derive(y, x):
            return np.broadcast_to(evaluate(formula.derivative, {"x": x, "y": y}), np.shape(x)) * np.ones(())

        y = compute(z.value)
        text = template(formula.derivative, {})
        edge = Edge(z, local=derive(y, z.value), text=text, rule=function.__name__, function=True, derive=derive)
        return self._node(letter, y, time, [edge], compute, latex(formula.value, {"x": z.vector}))

    def _combined(self, letter, time, edges, compute, text):
        """edges: list of (node, derivative as a function of all the values, its text, the nodes that stand in it)."""
        values = [n.value for n, *_ in edges]
        y = compute(*values)
        made = [
            Edge(
                n,
                local=d(*values) * np.ones_like(y),
                text=name,
                beside=beside,
                rule=self.link.rule,
                derive=_of_values(d),
            )
            for n, d, name, *beside in edges
        ]
        return self._node(letter, y, time, made, compute, text)

    def _simple(self, t, x, h):
        z = self._affine("z", t, [(x, "cell.kernel"), (h, "cell.recurrent_kernel")])
        return [self._function("h", t, z, self.layer.cell.activation)]

    def _lstm(self, t, x, h, c):
        edges: list
        both = [(x, "cell.kernel"), (h, "cell.recurrent_kernel")]
        σ, φ = self.layer.cell.recurrent_activation, self.layer.cell.activation
        i = self._function("i", t, self._affine("z^{i}", t, both, 0), σ)
        f = self._function("f", t, self._affine("z^{f}", t, both, 1), σ)
        g = self._function("g", t, self._affine("z^{g}", t, both, 2), φ)
        o = self._function("o", t, self._affine("z^{o}", t, both, 3), σ)
        names = {n: n.vector for n in (i, f, g, o, c)}
        edges = [
            (f, lambda f, c, i, g: c, "", c), (c, lambda f, c, i, g: f, "", f),
            (i, lambda f, c, i, g: g, "", g), (g, lambda f, c, i, g: i, "", i),
        ]  # fmt: skip
        text = rf"{names[f]} \odot {names[c]} + {names[i]} \odot {names[g]}"
        c = self._combined("c", t, edges, lambda f, c, i, g: f * c + i * g, text)
        k = self._function("k", t, c, φ)
        edges = [(o, lambda o, k: k, "", k), (k, lambda o, k: o, "", o)]
        return [self._combined("h", t, edges, np.multiply, rf"{names[o]} \odot {k.vector}"), c]

    def _gru(self, t, x, h):
        edges: list
        cell, both = self.layer.cell, [(x, "cell.kernel"), (h, "cell.recurrent_kernel")]
        σ, φ = cell.recurrent_activation, cell.activation
        rows = (0, 1) if cell.reset_after else (None,)
        u = self._function("u", t, self._affine("z^{u}", t, both, 0, rows), σ)
        r = self._function("r", t, self._affine("z^{r}", t, both, 1, rows), σ)
        if cell.reset_after:
            q = self._affine("q", t, both[1:], 2, (1,))
            p = self._affine("p", t, both[:1], 2, (0,))
            edges = [
                (p, lambda p, r, q: 1.0, "1"), (r, lambda p, r, q: q, "", q), (q, lambda p, r, q: r, "", r),
            ]  # fmt: skip
            text = rf"{p.vector} + {r.vector} \odot {q.vector}"
            z = self._combined("z", t, edges, lambda p, r, q: p + r * q, text)
        else:
            edges = [(r, lambda r, h: h, "", h), (h, lambda r, h: r, "", r)]
            q = self._combined("q", t, edges, np.multiply, rf"{r.vector} \odot {h.vector}")
            z = self._affine("z", t, [(x, "cell.kernel"), (q, "cell.recurrent_kernel")], 2)
        g = self._function("g", t, z, φ)
        one = {n: n.vector for n in (u, g, h)}
        edges = [
            (u, lambda u, h, g: h - g, "({0} - {1})", h, g), (h, lambda u, h, g: u, "", u),
            (g, lambda u, h, g: 1 - u, "(1 - {0})", u),
        ]  # fmt: skip
        text = rf"{one[u]} \odot {one[h]} + (1 - {one[u]}) \odot {one[g]}"
        return [self._combined("h", t, edges, lambda u, h, g: u * h + (1 - u) * g, text)]


def _formula(function):
    rule = registered().get(function)
    formula = getattr(rule, "formula", None)
    return formula if formula is not None and formula.derivative is not None and formula.value else None


def _of_values(derivative):
    return lambda y, *values: derivative(*values) * np.ones_like(y)
