"""A small dense network drawn neuron by neuron: z and a inside, weights and their gradients on the edges."""

import itertools
import math

import numpy as np

from keras_backprop.explain.canvas import ERROR, ERROR_EDGE, FAINT, GRADIENT, INK, INPUT, INPUT_EDGE, Canvas
from keras_backprop.explain.matrix_chain import dense_chain, links_back
from keras_backprop.explain.notation import derivative, gradient_of, latex_factor, latex_number
from keras_backprop.explain.scalar_chain import factors_of, scalar_chain

MOST_UNITS, MOST_LAYERS = 8, 5
MOST_LABELLED_EDGES = 12  # between two layers; more are drawn with their gradient as their width
RADIUS, INPUT_RADIUS = 0.62, 0.52


def fits(explanation):
    """Whether the network is a chain of dense layers, few and narrow enough to show every neuron."""
    chain = dense_chain(explanation)
    if chain is None:
        return False
    widths = [chain[0][0][0].inputs[0].shape[-1], *(link.shape[-1] for link, _ in chain[0])]
    return max(widths) <= MOST_UNITS and len(widths) <= MOST_LAYERS + 1


def draw(explanation, example=None, chain=None, numbers=None):
    """The drawing, a `Canvas`."""
    return _Drawing(explanation).canvas


class _Drawing:
    def __init__(self, explanation):
        self.explanation = explanation
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
        crowded = any(_labelled(*layer) and min(layer) > 2 for layer in itertools.pairwise(self.widths))
        self.column = 3.5 if tallest == 1 else 5.2 if crowded else 4.4
        self.row = 2.9 if crowded else 2.3
        height = (tallest - 1) * self.row
        self.error_x = (len(self.pairs) + 1) * self.column - (0 if self.products else 0.8)
        self.top = height / 2 + RADIUS
        self.bottom = -height / 2 - RADIUS - 0.7
        lane = 1.9 if self.products else 0.15
        self.left, self.right = -0.75, self.error_x + 1.0
        self.canvas = Canvas(self.left - 0.2, self.bottom - lane, self.right + 0.2, self.top + 1.0)

    def _at(self, layer, unit):
        """Where a unit is: layer 0 is the input."""
        return layer * self.column, ((self.widths[layer] - 1) / 2 - unit) * self.row

    def _headline(self):
        canvas, y = self.canvas, self.top + 0.65
        canvas.text(self.left, y, self.explanation.model, size=17, align="left", weight="bold")
        canvas.text(self.right - 1.45, y, r"values $\rightarrow$", size=14, align="right")
        canvas.text(self.right, y, r"$\leftarrow$ gradients", GRADIENT, 14, align="right")
        canvas.text(self.left, y - 0.35, self._legend(), FAINT, 12.5, align="left")

    def _legend(self):
        parts = []
        if self.explanation.examples > 1:
            parts.append(f"Values of the first of {self.explanation.examples} examples, gradients of all.")
        layers = [(sources, targets) for sources, targets in itertools.pairwise(self.widths) if sources * targets > 1]
        if any(_labelled(*layer) for layer in layers):
            parts.append(r"On an edge: $w$ above, $\partial E/\partial w$ below.")
        if not all(_labelled(*layer) for layer in layers):
            parts.append(r"The stronger an edge, the larger its $|\partial E/\partial w|$.")
        return "  ".join(parts)

    def _inputs(self):
        symbol, values = self.pairs[0][0].input_symbols[0].latex, self.pairs[0][0].inputs[0][0]
        for unit, value in enumerate(values):
            x, y = self._at(0, unit)
            self.canvas.circle(x, y, INPUT_RADIUS, INPUT, INPUT_EDGE)
            self.canvas.text(
                x,
                y,
                f"${symbol} = {latex_number(value)}$" if self.products else f"${_short(value)}$",
                size=14,
                zorder=5,
            )

    def _layer(self, layer):
        dense, activation = self.pairs[layer]
        z = dense.output_symbols[0].latex
        bias, gradient = dense.weights.get("bias"), dense.weight_gradients.get("bias")
        b = dense.weight_symbols["bias"].latex if bias is not None else ""
        for unit in range(self.widths[layer + 1]):
            x, y = self._at(layer + 1, unit)
            self.canvas.circle(x, y, RADIUS)
            up = 0.2 if activation is not None else 0
            self.canvas.text(x, y + up, f"${z} = {self._number(dense.z[0, unit])}$", zorder=5)
            if activation is not None:
                a = activation.output_symbols[0].latex
                self.canvas.line((x - RADIUS * 0.8, y), (x + RADIUS * 0.8, y))
                self.canvas.text(x, y - 0.2, f"${a} = {self._number(activation.a[0, unit])}$", zorder=5)
            if bias is not None:
                self.canvas.text(x, y - RADIUS - 0.2, f"${b} = {self._number(bias[unit])}$", size=14, box=True)
            if gradient is not None:
                text = rf"$\partial E/\partial {b} = {self._number(gradient[unit])}$"
                self.canvas.text(x, y - RADIUS - 0.5, text, GRADIENT, 14, box=True)

    def _number(self, value):
        """In a network of many units there is room for fewer digits."""
        return latex_number(value) if self.products else _short(value)

    def _edges(self, layer):
        dense, _ = self.pairs[layer]
        W, dW = dense.weights["kernel"], dense.weight_gradients.get("kernel")
        sources, targets = W.shape
        largest = np.max(np.abs(dW)) if dW is not None else 0
        for i in range(sources):
            for j in range(targets):
                ends = self._at(layer, i), self._at(layer + 1, j)
                start, end = _between(*ends, INPUT_RADIUS if layer == 0 else RADIUS, RADIUS)
                share = abs(dW[i, j]) / largest if largest else 0
                if _labelled(sources, targets):
                    self.canvas.arrow(start, end)
                    self._edge_labels(ends, _place(sources, targets), dense, i, j)
                else:
                    self.canvas.arrow(start, end, GRADIENT, 0.4 + 2.6 * share, alpha=0.2 + 0.6 * share)

    def _edge_labels(self, ends, place, dense, i, j):
        """The weight above the edge, its gradient below, both along the edge."""
        W, dW = dense.weights["kernel"], dense.weight_gradients.get("kernel")
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
        symbol, gradient = loss.input_symbols[-1].latex, loss.local_derivative
        targets = np.atleast_2d(loss.inputs[0])[0]
        x = self.error_x
        single = self.widths[last] == 1 and targets.size == 1
        canvas.box(x, 0, 1.5, 1.05 if single else 0.75, ERROR, ERROR_EDGE)
        canvas.text(x, 0.2 if single else 0, f"$E = {latex_number(self.explanation.loss)}$", size=16, zorder=5)
        if single:
            canvas.text(x, -0.24, f"$T = {latex_number(targets[0])}$", size=14, zorder=5)
        for unit in range(self.widths[last]):
            ends = self._at(last, unit), (x - 0.75, 0.0)
            canvas.arrow(*_between(*ends, RADIUS, 0.0))
            if not self.products and gradient.ndim == 2 and self.explanation.examples == 1:
                text = rf"$\partial E/\partial {symbol} = {_short(gradient[0, unit])}$"
                self._along(ends, 0.6, text, GRADIENT, -1)

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


def _labelled(sources, targets):
    """Whether there is room for numbers on every edge between two layers."""
    return sources * targets <= MOST_LABELLED_EDGES and min(sources, targets) <= 3


def _place(sources, targets):
    """How far along the edges between two layers their labels stand: where the edges are evenly spaced."""
    return 1 / (1 + targets) if targets <= sources else 1 - 1 / (1 + sources)


def _between(start, end, start_radius, end_radius):
    """The part of a line outside the two circles around its ends."""
    length = math.dist(start, end)
    direction = [(e - s) / length for s, e in zip(start, end, strict=True)]
    return (
        tuple(s + start_radius * d for s, d in zip(start, direction, strict=True)),
        tuple(e - end_radius * d for e, d in zip(end, direction, strict=True)),
    )


def _short(value):
    """A number in six or seven characters."""
    value = float(value)
    if value == round(value, 2) or 0.01 <= abs(value) < 10:
        return f"{value:.3f}".rstrip("0").rstrip(".") if value == round(value, 2) else f"{value:.3f}"
    mantissa, _, exponent = f"{value:.2g}".partition("e")
    return rf"{mantissa}\mathrm{{e}}{{{int(exponent)}}}" if exponent else mantissa
