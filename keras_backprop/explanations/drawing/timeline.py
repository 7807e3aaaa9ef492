"""A recurrent layer unrolled in time: a column for every step, values forward, ∂E/∂h backward, and what vanishes on the way."""

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
COLUMN, WIDTH = 2.9, 2.2


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
    inputs = _inputs(graph)
    gates = {t: [n for n in graph.nodes if n.time == t and n.letter not in "xh"] for t in steps}
    rest = _behind(graph)
    lit = _lit(chain)
    lines = max(len(_lines(gates[t], row)) for t in steps)
    height = 0.75 + 0.3 * lines
    right = COLUMN * len(steps) + WIDTH
    canvas = Canvas(-0.4, -height / 2 - 2.2, max(right + 0.6, 7.5), height / 2 + 2.0)
    _head(canvas, explanation, example, height, right)
    strengths = [float(np.linalg.norm(hidden[t].gradient[row])) for t in steps]
    strongest = max(strengths) or 1.0
    canvas.box(
        (COLUMN * (len(steps) - 1) + WIDTH) / 2,
        0,
        COLUMN * (len(steps) - 1) + WIDTH + 0.5,
        height + 0.75,
        "none",
        FAINT,
        dashed=True,
    )
    for t, strength in zip(steps, strengths, strict=True):
        x = COLUMN * (t - 1) + WIDTH / 2
        _step(canvas, x, height, t, hidden[t], inputs.get(t), gates[t], row, id(hidden[t]) in lit)
        _gradient(canvas, x, height, hidden[t], row, strength / strongest)
    for t in steps[1:]:
        x = COLUMN * (t - 2) + WIDTH
        canvas.arrow((x, 0.1), (x + COLUMN - WIDTH, 0.1))
        share = strengths[t - 2] / strongest
        canvas.arrow((x + COLUMN - WIDTH, -0.15), (x, -0.15), GRADIENT, 0.6 + 2.4 * share, alpha=0.25 + 0.75 * share)
    _rest(canvas, explanation, rest, row, COLUMN * len(steps), height)
    return canvas


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


def _head(canvas, explanation, example, height, right):
    top = height / 2 + 1.65
    canvas.text(-0.1, top, explanation.model, size=17, align="left", weight="bold")
    right = max(right, 6.9)
    canvas.text(right - 1.2, top, r"values $\rightarrow$", size=14, align="right")
    canvas.text(right + 0.3, top, r"$\leftarrow$ gradients", GRADIENT, 14, align="right")
    shown = "" if explanation.examples == 1 else f"Example {(example or 0) + 1} of {explanation.examples}.  "
    canvas.text(
        -0.1,
        top - 0.4,
        f"{shown}A column is a time step; the stronger a red arrow, the larger the gradient.",
        FAINT,
        12.5,
        align="left",
    )


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


def _step(canvas, x, height, t, hidden, given, gates, row, lit):
    wide = WIDTH
    canvas.box(x, 0, wide, height, "#fff6df" if lit else "#eaf2fb", "#c98a00" if lit else "#2f6da8")
    y = height / 2 - 0.28
    for line in _lines(gates, row):
        canvas.text(x, y, line, size=12 if hidden.units == 1 else 10, zorder=5)
        y -= 0.3
    canvas.text(
        x,
        y - 0.05,
        f"$h_{t} = {_numbers(hidden.value[row])}$",
        size=13 if hidden.units == 1 else 10.5,
        weight="bold",
        zorder=5,
    )
    if given is not None:
        below = -height / 2 - 1.5
        canvas.box(x, below, wide * 0.8, 0.5, INPUT, INPUT_EDGE)
        name = given.vector if given.units > 1 else given.name()
        canvas.text(x, below, f"${name} = {_numbers(given.value[row])}$", size=12, zorder=5)
        canvas.arrow((x, below + 0.25), (x, -height / 2), INK)


def _gradient(canvas, x, height, hidden, row, share):
    y = height / 2 + 0.62
    text = rf"$\partial E/\partial h_{hidden.time} = {_numbers(hidden.gradient[row])}$"
    canvas.text(x, y, text, GRADIENT, 12.5 if hidden.units == 1 else 9.5, box=True)
    if share < 0.1:
        percent = f"{100 * share:.2g}" if share >= 1e-4 else latex_number(100 * share)
        canvas.text(x, -height / 2 - 0.85, rf"vanishing: ${percent}$ % left", GRADIENT, 12, box=True, weight="bold")


def _rest(canvas, explanation, rest, row, x, height):
    """The dense layers behind the last step, and the error."""
    lines = [
        f"${node.name(unit)} = {latex_number(node.value[row, unit])}$" for node in rest for unit in range(node.units)
    ]
    reds = [
        rf"$\partial E/\partial {node.name(unit)} = {latex_number(node.gradient[row, unit])}$"
        for node in rest for unit in range(node.units)
    ]  # fmt: skip
    heads = [head for head in explanation.graph.heads if head.targets is not None]
    place, tall = x + WIDTH / 2 + 0.1, 0.7 + 0.32 * (len(lines) + 1)
    canvas.box(place, 0, WIDTH + 0.2, tall, ERROR, ERROR_EDGE)
    canvas.arrow((x - COLUMN + WIDTH, 0.1), (place - WIDTH / 2 - 0.1, 0.1))
    canvas.arrow((place - WIDTH / 2 - 0.1, -0.15), (x - COLUMN + WIDTH, -0.15), GRADIENT, 3.0)
    y = tall / 2 - 0.28
    for line in lines:
        canvas.text(place, y, line, size=12.5, zorder=5)
        y -= 0.32
    if (
        heads
        and np.size(heads[0].targets[row]) <= MOST_UNITS
        and np.issubdtype(np.asarray(heads[0].targets).dtype, np.floating)
    ):
        canvas.text(place, y, f"$T = {_numbers(np.atleast_1d(heads[0].targets[row]))}$", size=12.5, zorder=5)
        y -= 0.32
    canvas.text(place, y, f"$E = {latex_number(explanation.loss)}$", size=14, zorder=5)
    for position, red in enumerate(reds):
        canvas.text(place, tall / 2 + 0.25 + 0.3 * (len(reds) - 1 - position), red, GRADIENT, 12)
