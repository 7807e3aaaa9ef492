"""The chain for a terminal."""

import textwrap

import numpy as np

from keras_backprop.explanations.writing import error_formulas
from keras_backprop.explanations.writing.breaking import COLUMNS, broken_text
from keras_backprop.explanations.writing.inside import inside_rows
from keras_backprop.explanations.writing.notation import (
    A_FEW_ROWS,
    brief,
    columns,
    decimals_of_change,
    number,
    plain,
    precision,
)
from keras_backprop.explanations.writing.optimizers import NAMES
from keras_backprop.explanations.writing.rows import Shown, backward_rows, forward_rows, given_rows, shown
from keras_backprop.explanations.writing.scalar_chain import factors_of, scalar_chain
from keras_backprop.explanations.writing.time_rows import general_rows, step_rows

MOST_WEIGHTS, MOST_TERMS, FEW_TERMS = 24, 8, 4
"""So many single weights are listed one by one, each with so many products at the most; of more than a few those that are 0 are
counted only."""

MOST_NAMES = 6
"""So many weights are named where an optimizer treats them differently."""


def to_text(explanation, digits=None, example=None, units=None):
    """Forward pass, backward pass, update, in aligned columns."""
    view = Shown(explanation, example, units)
    with precision(digits):
        products = scalar_chain(explanation)
        parts = [headline(explanation, example), ""]
        if not products:
            parts += ["Given", *rows_text(given_rows(explanation, view)), ""]
        parts += ["Forward", *rows_text(forward_rows(explanation, view)), ""]
        inside = inside_text(explanation, example)
        if inside:
            parts += ["Inside the layers", *columns(inside), ""]
        steps = step_rows(explanation, example)
        general = general_rows(explanation)
        if general:
            parts += ["In every time step t", *columns([(path, what, plain(line)) for path, what, line in general]), ""]
        if steps:
            rows = [
                (plain(name), plain(made), value, f"{plain(of)} = {dx}" if dx else "")
                for name, made, value, of, dx in steps
            ]
            parts += ["Step by step through time", *columns(rows), ""]
        if products:
            parts += ["The chain, factor by factor", *factors_text(products), ""]
            parts += ["The gradients, as products of these factors", *products_text(products)]
        else:
            parts += [
                f"Backward, the last link first{of_all(explanation, example)}",
                *rows_text(backward_rows(explanation, view)),
            ]
            singles = single_weights(explanation, example)
            if singles:
                parts += [
                    "",
                    f"The gradients, weight by weight{of_example(example)}",
                    *(line for name, sums in singles for line in _sum(f"  {plain(name)} = ", sums)),
                ]
        for sentence in remarks(explanation):
            parts += textwrap.wrap(sentence, 116, initial_indent="  ", subsequent_indent="  ")
        parts += ["", *update_head(explanation), *update_text([*explanation.weights, *explanation.frozen])]
    return "\n".join(parts)


def inside_text(explanation, example=None):
    """(path, what, numbers) of what happens inside layers, of one example."""
    return [(link.path, *row) for link in shown(explanation) for row in inside_rows(link, example or 0)]


def _sum(lead, sums):
    """`∂E/∂w = … + …` on one line, or a line for each product."""
    if len(lead) + len(sums) <= COLUMNS:
        return [lead + sums]
    first, *terms = sums.split(" + ")
    space = " " * (len(lead) - 2)
    return [line for n, term in enumerate([first, *terms]) for line in broken_text(f"{space}+ " if n else lead, term)]


def of_example(example):
    """Which part of the gradients is shown."""
    return "" if example is None else f": what example {example + 1} contributes"


def of_all(explanation, example):
    """That gradients of weights are of the batch, where the rest is of one example."""
    return "" if example is None or explanation.examples == 1 else " (gradients of weights are those of the batch)"


def headline(explanation, example=None):
    """One line: which model, how many examples, which error."""
    examples = "1 example" if explanation.examples == 1 else f"{explanation.examples} examples"
    only = "" if example is None else f", of which example {example + 1} is shown"
    return f"The chain of '{explanation.model}' for {examples}{only}: E = {number(explanation.loss)}"


def remarks(explanation):
    """Sentences on what is otherwise done without a word."""
    yield from overflows(explanation)
    for link in shown(explanation):
        if link.kind == "loss" and error_formulas.has_weights(link):
            yield f"cₙ is the weight with which the error of example n enters E: {brief(link.upstream[0], few=A_FEW_ROWS)}."
    for link in shown(explanation):
        if error_formulas.together(link):
            name = "softmax" if "categorical" in link.rule else "sigmoid"
            yield (
                f"The {name} and the cross-entropy are differentiated together: ∂E/∂z = a − T, times the factor with which the "
                f"error enters E. The derivative of the {name} and that of the logarithm cancel; there is no factor ∂a/∂z "
                "besides."
            )
        elif link.kind == "loss" and getattr(link.formula, "shown_slope", ""):
            yield (
                "Before the logarithm Keras divides a by its sum, which is 1 for probabilities. So ∂E/∂a has the term ΣT/Σa "
                "besides the −T/a of books."
            )


def single_weights(explanation, example=None):
    """(gradient's name as LaTeX, its products in numbers) of every single weight of a small network; else nothing."""
    count = sum(np.size(w.value) for w in explanation.weights if w.gradient is not None)
    if count > MOST_WEIGHTS or not explanation.graph.uses:
        return []
    found, followed = [], {use.path for use in explanation.graph.uses}
    for weight in explanation.weights:
        if weight.path not in followed:
            continue
        for index in np.ndindex(np.shape(weight.value)) if weight.gradient is not None else ():
            chain = explanation.chain(weight.path, *index, example=example)
            paths = [path for path in chain.paths if path.value] if len(chain.paths) > FEW_TERMS else chain.paths
            if chain.paths and len(paths) <= MOST_TERMS:
                terms = [" · ".join(_factor(f.value) for f in path.factors) for path in paths]
                left = len(chain.paths) - len(paths)
                terms += [f"0 ({left} product{'s' * (left > 1)})"] if left else []
                also = f" (w{_subscript(chain.also)})" if chain.also and f"_{chain.also}" != chain.name[1:] else ""
                total = f" = {_total(chain)}" if len(terms) > 1 or "·" in terms[0] else ""
                found.append((rf"\frac{{\partial E}}{{\partial {chain.name}}}{also}", " + ".join(terms) + total))
    return found


def _total(chain):
    """The gradient; where it has overflowed, what the products give as well."""
    products = sum(path.value for path in chain.paths)
    if np.isfinite(chain.gradient) or not np.isfinite(products):
        return number(chain.gradient)
    return f"{number(products)} (overflowed: {number(chain.gradient)})"


def overflows(explanation):
    """A sentence on the link from which on, backward, numbers leave the range of their type."""
    for link in reversed(shown(explanation)):
        made = [*link.upstream, *link.downstream, *link.weight_gradients.values()]
        if all(dx is None or np.all(np.isfinite(dx)) for dx in made):
            continue
        limit = f" The largest {link.dtype} is {number(np.finfo(link.dtype).max)}." if "float" in link.dtype else ""
        scaled = (
            f" E is multiplied by the loss scale {explanation.loss_scale:g} before the backward pass; the optimizer leaves this "
            "step out and lowers the scale."
        )  # fmt: skip
        yield f"From '{link.path}' on gradients are inf or NaN.{limit}{scaled if explanation.loss_scale != 1 else ''}"
        return


def _factor(value):
    return f"({number(value)})" if value < 0 else number(value)


def _subscript(count):
    return str(count).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def rows_text(rows):
    """Lines `path  formula  value`; the path once for the rows of a link."""
    cells, previous = [], None
    for row in rows:
        cells.append(("" if row.path == previous else row.path, plain(row.formula), brief(row.value, few=A_FEW_ROWS)))
        previous = row.path
    return columns(cells)


def factors_text(products):
    """Lines `factor = formula  value`."""
    return columns(
        [(plain(f.name), "= " + plain(f.formula) if f.formula else "", number(f.value)) for f in factors_of(products)]
    )


def products_text(products):
    """Lines `∂E/∂w₂ = 0.4653 · 0.2037 · 0.6023 = 0.0571`."""
    lines = []
    for product in products:
        name = f"∂E/∂{product.symbol}"
        penalty = f" + {_factor(product.penalty)} (penalty)" if product.penalty else ""
        values = " · ".join(_factor(f.value) for f in product.factors)
        lines += broken_text(f"  {name} = ", f"{values}{penalty} = {number(product.gradient)}")
    return lines


def update_head(explanation):
    """The optimizer, how it makes the new weights, and its numbers."""
    formula = explanation.update
    if formula is None:
        return [f"Update ({explanation.optimizer})"]
    if len(formula.steps) == 1 and not formula.others:
        remarks = [f"  {remark}" for remark in formula.remarks]
        return [f"Update ({explanation.optimizer}): {plain(formula.latex()[0])}", *remarks]
    lines = [f"Update ({explanation.optimizer}), line by line, g = ∂E/∂w"]
    for group in formula.groups:
        names = {letter: plain(NAMES.get(letter, letter)) for letter in group.numbers}
        numbers = ", ".join(f"{names[letter]} = {number(value)}" for letter, value in group.numbers.items())
        lines += [f"  of {which(explanation, group)}:"] if formula.others else []
        lines += [f"  {plain(line)}" for line in group.latex()] + [f"  with {numbers}"]
        lines += [f"  {sentence}" for sentence in (*group.words, *group.remarks)]
    return [*lines, *state_lines(explanation), ""]


def which(explanation, group):
    """The weights that an optimizer makes new in one way, by name; of many the first."""
    names = [str(weight.symbol) for weight in explanation.weights if weight.path in group.paths]
    return ", ".join(names[:MOST_NAMES]) + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


def state_lines(explanation):
    """The optimizer's state of small weights: before and after."""
    for weight in explanation.weights:
        if weight.gradient is None or np.size(weight.value) > 4:
            continue
        formula = explanation.update.of(weight.path)
        after = formula.evaluate(weight.value, weight.gradient, weight.path)
        states = [
            f"{letter} {brief(before.get(weight.path, np.zeros_like(weight.value)))} → {brief(after[letter])}"
            for letter, (_, before) in formula.state.items()
        ]
        if states:
            yield f"  of {weight.symbol}: {', '.join(states)}"


def update_text(weights):
    """Lines `weight  path  before  gradient  after`."""
    cells = [("weight", "path", "before", "∂E/∂weight", "after")]
    for weight in weights:
        symbol = str(weight.symbol) if str(weight.symbol) != weight.path else ""
        gradient = "none" if weight.gradient is None else brief(weight.gradient, with_shape=False)
        if not weight.trained:
            gradient = "frozen: not trained"
        with precision(decimals_of_change(weight.value, weight.updated)):
            before, after = brief(weight.value), brief(weight.updated, with_shape=False)
        cells.append((symbol, weight.path, before, gradient, after))
    return columns(cells)
