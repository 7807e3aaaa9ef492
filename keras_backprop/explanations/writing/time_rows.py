"""Recurrent layers line by line: the formulas of a time step, and the numbers of every one."""

from keras_backprop.explanations.numbers.nodes import below
from keras_backprop.explanations.observing.link import text_of
from keras_backprop.explanations.writing.notation import brief, derivative
from keras_backprop.explanations.writing.rows import shown
from keras_backprop.explanations.writing.through_time import step_formulas

__all__ = ["general_rows", "step_rows"]


def step_rows(explanation, example=None):
    """(name, formula, value, its gradient's name, that) of every time step of recurrent layers, as LaTeX and numbers."""
    if not any(hasattr(link.op, "cell") and getattr(link.op, "units", 9) <= 8 for link in explanation.links):
        return []
    nodes = [node for node in explanation.graph.nodes if node.time and node.letter != "x"]
    numbers = {weight.path: weight.symbol.subscript for weight in (*explanation.weights, *explanation.frozen)}
    rows = []
    for node in nodes:
        name = node.vector
        values, deltas = (a if example is None else a[example : example + 1] for a in (node.value, node.gradient))
        of = derivative("E", name)
        rows.append((name, f"= {node.text}" if node.text else "", brief(values), of, brief(deltas)))
        if len(values) == 1:
            rows += [(*factor, "", "") for factor in _factors(node, numbers)]
    return rows


def _factors(node, numbers):
    """(name, formula, value) of ∂h_t/∂h_{t−1} of a layer without gates."""
    if node.letter != "h" or len(node.edges) != 1 or node.edges[0].local is None or node.time == 1:
        return
    z, slope = node.edges[0].source, node.edges[0].local[0]
    back = next((edge for edge in z.edges if edge.source.letter == "h" and edge.matrix is not None), None)
    if back is not None:
        U = "U" if node.layer is None else below("U", numbers[back.weight])
        made = rf"= \varphi'({z.vector})^\top \odot {U}^\top"
        yield derivative(node.vector, back.source.vector), made, brief(slope[:, None] * back.matrix.T)


def general_rows(explanation):
    """(path, "forward" …, LaTeX) of every recurrent layer: the formulas of one step, and the sums over all."""
    rows, written = [], {}
    for link in shown(explanation):
        made = step_formulas(link)
        if made is None:
            continue
        first = written.setdefault(str(made), link.path)
        if first != link.path:
            rows.append((link.path, "as", text_of(first)))
            continue
        masked = link.options.get("masked")
        for what, lines in (("forward", made.forward), ("backward", made.backward), ("over all steps", made.sums)):
            rows += [(link.path if not position and what == "forward" else "", "" if position else what, line)
                     for position, line in enumerate(lines)]  # fmt: skip
        rows.append(("", "step to step", made.factor))
        rows.append(("", "with", made.functions))
        rows += [("", "", made.columns)] if made.columns else []
        if masked:
            rows.append(("", "masked", r"\text{the states pass, and the gradients as well}"))
    return rows
