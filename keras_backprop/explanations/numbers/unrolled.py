"""Recurrent layers step by step: the nodes of every time step, from the weights and inputs that the layer had."""

from typing import Any

import keras
import numpy as np

from keras_backprop.explanations.numbers.graph import Edge, Node, Use
from keras_backprop.formula_latex import latex
from keras_backprop.formula_value import evaluate
from keras_backprop.registry import registered

__all__ = ["unroll"]

MOST_STEPS = 24


def unroll(link: Any, graph: Any, nodes: dict, path_of: dict) -> Any:
    """Add the nodes of every time step of a recurrent layer to a graph.

    Args:
        link: the `Link` of the layer.
        graph: the `Graph`.
        nodes: dict, symbol -> `Node`.
        path_of: dict, symbol of a weight -> its path.

    Returns:
        The `Node` of the last step's output; None where the layer does something besides: masks, dropout, many steps.
    """
    steps = _Steps(link, path_of)
    if not steps.possible():
        return None
    made, uses, last = steps.run()
    outputs = np.asarray(link.outputs[0], "float64")
    found = (
        np.stack([node.value for node in made if node.letter == "h" and node.time], 1)
        if outputs.ndim == 3
        else last.value
    )
    if link.op.go_backwards and outputs.ndim == 3:
        return None
    if not np.allclose(found, outputs, rtol=1e-4, atol=1e-5):
        return None
    graph.nodes += made
    graph.uses += uses
    return last


class _Steps:
    def __init__(self, link, path_of):
        self.link, self.layer, self.path_of = link, link.op, path_of
        self.nodes: list = []
        self.uses: list = []

    @property
    def gates(self):
        """The letters of the gates and the candidate, in the order of the columns of W."""
        kinds = {keras.layers.LSTM: "ifgo", keras.layers.GRU: "urg"}
        return next((letters for kind, letters in kinds.items() if isinstance(self.layer, kind)), "")

    def possible(self):
        link, cell = self.link, self.layer.cell
        functions = [cell.activation, *([cell.recurrent_activation] if hasattr(cell, "recurrent_activation") else [])]
        known = all(_formula(one) is not None for one in functions)
        return (
            known and link.inputs[0].ndim == 3 and link.inputs[0].shape[1] <= MOST_STEPS
            and not (cell.dropout or cell.recurrent_dropout)
        )  # fmt: skip

    def run(self):
        x = np.asarray(self.link.inputs[0], "float64")
        if self.layer.go_backwards:
            x = x[:, ::-1]
        states = [np.asarray(v, "float64") for v in self.link.inputs[1:] if np.ndim(v) == 2]
        zeros = np.zeros((len(x), self.layer.units))
        self.sequence = []
        h = self._node("h", states[0] if states else zeros, 0)
        carried = [h]
        if isinstance(self.layer, keras.layers.LSTM):
            carried.append(self._node("c", states[1] if len(states) > 1 else zeros, 0))
        step: dict = {keras.layers.SimpleRNN: self._simple, keras.layers.LSTM: self._lstm, keras.layers.GRU: self._gru}
        run = next(f for kind, f in step.items() if isinstance(self.layer, kind))
        for t in range(x.shape[1]):
            carried = run(t + 1, self._node("x", x[:, t], t + 1), *carried)
        return self.nodes, self.uses, carried[0]

    def _node(self, letter, value, time, edges=(), compute=None, text=""):
        node = Node(letter, value, time=time, edges=list(edges), compute=compute, text=text)
        self.nodes.append(node)
        return node

    def _weight(self, name):
        return np.asarray(self.link.weights[name], "float64") if name in self.link.weights else None

    def _path(self, name):
        symbol = self.link.weight_symbols.get(name)
        return self.path_of.get(symbol, "")

    def _affine(self, letter, time, sources, gate=0, bias_rows=(None,)):
        """z = Σ x·W + b of one gate; sources: list of (node, name of the weight)."""
        columns = slice(gate * self.layer.units, (gate + 1) * self.layer.units)
        edges = [
            Edge(node, self._path(name), columns, self._weight(name)[:, columns], text="{w}", rule=self.link.rule)
            for node, name in sources
        ]
        bias, name = self._weight("cell.bias"), "cell.bias"
        rows = [] if bias is None else [row for row in bias_rows if row is not False]
        total = sum((bias[columns] if row is None else bias[row, columns] for row in rows), np.zeros(self.layer.units))
        of_gate = f"^{self.gates[gate]}" if self.gates else ""
        letters = {"cell.kernel": f"W{of_gate}", "cell.recurrent_kernel": f"U{of_gate}"}
        biases = [f"b'{of_gate}" if row == 1 else f"b{of_gate}" for row in rows]
        text = " + ".join([*(rf"{plain_name(node)} \cdot {letters[weight]}" for node, weight in sources), *biases])

        value = sum(n.value @ edge.matrix for (n, _), edge in zip(sources, edges, strict=True)) + total
        node = self._node(letter, value, time, edges, text=text)
        node.bias = total
        self.uses += [Use(edge.weight, node, edge, columns) for edge in edges]
        self.uses += [Use(self._path(name), node, None, columns, row) for row in rows]
        return node

    def _function(self, letter, time, z, function):
        formula = _formula(function)

        def compute(x):
            return evaluate(formula.value, {"x": x}) * np.ones_like(x)

        def derive(y, x):
            return np.broadcast_to(evaluate(formula.derivative, {"x": x, "y": y}), np.shape(x)) * np.ones(())

        y = compute(z.value)
        text = latex(formula.derivative, {"x": "{x}", "y": "{y}"})
        edge = Edge(z, local=derive(y, z.value), text=text, rule=function.__name__, function=True, derive=derive)
        return self._node(letter, y, time, [edge], compute, latex(formula.value, {"x": plain_name(z)}))

    def _combined(self, letter, time, edges, compute, text):
        """edges: list of (node, derivative as a function of all the values, its text)."""
        values = [n.value for n, _, _ in edges]
        y = compute(*values)
        made = [
            Edge(n, local=d(*values) * np.ones_like(y), text=name, rule=self.link.rule, derive=_of_values(d))
            for n, d, name in edges
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
        names = {n: plain_name(n) for n in (i, f, g, o, c)}
        edges = [
            (f, lambda f, c, i, g: c, names[c]), (c, lambda f, c, i, g: f, names[f]),
            (i, lambda f, c, i, g: g, names[g]), (g, lambda f, c, i, g: i, names[i]),
        ]  # fmt: skip
        text = rf"{names[f]} \odot {names[c]} + {names[i]} \odot {names[g]}"
        c = self._combined("c", t, edges, lambda f, c, i, g: f * c + i * g, text)
        k = self._function("k", t, c, φ)
        edges = [(o, lambda o, k: k, plain_name(k)), (k, lambda o, k: o, names[o])]
        return [self._combined("h", t, edges, np.multiply, rf"{names[o]} \odot {plain_name(k)}"), c]

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
                (p, lambda p, r, q: 1.0, "1"), (r, lambda p, r, q: q, plain_name(q)), (q, lambda p, r, q: r, plain_name(r)),
            ]  # fmt: skip
            text = rf"{plain_name(p)} + {plain_name(r)} \odot {plain_name(q)}"
            z = self._combined("z", t, edges, lambda p, r, q: p + r * q, text)
        else:
            edges = [(r, lambda r, h: h, plain_name(h)), (h, lambda r, h: r, plain_name(r))]
            q = self._combined("q", t, edges, np.multiply, rf"{plain_name(r)} \odot {plain_name(h)}")
            z = self._affine("z", t, [(x, "cell.kernel"), (q, "cell.recurrent_kernel")], 2)
        g = self._function("g", t, z, φ)
        one = {n: plain_name(n) for n in (u, g, h)}
        edges = [
            (u, lambda u, h, g: h - g, f"({one[h]} - {one[g]})"), (h, lambda u, h, g: u, one[u]),
            (g, lambda u, h, g: 1 - u, f"(1 - {one[u]})"),
        ]  # fmt: skip
        text = rf"{one[u]} \odot {one[h]} + (1 - {one[u]}) \odot {one[g]}"
        return [self._combined("h", t, edges, lambda u, h, g: u * h + (1 - u) * g, text)]


def _formula(function):
    rule = registered().get(function)
    formula = getattr(rule, "formula", None)
    return formula if formula is not None and formula.derivative is not None and formula.value else None


def _of_values(derivative):
    return lambda y, *values: derivative(*values) * np.ones_like(y)


def plain_name(node: Any) -> str:
    """The name of the whole vector of a time step: h_2."""
    return f"{node.letter}_{node.time}" if (node.time or 0) < 10 else f"{node.letter}_{{{node.time}}}"
