"""The chain for a terminal."""

from keras_backprop.explain.notation import brief, columns, number, plain
from keras_backprop.explain.rows import backward_rows, forward_rows
from keras_backprop.explain.scalar_chain import factors_of, scalar_chain


def to_text(explanation):
    """Forward pass, backward pass, update, in aligned columns."""
    products = scalar_chain(explanation)
    parts = [headline(explanation), "", "Forward", *rows_text(forward_rows(explanation)), ""]
    if products:
        parts += ["The chain, factor by factor", *factors_text(products), ""]
        parts += ["The gradients, as products of these factors", *products_text(products)]
    else:
        parts += ["Backward, the last link first", *rows_text(backward_rows(explanation))]
    parts += ["", f"Update ({explanation.optimizer})", *update_text(explanation.weights)]
    return "\n".join(parts)


def headline(explanation):
    """One line: which model, how many examples, which error."""
    examples = "1 example" if explanation.examples == 1 else f"{explanation.examples} examples"
    return f"The chain of '{explanation.model}' for {examples}: E = {number(explanation.loss)}"


def rows_text(rows):
    """Lines `path  formula  value`; the path once for the rows of a link."""
    cells, previous = [], None
    for row in rows:
        cells.append(("" if row.path == previous else row.path, plain(row.formula), brief(row.value)))
        previous = row.path
    return columns(cells)


def factors_text(products):
    """Lines `factor = formula  value`."""
    return columns([(plain(f.name), "= " + plain(f.formula), number(f.value)) for f in factors_of(products)])


def products_text(products):
    """Lines `∂E/∂w₂ = 0.4653 · 0.2037 · 0.6023 = 0.0571`."""
    lines = []
    for product in products:
        factors = [number(f.value) if f.value >= 0 else f"({number(f.value)})" for f in product.factors]
        name = f"∂E/∂{product.symbol}"
        lines.append(f"  {name} = {' · '.join(factors)} = {number(product.gradient)}")
    return lines


def update_text(weights):
    """Lines `weight  path  before  gradient  after`."""
    cells = [("weight", "path", "before", "∂E/∂weight", "after")]
    for weight in weights:
        symbol = str(weight.symbol) if str(weight.symbol) != weight.path else ""
        gradient = "none" if weight.gradient is None else brief(weight.gradient, with_shape=False)
        cells.append((symbol, weight.path, brief(weight.value), gradient, brief(weight.updated, with_shape=False)))
    return columns(cells)
