"""A chain of single units, as in the worked example: every factor is a number, every gradient one long product."""

from typing import NamedTuple

from keras_backprop.explanations.observing.link import Symbol
from keras_backprop.explanations.writing import error_formulas, formulas
from keras_backprop.explanations.writing.matrix_chain import dense_chain, links_back, penalty
from keras_backprop.explanations.writing.notation import derivative
from keras_backprop.explanations.writing.rows import scalar


class Factor(NamedTuple):
    """One factor of the chain rule.

    Attributes:
        name: str, LaTeX: ∂a₂/∂z₂.
        formula: str, LaTeX: a₂·(1 − a₂); "" where the rule does not say.
        value: float.
    """

    name: str
    formula: str
    value: float


class Product(NamedTuple):
    """A gradient as the product of its factors.

    Attributes:
        symbol: `Symbol` of the weight.
        factors: list of `Factor`, from the error back to the weight. Their product, and what penalties add, is the gradient.
        gradient: float, from the record.
        before, after: floats, the weight before and after the update.
        penalty: float, what penalties on the weight add to the gradient.
    """

    symbol: Symbol
    factors: list
    gradient: float
    before: float
    after: float
    penalty: float = 0.0


def scalar_chain(explanation):
    """The gradients of a chain of single units as products, the last layer's first; None for any other network."""
    chain = dense_chain(explanation)
    if chain is None or not _is_scalar(*chain):
        return None
    pairs, loss = chain
    head = [_loss_factor(loss)]
    products = []
    for dense, activation in links_back(pairs, loss):
        z, x = dense.output_symbols[0].latex, dense.input_symbols[0].latex
        if activation is not None:
            a = activation.output_symbols[0].latex
            local = formulas.local_derivative(activation) or ""
            head.append(Factor(derivative(a, z), local, _value(activation.local_derivative)))
        for name, formula, value in (("kernel", x, dense.inputs[0]), ("bias", "1", 1.0)):
            if name in dense.weight_gradients:
                symbol = dense.weight_symbols[name]
                factor = Factor(derivative(z, symbol.latex), formula, _value(value))
                gradient, before, after = (_value(part[name]) for part in _parts(dense))
                rest = penalty(explanation, dense, name)
                rest = 0.0 if rest is None else _value(rest)
                products.append(Product(symbol, [*head, factor], gradient + rest, before, after, rest))
        W = dense.weight_symbols["kernel"].latex
        head.append(Factor(derivative(z, x), W, _value(dense.weights["kernel"])))
    return products or None


def factors_of(products):
    """Every factor once, in the order in which the chain meets them."""
    return list(dict.fromkeys(factor for product in products for factor in product.factors))


def _is_scalar(pairs, loss):
    """Whether every factor is a number: single units, one example, elementwise activations."""
    activations = [activation for _, activation in links_back(pairs, loss) if activation is not None]
    return all(link.local_derivative is not None for link in activations) and all(scalar(dense) for dense, _ in pairs)


def _loss_factor(loss):
    """∂E/∂a, or ∂E/∂z where the loss is computed from the logits."""
    symbol = loss.input_symbols[-1].latex
    formula = error_formulas.loss_gradient(loss) or ""
    return Factor(derivative("E", symbol), formula, _value(loss.local_derivative))


def _parts(dense):
    return dense.weight_gradients, dense.weights, dense.updates


def _value(array):
    return float(array.item()) if hasattr(array, "item") else float(array)
