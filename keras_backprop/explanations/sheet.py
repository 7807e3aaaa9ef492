"""Exercise sheets: an explanation with some numbers left blank, and the solution apart."""

import re
from typing import Any, NamedTuple

import numpy as np

from keras_backprop.explanations.comparing.spelling import Spelling
from keras_backprop.explanations.comparing.weight_names import primed
from keras_backprop.explanations.writing import error_formulas, formulas
from keras_backprop.explanations.writing.markdown import display, table, update_formula
from keras_backprop.explanations.writing.notation import derivative, latex_number, precision
from keras_backprop.explanations.writing.rows import forward_rows, given_rows, shown

__all__ = ["Sheet", "sheet"]

BLANK = "………………"
GROUPS = ("values", "error", "deltas", "gradients", "updates", "all")
MOST = 120


class Sheet(str):
    """An exercise sheet, a string of Markdown.

    Attributes:
        solution: str, the page with the numbers that are blank in the sheet.
        answers: dict, name as LaTeX -> float.
    """

    solution: str
    answers: dict

    def _repr_markdown_(self) -> str:
        return str(self)


class _Entry(NamedTuple):
    group: str
    name: str
    formula: str
    value: float
    key: tuple


def sheet(explanation: Any, blank: Any, digits: Any, flavor: Any) -> Sheet:
    """The sheet and its solution. See `Explanation.to_markdown`."""
    entries, spelling = _entries(explanation), Spelling(explanation, explanation.graph)
    if not entries or len(entries) > MOST:
        raise ValueError(
            f"An exercise sheet is made of networks of at most {MOST} numbers whose units can be followed one by one. "
            f"'{explanation.model}' has {len(entries)}."
        )
    if isinstance(blank, dict) or not np.iterable(blank):
        raise TypeError(f"`blank` is a name, or a list of names, of numbers to leave blank. Received: {blank!r}")
    wanted = _wanted(entries, [blank] if isinstance(blank, str) else list(blank), spelling)
    answers = {entry.name: entry.value for entry in entries if entry.key in wanted}
    with precision(digits if digits is not None else 6):
        head = [
            f"# Exercise: '{explanation.model}'",
            "## Given",
            *_given(explanation, spelling, flavor),
        ]
        titles = {"values": "Forward", "error": "The error", "deltas": "Backward", "gradients": "The gradients",
                  "updates": f"The new weights ({explanation.optimizer})"}  # fmt: skip
        page, solution = [*head], [f"# Solution: '{explanation.model}'"]
        for group, title in titles.items():
            of_group = [entry for entry in entries if entry.group == group]
            if not of_group:
                continue
            rows = [
                (f"${e.name}$", f"${e.formula}$" if e.formula else "", BLANK if e.key in wanted else f"${latex_number(e.value)}$")
                for e in of_group
            ]  # fmt: skip
            page += [f"## {title}", table(("number", "formula", "value"), rows)]
            solved = [(f"${e.name}$", f"${latex_number(e.value)}$") for e in of_group if e.key in wanted]
            if solved:
                solution += [f"## {title}", table(("number", "value"), solved)]
        made = Sheet("\n\n".join(page) + "\n")
        made.solution, made.answers = "\n\n".join(solution) + "\n", answers
    return made


def _given(explanation, spelling, flavor):
    rows, given = [], [(row.formula, np.asarray(row.value, "float64")) for row in given_rows(explanation)]
    for name, values in [*given, *_roots(explanation.graph)]:
        for example, line in enumerate(values.reshape(len(values), -1)):
            of = name if len(values) == 1 else f"{name}, \\text{{ example }} {example + 1}"
            rows.append((f"${of}$", "$" + r",\; ".join(map(latex_number, line)) + "$"))
    for weight in (*explanation.weights, *explanation.frozen):
        for index in np.ndindex(np.shape(weight.value)):
            rows.append((f"${spelling.name(weight.path, index)}$", f"${latex_number(weight.value[index])}$"))
    if explanation.update is not None:
        rows.append((r"$\eta$", f"${latex_number(explanation.update.numbers['eta'])}$"))
    yield table(("", "value"), rows)
    losses = [row for row in forward_rows(explanation) if row.formula.startswith("E =")]
    if losses:
        yield display([_by_units(explanation, losses[-1].formula)], flavor)
    yield from update_formula(explanation, flavor)


def _roots(graph):
    """(name, values) of what is used and computed of nothing: x̂ normalised by the batch, the state before the first step."""
    used = {id(edge.source) for node in graph.nodes for edge in node.edges}
    for node in graph.nodes:
        if id(node) in used and not node.edges and node.letter != "x":
            yield node.name().rpartition("_")[0] if node.shape else node.vector, node.value


def _by_units(explanation, formula):
    """The formula of E with the predictions as the sheet calls them: a⁽²⁾₁ of a single one, and not a₂, of all a⁽²⁾."""
    for link in shown(explanation):
        symbol: Any = link.input_symbols[1] if link.kind == "loss" and len(link.input_symbols) > 1 else None
        if symbol is None or symbol.subscript is None:
            continue
        named = (symbol.letter, symbol.subscript)
        node = next((node for node in explanation.graph.nodes if (node.letter, node.layer) == named), None)
        if node is not None and not node.plain and node.time is None and not node.shape:
            own = node.name() if node.units == 1 else rf"{symbol.letter}^{{({symbol.subscript})}}"
            formula = re.sub(rf"(?<![A-Za-z\\]){re.escape(symbol.latex)}(?![\d^])", own.replace("\\", r"\\"), formula)
    return formula


def _entries(explanation):
    """Every number of a small network in the order in which one calculates them."""
    graph = explanation.graph
    if not graph.uses:
        return []
    spelling = Spelling(explanation, graph)
    nodes = [node for node in graph.nodes if not node.origins]  # what is only moved is the same number
    entries = [
        _Entry("values", name, _forward(node, unit, spelling), float(node.value[example, unit]),
               ("value", id(node), unit, example))
        for node, unit, example, name in _places(explanation, nodes, lambda name: name)
    ]  # fmt: skip
    loss = next((link for link in shown(explanation) if link.kind == "loss"), None)
    written = _by_units(explanation, (loss and error_formulas.loss(loss)) or "")
    entries.append(_Entry("error", "E", written, float(explanation.loss), ("error",)))
    passed = set(map(id, graph.on_the_way()))
    back = [node for node in reversed(nodes) if id(node) in passed]
    entries += [
        _Entry("deltas", name, "", float(node.gradient[example, unit]), ("delta", id(node), unit, example))
        for node, unit, example, name in _places(explanation, back, lambda name: derivative("E", name))
    ]
    for weight in reversed(explanation.weights):
        for index in np.ndindex(np.shape(weight.value)) if weight.gradient is not None else ():
            name, key = derivative("E", spelling.name(weight.path, index)), ("gradient", weight.path, index)
            entries.append(_Entry("gradients", name, "", float(weight.gradient[index]), key))
    for weight in explanation.weights:
        for index in np.ndindex(np.shape(weight.value)):
            name, key = primed(spelling.name(weight.path, index)), ("update", weight.path, index)
            entries.append(_Entry("updates", name, "", float(weight.updated[index]), key))
    return entries


def _places(explanation, nodes, named):
    """(node, unit, example, name) of every number that is calculated at some nodes."""
    several = explanation.examples > 1
    for node in nodes:
        for example in range(explanation.examples) if node.edges else ():
            for unit in range(node.units):
                name = named(node.name(unit))
                yield node, unit, example, rf"{name}\;[{example + 1}]" if several else name


def _forward(node, unit, spelling):
    terms = []
    for edge in node.edges:
        if edge.matrix is not None:
            terms += [
                f"{edge.source.name(i)} {spelling.entry(edge.weight, edge.entry(i, unit))}"
                for i in np.flatnonzero(edge.entries[:, unit] >= 0).tolist()
                if not edge.source.origins or edge.source.origins[i] is not None  # not what is beyond the edge
            ]
        elif edge.weight is not None:
            terms.append(f"{spelling.entry(edge.weight, edge.entry(unit, unit))} {edge.source.name(unit)}")
    if terms:
        biases = [use for use in spelling.graph.uses if use.node is node and use.edge is None]
        terms += [spelling.entry(use.path, int(use.of_units[unit])) for use in biases]
    if not terms and node.time is None and node.text and len(node.edges) == 1:
        edge = node.edges[0]
        weight = {} if edge.named is None else {"w": spelling.entry(edge.named, edge.entry(unit, unit))}
        return formulas.filled(node.text, x=edge.source.name(unit), **weight)
    return " + ".join(terms)


def _wanted(entries, blank, spelling):
    wanted = set()
    groups = {
        "activations": "values",
        "forward": "values",
        "backward": "deltas",
        "δ": "deltas",
        "weights": "updates",
        "new": "updates",
    }
    for name in blank:
        group = groups.get(name, name)
        if group == "all":
            wanted |= {entry.key for entry in entries}
        elif group in ("gradients", "updates", "values", "deltas", "error"):
            wanted |= {entry.key for entry in entries if entry.group == group}
        else:
            found = spelling.quantity(name)
            keys = {entry.key for entry in entries if _is(entry.key, found)}
            if not keys:
                raise KeyError(f"{name!r} is given in the exercise and cannot be left blank. {spelling.available()}")
            wanted |= keys
    return wanted


def _is(key, found):
    if found.kind == "error":
        return key[0] == "error"
    if key[0] != found.kind:
        return False
    if found.node is not None:
        return key[1] == id(found.node) and found.unit in (None, key[2])
    return key[1] == found.path and found.index in (None, key[2])
