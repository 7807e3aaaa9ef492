"""A small dense network drawn neuron by neuron: z and a inside, weights and their gradients on the edges."""

import itertools
import math

import numpy as np

from keras_backprop.explanations.drawing.canvas import (
    ERROR,
    ERROR_EDGE,
    FAINT,
    GRADIENT,
    INK,
    INPUT,
    INPUT_EDGE,
    LIT,
    Canvas,
)
from keras_backprop.explanations.drawing.neuron_places import along, between, lit, room, short
from keras_backprop.explanations.writing.matrix_chain import dense_chain, links_back
from keras_backprop.explanations.writing.notation import derivative, gradient_of, latex_factor, latex_number
from keras_backprop.explanations.writing.scalar_chain import factors_of, scalar_chain

MOST_UNITS, MOST_LAYERS = 8, 5
RADIUS, INPUT_RADIUS = 0.66, 0.52
POSITIVE, NEGATIVE = "#c0392b", "#1f7a8c"


def fits(explanation):
    """Whether the network is a chain of dense layers, few and narrow enough to show every neuron."""
    chain = dense_chain(explanation)
    if chain is None:
        return False
    widths = [chain[0][0][0].inputs[0].shape[-1], *(link.shape[-1] for link, _ in chain[0])]
    return max(widths) <= MOST_UNITS and len(widths) <= MOST_LAYERS + 1


def draw(explanation, example=None, chain=None, numbers=None):
    """The drawing, a `Canvas`.

    Args:
        explanation: the `Explanation`.
        example: int from 0: values and gradients of this example only; None: the values of the first, the gradients of all.
        chain: a `Chain` whose paths are lit, or None.
        numbers: bool, whether numbers stand on the edges; None: where there is room.
    """
    return _Drawing(explanation, example, chain, numbers).canvas


class _Drawing:
    def __init__(self, explanation, example, chain, numbers):
        self.explanation, self.example, self.numbers = explanation, example, numbers
        self.row = example or 0
        self.lit = lit(explanation, chain)
        self.pairs, self.loss = dense_chain(explanation)
        self.products = scalar_chain(explanation)
        self.widths = [self.pairs[0][0].inputs[0].shape[-1], *(dense.shape[-1] for dense, _ in self.pairs)]
        self._lay_out()
        self._headline()
        self._inputs()
        for layer in range(len(self.pairs)):
            self._edges(layer)
            self._layer(layer)
        self._error()
        if self.products:
            self._backward_lane()

    def _lay_out(self):
        tallest = max(self.widths)
        crowded = any(self._labelled(*layer) and min(layer) > 2 for layer in itertools.pairwise(self.widths))
        dense = crowded and max(self.widths) > 3
        self.column = 3.5 if tallest == 1 else 8.0 if dense else 5.2 if crowded else 4.4
        self.spacing = 3.3 if dense else 2.9 if crowded else 2.3
        height = (tallest - 1) * self.spacing
        self.error_x = (len(self.pairs) + 1) * self.column - (0 if self.products else 0.8)
        self.top = height / 2 + RADIUS
        self.bottom = -height / 2 - RADIUS - 0.7
        lane = 1.9 if self.products else 0.15
        self.left, self.right = -0.75, self.error_x + 1.0
        self.canvas = Canvas(self.left - 0.2, self.bottom - lane, self.right + 0.2, self.top + 1.0)

    def _at(self, layer, unit):
        """Where a unit is: layer 0 is the input."""
        return layer * self.column, ((self.widths[layer] - 1) / 2 - unit) * self.spacing

    def _headline(self):
        canvas, y = self.canvas, self.top + 0.65
        canvas.text(self.left, y, self.explanation.model, size=17, align="left", weight="bold")
        canvas.text(self.right - 1.45, y, r"values $\rightarrow$", size=14, align="right")
        canvas.text(self.right, y, r"$\leftarrow$ gradients", GRADIENT, 14, align="right")
        canvas.text(self.left, y - 0.35, self._legend(), FAINT, 12.5, align="left")
        self._color_legend()

    def _labelled(self, sources, targets):
        """Whether numbers stand on every edge between two layers."""
        return room(sources, targets) if self.numbers is None else self.numbers

    def _legend(self):
        parts, several = [], self.explanation.examples > 1
        if several and self.example is None:
            parts.append(f"Values of the first of {self.explanation.examples} examples, gradients of all.")
        elif several:
            parts.append(
                f"Example {self.example + 1} of {self.explanation.examples}: its values, and its part of the gradients."
            )
        layers = [(sources, targets) for sources, targets in itertools.pairwise(self.widths) if sources * targets > 1]
        if any(self._labelled(*layer) for layer in layers):
            parts.append(r"On an edge: $w$ above, $\partial E/\partial w$ below.")
        return "  ".join(parts)

    def _color_legend(self):
        """What colour and width of an edge mean, where there are no numbers on it."""
        layers = itertools.pairwise(self.widths)
        if all(self._labelled(*layer) for layer in layers):
            return
        y = self.top + 0.3 if not self._legend() else self.top + 0.02
        x = self.left
        for color, sign in ((POSITIVE, ">"), (NEGATIVE, "<")):
            self.canvas.arrow((x, y), (x + 0.5, y), color, 2.4)
            self.canvas.text(x + 0.6, y, rf"$\partial E/\partial w {sign} 0$", color, 12.5, align="left")
            x += 2.1
        self.canvas.text(x, y, "the wider, the larger", FAINT, 12.5, align="left")

    def _inputs(self):
        symbol, values = self.pairs[0][0].input_symbols[0], self.pairs[0][0].inputs[0][self.row]
        for unit, value in enumerate(values):
            x, y = self._at(0, unit)
            self.canvas.circle(x, y, INPUT_RADIUS, INPUT, INPUT_EDGE)
            self.canvas.text(
                x,
                y,
                f"${self._name(symbol, unit)} = {self._number(value)}$",
                size=14 if self.products else 12,
                zorder=5,
            )

    def _layer(self, layer):
        dense, activation = self.pairs[layer]
        bias, gradient = dense.weights.get("bias"), self._gradient(dense, "bias")
        for unit in range(self.widths[layer + 1]):
            z = self._name(dense.output_symbols[0], unit)
            b = self._name(dense.weight_symbols["bias"], unit) if bias is not None else ""
            x, y = self._at(layer + 1, unit)
            ring = 0.09 if (layer, unit) in self.lit["units"] else 0
            if ring:  # below the edges, whose heads stand on it
                self.canvas.circle(x, y, RADIUS + ring, LIT, LIT, zorder=0)
            self.canvas.circle(x, y, RADIUS)
            up = 0.2 if activation is not None else 0
            size = 12.5 if self.products else 11.5
            self.canvas.text(x, y + up, f"${z} = {self._number(dense.z[self.row, unit])}$", size=size, zorder=5)
            if activation is not None:
                a = self._name(activation.output_symbols[0], unit)
                self.canvas.line((x - RADIUS * 0.8, y), (x + RADIUS * 0.8, y))
                self.canvas.text(
                    x, y - 0.2, f"${a} = {self._number(activation.a[self.row, unit])}$", size=size, zorder=5
                )
            if bias is not None:
                self.canvas.text(x, y - RADIUS - ring - 0.2, f"${b} = {self._number(bias[unit])}$", size=14, box=True)
            if gradient is not None:
                text = rf"$\partial E/\partial {b} = {self._number(gradient[unit])}$"
                self.canvas.text(x, y - RADIUS - ring - 0.5, text, GRADIENT, 14, box=True)

    def _name(self, symbol, unit):
        """A unit's name: z₁ in a chain of single units, else z⁽¹⁾₂; x₂ where there is one input."""
        if self.products:
            return symbol.latex
        if symbol.subscript is None:
            return f"{symbol.latex}_{unit + 1}"
        return f"{symbol.letter}^{{({symbol.subscript})}}_{unit + 1}"

    def _gradient(self, dense, name):
        """The gradient of a weight, or the part of one example in it; None where it is not trained."""
        if dense.weight_gradients.get(name) is None:
            return None
        if self.example is None or self.explanation.examples == 1:  # with penalties, and what other uses add
            return next(w.gradient for w in self.explanation.weights if w.symbol == dense.weight_symbols[name])
        delta = dense.upstream[0][self.row]
        return delta if name == "bias" else np.outer(dense.inputs[0][self.row], delta)

    def _number(self, value):
        """In a network of many units there is room for fewer digits."""
        return latex_number(value) if self.products else short(value)

    def _edges(self, layer):
        dense, _ = self.pairs[layer]
        W, dW = dense.weights["kernel"], self._gradient(dense, "kernel")
        sources, targets = W.shape
        largest = np.max(np.abs(dW)) if dW is not None else 0
        for i in range(sources):
            for j in range(targets):
                ends = self._at(layer, i), self._at(layer + 1, j)
                start, end = between(*ends, INPUT_RADIUS if layer == 0 else RADIUS, RADIUS)
                share = abs(dW[i, j]) / largest if largest else 0
                if (layer, i, j) in self.lit["edges"]:
                    self.canvas.arrow(start, end, LIT, 7.0, style="-", alpha=0.9)
                if self._labelled(sources, targets):
                    self.canvas.arrow(start, end)
                    self._edge_labels(ends, along(sources, targets), dense, i, j)
                else:
                    color = FAINT if dW is None else POSITIVE if dW[i, j] >= 0 else NEGATIVE
                    self.canvas.arrow(start, end, color, 0.4 + 2.6 * share, alpha=0.25 + 0.65 * share)

    def _edge_labels(self, ends, place, dense, i, j):
        """The weight above the edge, its gradient below, both along the edge."""
        W, dW = dense.weights["kernel"], self._gradient(dense, "kernel")
        w = dense.weight_symbols["kernel"].latex
        above, below = self._number(W[i, j]), None if dW is None else self._number(dW[i, j])
        if self.products:
            above, below = f"{w} = {above}", below and rf"\partial E/\partial {w} = {below}"
        self._along(ends, place, f"${above}$", INK, 1)
        if below is not None:
            self._along(ends, place, f"${below}$", GRADIENT, -1)

    def _along(self, ends, place, text, color, side):
        """Text along an edge, above it (side 1) or below (side -1)."""
        (x0, y0), (x1, y1) = ends
        angle = math.atan2(y1 - y0, x1 - x0)
        away = side * (0.22 if self.products else 0.15)
        x, y = x0 + place * (x1 - x0) - away * math.sin(angle), y0 + place * (y1 - y0) + away * math.cos(angle)
        size = 14 if self.products else 12.5
        self.canvas.text(
            x, y, text, color, size, rotation=math.degrees(angle), rotation_mode="anchor", box=not self.products
        )  # fmt: skip

    def _error(self):
        canvas, loss, last = self.canvas, self.loss, len(self.pairs)
        gradient = loss.local_derivative
        x, targets, width = self.error_x, self._targets(), 1.5 if self.products else 1.7
        lines = [f"$E = {latex_number(self.explanation.loss)}$", *targets]
        tall = max(0.75, 0.25 + 0.42 * len(lines))
        canvas.box(x, 0, width, tall, ERROR, ERROR_EDGE)
        for position, line in enumerate(lines):
            size = (16 if self.products else 14) if position == 0 else 14 if self.products else 12
            canvas.text(x, 0.42 * ((len(lines) - 1) / 2 - position), line, size=size, zorder=5)
        for unit in range(self.widths[last]):
            ends = self._at(last, unit), (x - width / 2, 0.0)
            if unit in self.lit["outputs"]:
                start, end = between(*ends, RADIUS, 0.0)
                canvas.arrow(start, end, LIT, 7.0, style="-", alpha=0.9)
            canvas.arrow(*between(*ends, RADIUS, 0.0))
            if (
                not self.products
                and gradient.ndim == 2
                and (self.explanation.examples == 1 or self.example is not None)
            ):
                symbol = self._name(loss.input_symbols[-1], unit)
                text = rf"$\partial E/\partial {symbol} = {short(gradient[self.row, unit])}$"
                self._along(ends, 0.5, text, GRADIENT, -1)

    def _targets(self):
        """`T₁ = 0.01`, a line for each output, where the targets are that."""
        loss, last = self.loss, self.widths[-1]
        if len(loss.inputs) < 2 or not np.size(loss.inputs[0]) or last > 6:
            return []
        targets = np.atleast_1d(np.asarray(loss.inputs[0])[self.row]).ravel()
        if len(targets) == 1:
            return [f"$T = {latex_number(targets[0])}$"]
        return (
            [f"$T_{unit + 1} = {latex_number(target)}$" for unit, target in enumerate(targets)]
            if len(targets) == last
            else []
        )

    def _backward_lane(self):
        """Below the network, right to left: the factors that are multiplied on the way back."""
        canvas, y = self.canvas, self.bottom - 0.6
        canvas.arrow((self.error_x, y), (0, y), GRADIENT, 1.6)
        places = self._factor_places()
        for factor in factors_of(self.products):
            if factor.name in places:
                x = places[factor.name]
                canvas.text(x, y, r"$\times$" if x < max(places.values()) else r"$\bullet$", GRADIENT, 15, box=True)
                canvas.text(x, y + 0.36, f"${factor.name}$", GRADIENT, 19)
                canvas.text(x, y - 0.32, f"${factor.formula} = {latex_number(factor.value)}$", GRADIENT)
        product = next(
            (p for p in self.products if p.symbol.letter == "w" and p.symbol.subscript == 1), self.products[0]
        )
        values = r" \cdot ".join(latex_factor(factor.value) for factor in product.factors)
        name = rf"\partial E/\partial {product.symbol.latex}"
        text = rf"${name} \;=\; {values} \;=\; {{{latex_number(product.gradient)}}}$"
        canvas.text(self.error_x / 2, y - 0.9, text, GRADIENT, 15)

    def _factor_places(self):
        """The factor's name -> x: of an activation below its neuron, of a weight below its edge."""
        places = {}
        for layer, (dense, activation) in enumerate(self.pairs):
            z = dense.output_symbols[0].latex
            by = dense.input_symbols[0].latex if layer else dense.weight_symbols["kernel"].latex
            places[derivative(z, by)] = (layer + 0.5) * self.column
            if activation is not None:
                places[derivative(activation.output_symbols[0].latex, z)] = (layer + 1) * self.column
        skipped = links_back(self.pairs, self.loss)[0][1] is None and self.pairs[-1][1] is not None
        places[gradient_of(self.loss.input_symbols[-1])] = (len(self.pairs) + (0 if skipped else 0.5)) * self.column
        return places
