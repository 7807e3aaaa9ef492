"""A chain of small dense layers: every gradient as one product of matrices, from the error back to the weight."""

from typing import Any, NamedTuple

import keras

from keras_backprop.explanations.observing.link import Symbol
from keras_backprop.explanations.writing import error_formulas, formulas
from keras_backprop.explanations.writing.notation import bracketed, derivative, gradient_of, is_small, latex_array
from keras_backprop.explanations.writing.rows import is_dense, shown


class MatrixProduct(NamedTuple):
    """A gradient as a product.

    Attributes:
        symbol: `Symbol` of the weight.
        formula: str, LaTeX, in letters.
        numbers: str, LaTeX, the same with the matrices of the batch put in.
        gradient: array, from the record.
    """

    symbol: Symbol
    formula: str
    numbers: str
    gradient: Any


def dense_chain(explanation):
    """A chain that is nothing but dense layers with their activations and one loss.

    Returns:
        A list of (dense link, activation link or None) and the loss link; None for any other network.
    """
    links = [link for link in shown(explanation) if not isinstance(link.op, keras.layers.InputLayer)]
    links = [
        link for link in links if link.kind != "regularizer"
    ]  # what a penalty adds to a gradient is added to the product
    if len(links) < 2 or links[-1].kind != "loss" or links[-1].local_derivative is None:
        return None
    pairs, output = [], links[0].input_symbols[0]
    for link in links[:-1]:
        if output is None or link.input_symbols[0] != output:
            return None  # a branch
        if is_dense(link) and link.outputs[0].ndim == 2 and link.formula is not None:
            pairs.append((link, None))
        elif link.a is not None and pairs and pairs[-1][1] is None:
            pairs[-1] = pairs[-1][0], link
        else:
            return None
        output = link.output_symbols[0]
    shared = len({dense.weight_symbols["kernel"] for dense, _ in pairs}) < len(pairs)
    return None if shared or output not in links[-1].input_symbols else (pairs, links[-1])


def links_back(pairs, loss):
    """The links that the gradient passes, from the loss back: (dense, activation), an activation as None that it skips.

    A loss that is computed from the logits skips the last activation.
    """
    (last, _), *others = reversed(pairs)
    skipped = loss.input_symbols[-1] == last.output_symbols[0]
    return [(last, None if skipped else pairs[-1][1]), *others]


def matrix_chain(explanation):
    """The gradients of a chain of small dense layers, the last layer's first; None for any other network."""
    chain = dense_chain(explanation)
    if chain is None or not all(map(is_small, _tensors(*chain))):
        return None
    pairs, loss = chain
    letters = error_formulas.loss_gradient(loss) or gradient_of(loss.input_symbols[-1])
    numbers = latex_array(loss.local_derivative)
    products = []
    for dense, activation in links_back(pairs, loss):
        if activation is not None:
            if activation.local_derivative is None:  # softmax: its derivative is a matrix for every example
                return None
            name = derivative(activation.output_symbols[0].latex, activation.input_symbols[0].latex)
            letters = rf"{bracketed(letters)} \odot {bracketed(formulas.local_derivative(activation) or name)}"
            numbers = rf"{numbers} \odot {latex_array(activation.local_derivative)}"
        x, parts = dense.input_symbols[0].latex, dense.weight_gradients
        if "kernel" in parts:
            formula = rf"{x}^\top \left({letters}\right)"
            values = rf"{latex_array(dense.inputs[0])}^\top \left({numbers}\right)"
            products.append(_with_penalty(explanation, dense, "kernel", formula, values))
        if "bias" in parts:
            summed = r"\sum_n \left({}\right)" if len(dense.outputs[0]) > 1 else "{}"
            products.append(
                _with_penalty(explanation, dense, "bias", summed.replace("{}", letters), summed.replace("{}", numbers))
            )
        W = dense.weight_symbols["kernel"].latex
        letters = rf"\left({letters}\right) {W}^\top"
        numbers = rf"\left({numbers}\right) {latex_array(dense.weights['kernel'])}^\top"
    return products or None


def _with_penalty(explanation, dense, name, formula, numbers):
    symbol, rest = dense.weight_symbols[name], penalty(explanation, dense, name)
    total = dense.weight_gradients[name]
    if rest is not None:
        formula, numbers = rf"{formula} + {derivative('R', symbol.latex)}", f"{numbers} + {latex_array(rest)}"
        total = total + rest
    return MatrixProduct(symbol, formula, numbers, total)


def penalty(explanation, dense, name):
    """What penalties add to the gradient of a dense layer's weight; None for nothing."""
    symbol = dense.weight_symbols[name]
    total = next((w.gradient for w in explanation.weights if w.symbol == symbol), None)
    uses = next((w.uses for w in explanation.weights if w.symbol == symbol), 1)
    return None if total is None or uses < 2 else total - dense.weight_gradients[name]


def _tensors(pairs, loss):
    yield loss.local_derivative
    for dense, _ in pairs:
        yield from (dense.inputs[0], dense.weights["kernel"], dense.outputs[0])
