"""From the links of an explanation to a graph of single numbers."""

from typing import Any

import keras
import numpy as np

from keras_backprop.explanations.numbers.agreement import CLOSE, agrees
from keras_backprop.explanations.numbers.combination import combined
from keras_backprop.explanations.numbers.graph import Graph, Head
from keras_backprop.explanations.numbers.linear import accounts_for, is_elementwise, is_linear
from keras_backprop.explanations.numbers.nodes import Edge, Node, Use, places_in
from keras_backprop.explanations.numbers.normalised import normalised
from keras_backprop.explanations.numbers.own_weights import add_reads, with_weight
from keras_backprop.explanations.numbers.positions import by_position, derived, fits, flat, joined, node_of
from keras_backprop.explanations.numbers.rectified import rectified
from keras_backprop.explanations.numbers.unrolled import RECURRENT, unroll
from keras_backprop.explanations.writing import error_formulas, formulas
from keras_backprop.explanations.writing.rows import is_dense, shown
from keras_backprop.formula import Formula
from keras_backprop.formula_value import evaluate

__all__ = ["graph_of"]


def graph_of(explanation: Any) -> Graph:
    """The graph of an explanation. What it gives is compared with the record; where it differs, nothing is looked into."""
    graph = _Builder(explanation).graph
    graph.backward()
    graph.penalties = explanation.loss - graph.error
    for weight in explanation.weights:
        if weight.gradient is None:
            continue
        largest = np.max(np.abs(weight.gradient), initial=0.0)
        found = graph.gradient_of(weight.path) if weight.path in graph.weights else None
        if found is None or np.max(np.abs(found - weight.gradient), initial=0.0) > CLOSE * largest + 1e-9:
            graph.uses = [use for use in graph.uses if use.path != weight.path]
            graph.weights[weight.path] = np.asarray(weight.value)
            graph.extra.pop(weight.path, None)
            graph.opaque[weight.path] = [("", weight.gradient)]
    return graph


class _Builder:
    def __init__(self, explanation):
        self.explanation, self.graph = explanation, Graph()
        self.nodes: dict = {}  # symbol -> Node
        self.folded: set = set()  # symbols of tensors whose rows are no examples; they may be brought back into shape
        self.followed: dict = {}  # symbol of a weight -> the part of its gradient that operations of the graph give
        for weight in (*explanation.weights, *explanation.frozen):
            self.graph.weights[weight.path] = np.asarray(weight.value, "float64")
        self.path_of = {weight.symbol: weight.path for weight in (*explanation.weights, *explanation.frozen)}
        links = shown(explanation)
        self.plain = all(_width(link) == 1 for link in links if link.kind in ("layer", "activation"))
        self.plain = self.plain and not any(_is_recurrent(link) for link in links)
        for link in links:
            self._add(link)
        add_reads(explanation, self.graph, self.path_of, self.followed)

    def _add(self, link):
        for symbol, value in zip(link.input_symbols, link.inputs, strict=True):
            given = symbol is not None and (symbol.letter == "x" or symbol in self.folded)
            if given and symbol not in self.nodes and self._fits(value):
                alone = value.shape[1:] == (1,) and (symbol.subscript is None or self.plain)
                self._new(symbol, node_of(symbol, value, plain=alone))
        if link.kind == "loss":
            self._loss(link)
        elif (link.kind == "regularizer" and not self._penalises_activity(link)) or isinstance(
            link.op, keras.layers.InputLayer
        ):
            return
        elif self._folds(link) or not any(look(link) for look in self._looks):
            self._opaque(link)

    @property
    def _looks(self):
        """The ways to look into a link, in the order in which they are tried: each says whether it could."""
        return (
            self._dense, self._windowed, self._own, self._function, self._combination, self._recurrent, self._derived,
        )  # fmt: skip

    def _penalises_activity(self, link):
        return any(symbol in self.nodes for symbol in link.input_symbols)

    def _new(self, symbol, node):
        self.graph.nodes.append(node)
        if symbol is not None:
            self.nodes[symbol] = node
        return node

    def _root(self, link):
        """The outputs of a link that is not looked into: paths end there."""
        for symbol, value in zip(link.output_symbols, link.outputs, strict=True):
            if symbol is not None and self._fits(value) and symbol not in self.nodes:
                self._new(symbol, node_of(symbol, value, self.plain))
            elif symbol is not None and fits(value):
                self.folded.add(symbol)

    def _fits(self, value):
        return fits(value) and len(value) == self.explanation.examples

    def _folds(self, link):
        """Whether a link takes positions for examples (TimeDistributed): its rows are no rows of the other nodes."""
        known = [x for symbol, x in zip(link.input_symbols, link.inputs, strict=True) if symbol in self.nodes]
        unlike = any(np.ndim(x) > 1 and len(x) != self.explanation.examples for x in known)
        return unlike or any(fits(y) and not self._fits(y) for y in link.outputs)

    def _dense(self, link):
        source = self.nodes.get(link.input_symbols[0]) if link.input_symbols else None
        if not is_dense(link) or link.formula is None or source is None or link.outputs[0].ndim != 2:
            return False
        symbol, kernel = link.output_symbols[0], link.weight_symbols["kernel"]
        matrix, bias = _f(link.weights["kernel"]), link.weights.get("bias")
        node = self._new(symbol, Node("z", _f(link.outputs[0]), symbol.subscript, plain=self.plain))
        edge = Edge(source, self.path_of[kernel], places_in(matrix), matrix, rule=link.rule)
        node.edges.append(edge)
        self.graph.uses.append(Use(edge.weight, node, edge))
        if bias is not None:
            self.graph.uses.append(Use(self.path_of[link.weight_symbols["bias"]], node, None, places_in(bias)))
            node.bias = _f(bias)
        return True

    def _function(self, link):
        if link.kind not in ("activation", "layer", "op") or len(link.input_symbols) != 1 or len(link.outputs) != 1:
            return False
        source, symbol = self.nodes.get(link.input_symbols[0]), link.output_symbols[0]
        if source is None or link.outputs[0].shape != link.inputs[0].shape or link.weights:
            return False
        node = node_of(symbol, link.outputs[0], self.plain)
        options = link.options
        formula: Any = link.formula
        edge = Edge(source, rule=link.rule, function=True)
        if link.local_derivative is not None:
            edge.local = flat(link.local_derivative)
        elif isinstance(formula, Formula) and formula.value == "softmax(x)" and link.outputs[0].ndim == 2:
            edge.jacobian = _softmax_jacobian(node.value)
            if not accounts_for([[edge.jacobian]], link, [0]):
                return False  # along another axis
            edge.derive = lambda y, x: _softmax_jacobian(y)
            edge.text = r"{y}([{j} = {i}] - {k})"
            node.compute = lambda x: evaluate("softmax(x)", {"x": x})
            node.text = r"\exp({x}) / \sum \exp(z)"
        elif link.kind == "activation" or link.rule in ("dropout", "identity"):
            if not is_elementwise(link) or link.upstream[0] is None or link.downstream[0] is None:
                return False
            edge.local = _ratio(flat(link.downstream[0]), flat(link.upstream[0]))
            edge.function = link.kind == "activation"
        else:
            return False
        if isinstance(formula, Formula) and formula.derivative is not None:
            derivative: str = formula.derivative
            edge.text = formulas.template(derivative, options)
            edge.derive = lambda y, x: evaluate(derivative, {**options, "x": x, "y": y}) * np.ones_like(x)
            if formula.value:
                node.compute = lambda x: evaluate(formula.value, {**options, "x": x}) * np.ones_like(x)
                node.text = formulas.template(formula.value, options)
        self._new(symbol, node)
        node.edges.append(edge)
        return True

    def _combination(self, link):
        """A sum, a difference, a product of tensors of one shape."""
        node = combined(link, [self.nodes.get(symbol) for symbol in link.input_symbols], self.plain)
        if node is not None:
            self._new(link.output_symbols[0], node)
        return node is not None

    def _windowed(self, link):
        """A convolution, a dense layer at every position, a table: position by position; what normalises; `PReLU`."""
        if not link.input_symbols or not link.known:
            return False
        source = self.nodes.get(link.input_symbols[0])
        looks = (by_position, normalised, rectified)
        node = next(filter(None, (look(link, self.graph, source, self.path_of) for look in looks)), None)
        if node is not None:
            self.nodes[link.output_symbols[0]] = node
        return node is not None

    def _derived(self, link):
        """Any other small link without weights, by its derivatives: what moves numbers, pools, merges."""
        varied = [n for n, symbol in enumerate(link.input_symbols) if symbol is not None]  # the others are constants
        sources: Any = [self.nodes.get(link.input_symbols[n]) for n in varied]
        if link.jacobian is None or not sources or None in sources or not all(map(fits, link.outputs)):
            return False
        every = [[jacobians[n] for n in varied] for jacobians in link.jacobian()]
        if None in link.output_symbols or any(one is None for jacobians in every for one in jacobians):
            return False
        if not accounts_for(every, link, varied):
            return False  # examples depend on each other
        for symbol, value, jacobians in zip(link.output_symbols, link.outputs, every, strict=True):
            node = node_of(symbol, value, self.plain)
            self._new(symbol, derived(node, sources, jacobians, link.rule, is_linear(link)))
            if getattr(link.formula, "value", "") in _TAKES_ONE and all(np.all((J == 0) | (J == 1)) for J in jacobians):
                for edge in node.edges:
                    edge.text = "[{x} = {y}]"
        return True

    def _recurrent(self, link):
        if not _is_recurrent(link) or link.rule not in ("simplernn", "lstm", "gru", "convlstm"):
            return False
        states = [self.nodes.get(symbol) for symbol in link.input_symbols[1:]]
        unrolled = unroll(
            link, self.graph, self.nodes.get(link.input_symbols[0]), states, self.path_of, self._number(link)
        )
        if unrolled is None:
            return False
        hidden, carried = unrolled
        first = hidden[-1]
        if link.op.return_sequences:
            first = joined(node_of(link.output_symbols[0], link.outputs[0]), hidden)
            self.graph.nodes.append(first)
        for symbol, node in zip(link.output_symbols, (first, *carried), strict=False):
            if symbol is not None:
                self.nodes[symbol] = node
        return True

    def _number(self, link):
        """Which layer a call of a recurrent layer is, where there are several calls; else None."""
        several = [one for one in self.explanation.links if _is_recurrent(one)]
        return link.output_symbols[0].subscript if len(several) > 1 else None

    def _opaque(self, link):
        for symbol, dx in zip(link.input_symbols, link.downstream, strict=True):
            if symbol in self.nodes and dx is not None:
                node = self.nodes[symbol]
                self.graph.heads.append(Head(node, np.array(dx, "float64").reshape(node.value.shape), via=link.path))
        for name, gradient in link.weight_gradients.items():
            path = self.path_of.get(link.weight_symbols[name])
            if path is not None:
                self.graph.opaque.setdefault(path, []).append((link.path, _f(gradient)))
        self._root(link)

    def _own(self, link):
        """An operation with a weight, in a layer of one's own."""
        found = with_weight(link, self.graph, self.nodes, self.path_of)
        if found is None:
            return False
        self.nodes[link.output_symbols[0]], place = found
        symbol = link.input_symbols[place]
        self.followed[symbol] = self.followed.get(symbol, 0.0) + _f(link.downstream[place])
        return True

    def _loss(self, link):
        for position, (symbol, dx) in enumerate(zip(link.input_symbols, link.downstream, strict=True)):
            node = self.nodes.get(symbol)
            if node is None or dx is None:
                continue
            if dx.ndim != 2:
                self.graph.heads.append(Head(node, flat(dx), via=link.path))
                continue
            prediction = self.nodes.get(link.input_symbols[1], node) if len(link.input_symbols) > 1 else node
            targets = link.inputs[0] if position else None
            slope = error_formulas.slope_function(link) if position else None
            text = error_formulas.loss_gradient_template(link) if position else ""
            if slope is not None and not agrees(slope(node.value, prediction.value), dx):
                slope, text = None, ""
            error = error_formulas.error_function(link) if position else None
            if error is not None:
                self.graph.errors.append((prediction, error))
            options = error_formulas.plain_options(link)
            inner = error_formulas.slope_by_predictions(link) if prediction is not node else None
            if inner is not None and not _leads_to(inner(node.value, prediction.value), prediction, node, dx):
                inner = None
            whole = inner and link.formula.shown_slope and error_formulas.slope_by_predictions(link, as_shown=False)
            self.graph.heads.append(
                Head(
                    node, _f(dx), text or "", targets, prediction, slope, inner, whole, link.path, link.formula, options
                )
            )


_TAKES_ONE = ("largest(window(x))", "largest(x)", "smallest(x)")


def _f(array):
    return np.array(array, "float64")


def _width(link):
    return link.outputs[0].shape[-1] if link.outputs and link.outputs[0].ndim else 1


def _is_recurrent(link):
    return isinstance(link.op, RECURRENT)


def _leads_to(gradient, prediction, node, dx):
    """Whether a gradient of the predictions gives that of the node of which they are made."""
    edges = [edge for edge in prediction.edges if edge.source is node]
    return bool(edges) and agrees(sum(edge.back(gradient) for edge in edges), dx)


def _softmax_jacobian(y):
    return np.einsum("no,oi->noi", y, np.eye(y.shape[-1])) - np.einsum("no,ni->noi", y, y)


def _ratio(dx, dy):
    dx, dy = _f(dx), _f(dy)
    return np.divide(dx, dy, out=np.zeros_like(dx), where=dy != 0)
