"""A recurrent layer unrolled in time: a row for every step, values downward, ∂E/∂h upward, and what vanishes on the way."""

from typing import Any

import keras
import numpy as np

from keras_backprop.explanations.drawing.canvas import (
    ERROR,
    ERROR_EDGE,
    FAINT,
    GRADIENT,
    INK,
    INPUT,
    INPUT_EDGE,
    Canvas,
)
from keras_backprop.explanations.writing.notation import latex_number

__all__ = ["draw", "fits"]

MOST_STEPS, MOST_UNITS = 8, 4
GAP, WIDTH, INPUT_WIDTH = 0.65, 2.2, 1.4


def fits(explanation: Any) -> bool:
    """Whether it is one recurrent layer of a few steps and units, with dense layers behind it at the most, and none before."""
    plain = (keras.layers.Dense, keras.layers.InputLayer, keras.layers.Activation)
    layers = [link for link in explanation.links if link.kind == "layer"]
    recurrent = [link for link in layers if hasattr(link.op, "cell")]
    if len(recurrent) != 1 or any(not isinstance(link.op, plain) for link in layers if link is not recurrent[0]):
        return False
    if not explanation.links or explanation.links[-1].kind not in ("loss", "regularizer", "op"):
        return False
    nodes = [node for node in explanation.graph.nodes if node.time]
    if any(node.place for node in nodes):
        return False  # pictures
    steps, units = {node.time for node in nodes}, max((node.units for node in nodes), default=0)
    behind = _behind(explanation.graph)
    computed = [node for node in explanation.graph.nodes if node.time is None and node.edges and not node.origins]
    one_layer = len([node for node in nodes if node.letter == "h"]) == len(steps) and len(computed) == len(behind)
    return bool(steps) and one_layer and len(steps) <= MOST_STEPS and units <= MOST_UNITS and len(behind) <= 8 and max(
        (node.units for node in behind), default=0
    ) <= MOST_UNITS  # fmt: skip


def draw(explanation: Any, example: Any = None, chain: Any = None) -> Canvas:
    """The drawing, a `Canvas`."""
    graph, row = explanation.graph, example or 0
    steps = sorted({node.time for node in graph.nodes if node.time})
    hidden = {node.time: node for node in graph.nodes if node.letter == "h" and node.time is not None}
    gates = {t: [n for n in graph.nodes if n.time == t and n.letter not in "xh"] for t in steps}
    inputs, behind, lit = _inputs(graph), _behind(graph), _lit(chain)
    height = 0.75 + 0.3 * max(len(_lines(gates[t], row)) for t in steps)
    pitch, wide = height + GAP, _wide(hidden[1].units)
    x = _wide(inputs[1].units, INPUT_WIDTH) + GAP + wide / 2
    last = -pitch * (len(steps) - 1) - height / 2
    error = _Error(explanation, behind, row)
    right = x + wide / 2 + 0.4 + max(2.3, 0.9 + max(node.units for node in (hidden[1], *behind)))
    canvas = Canvas(-0.4, last - GAP - error.height - 0.4, right, height / 2 + 1.35)
    _head(canvas, explanation, example, height / 2 + 1.0, right - 0.2)
    canvas.box(x, (height / 2 + last) / 2, wide + 0.5, height / 2 - last + 0.45, "none", FAINT, dashed=True)
    states = {t: [hidden[t], *(node for node in gates[t] if node.letter == "c")] for t in steps}  # what a step hands on
    strengths = np.array([[np.linalg.norm(node.gradient[row]) for node in states[t]] for t in steps])
    shares = np.max(
        strengths / np.where(strengths.max(0) > 0, strengths.max(0), 1.0), -1
    )  # of the state that keeps most
    for t, share in zip(steps, map(float, shares), strict=True):
        y = -pitch * (t - 1)
        _step(canvas, (x, y), (wide, height), hidden[t], gates[t], row, id(hidden[t]) in lit)
        _given(canvas, (x - wide / 2, y), inputs[t], row)
        _gradients(canvas, x + wide / 2 + 0.4, y, states[t], row, share)
        below = y - height / 2
        canvas.arrow((x - 0.12, below), (x - 0.12, below - GAP))
        back = (3.0, 1.0) if t == steps[-1] else (0.6 + 2.4 * share, 0.25 + 0.75 * share)
        canvas.arrow((x + 0.12, below - GAP), (x + 0.12, below), GRADIENT, back[0], alpha=back[1])
    error.draw(canvas, x, last - GAP, wide)
    return canvas


def _wide(units, least=WIDTH):
    """How wide a box is in which so many numbers stand beside each other."""
    return max(least, 0.7 + 0.95 * units)


def _inputs(graph):
    """Step -> what goes into it. Where the sequence is read backwards, the first step is given the last x."""
    edges = [(node.time, edge.source) for node in graph.nodes if node.time for edge in node.edges]
    return {time: source for time, source in edges if source.letter == "x" and source.time}


def _behind(graph):
    """The nodes that are computed of the steps; what is only moved is the same number."""
    reached = {id(node) for node in graph.nodes if node.time}
    behind = []
    for node in graph.nodes:
        if node.time is None and any(id(edge.source) in reached for edge in node.edges):
            reached.add(id(node))
            behind += [] if node.origins else [node]
    return behind


def _lit(chain):
    if chain is None:
        return set()
    return {
        id(place[0]) for path in chain.paths for factor in path.factors for place in (factor.start, factor.end) if place
    }


def _head(canvas, explanation, example, top, right):
    canvas.text(-0.1, top, explanation.model, size=17, align="left", weight="bold")
    canvas.text(right - 1.45, top, r"values $\downarrow$", size=14, align="right")
    canvas.text(right, top, r"$\uparrow$ gradients", GRADIENT, 14, align="right")
    shown = "" if explanation.examples == 1 else f"Example {(example or 0) + 1} of {explanation.examples}.  "
    text = f"{shown}A row is a time step; the stronger a red arrow, the larger the gradient."
    canvas.text(-0.1, top - 0.35, text, FAINT, 12.5, align="left")


def _lines(nodes, row):
    """Values of what is in a step: z and the gates."""
    by_letter: dict = {}
    for node in nodes:
        by_letter.setdefault(node.letter, []).append(node)
    return [
        f"${nodes[0].letter} = {_numbers(nodes[0].value[row])}$"
        for nodes in by_letter.values()
        if "^" not in nodes[0].letter
    ]


def _numbers(values):
    text = r",\ ".join(latex_number(float(f"{value:.4g}")) for value in values)
    return text if len(values) == 1 else f"({text})"


def _step(canvas, center, size, hidden, gates, row, lit):
    canvas.box(*center, *size, "#fff6df" if lit else "#eaf2fb", "#c98a00" if lit else "#2f6da8")
    x, y = center[0], center[1] + size[1] / 2 - 0.28
    for line in _lines(gates, row):
        canvas.text(x, y, line, size=12 if hidden.units == 1 else 11, zorder=5)
        y -= 0.3
    text = f"$h_{hidden.time} = {_numbers(hidden.value[row])}$"
    canvas.text(x, y - 0.05, text, size=13 if hidden.units == 1 else 11.5, weight="bold", zorder=5)


def _given(canvas, end, given, row):
    """What goes into a step, at its left."""
    wide = _wide(given.units, INPUT_WIDTH)
    x, y = wide / 2, end[1]
    text = f"${given.vector} = {_numbers(given.value[row])}$"
    canvas.box(x, y, wide, 0.5, INPUT, INPUT_EDGE)
    canvas.text(x, y, text, size=12 if given.units == 1 else 11, zorder=5)
    canvas.arrow((wide, y), end, INK)


def _gradients(canvas, x, y, states, row, share):
    """∂E/∂h, and ∂E/∂c of a layer that has it; a vanishing gradient is one that vanishes in both."""
    size, vanishing = 12.5 if states[0].units == 1 else 11.5, share < 0.1
    y += 0.17 * (len(states) - 1 + vanishing)
    for node in states:
        text = rf"$\partial E/\partial {node.letter}_{node.time} = {_numbers(node.gradient[row])}$"
        canvas.text(x, y, text, GRADIENT, size, align="left")
        y -= 0.34
    if vanishing:
        percent = f"{100 * share:.2g}" if share >= 1e-4 else latex_number(100 * share)
        canvas.text(x, y, rf"vanishing: ${percent}$ % left", GRADIENT, 12, align="left", weight="bold")


class _Error:
    """The box of what is computed behind the steps, with the error below.

    Args:
        explanation: the `Explanation`.
        behind: list of `Node`.
        row: int, the example.
    """

    def __init__(self, explanation, behind, row):
        units = [(node, unit) for node in behind for unit in range(node.units)]
        self.lines = [f"${node.name(unit)} = {latex_number(node.value[row, unit])}$" for node, unit in units]
        passed = set(map(id, explanation.graph.on_the_way()))
        self.reds = [
            rf"$\partial E/\partial {node.name(unit)} = {latex_number(node.gradient[row, unit])}$"
            if id(node) in passed
            else ""
            for node, unit in units
        ]
        head = next((head for head in explanation.graph.heads if head.targets is not None), None)
        if head is not None and np.size(head.targets[row]) <= MOST_UNITS and np.asarray(head.targets).dtype.kind == "f":
            self.lines.append(f"$T = {_numbers(np.ravel(head.targets[row]))}$")
        self.lines.append(f"$E = {latex_number(explanation.loss)}$")
        self.height = 0.3 + 0.34 * len(self.lines)

    def draw(self, canvas, x, top, wide):
        """Its upper edge is at `top`."""
        canvas.box(x, top - self.height / 2, wide, self.height, ERROR, ERROR_EDGE)
        for position, line in enumerate(self.lines):
            y = top - 0.32 - 0.34 * position
            canvas.text(x, y, line, size=14 if line is self.lines[-1] else 12.5, zorder=5)
            if position < len(self.reds) and self.reds[position]:
                canvas.text(x + wide / 2 + 0.4, y, self.reds[position], GRADIENT, 12, align="left")
