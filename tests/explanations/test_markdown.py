"""The chain in LaTeX formulas."""

import re

import keras
import numpy as np
import pytest
from matplotlib.mathtext import MathTextParser

from keras_backprop import explain
from keras_backprop.explanations.writing.breaking import broken, visible
from tests.explanations.networks import chain, residual, worked_example


def on_one_line(text):
    """Without the breaks of long formulas."""
    return re.sub(r" ?\\\\\n&(?:\\quad )?", " ", text).replace("&= ", "= ")


def test_a_long_product_is_broken():
    text = explain(*chain(1, 1, 1, 1, 1, 1, 1)).to_markdown()
    formulas = re.findall(r"\$\$\n(.*?)\n\$\$", text, re.DOTALL)
    lines = [line.replace("&", "") for formula in formulas for line in formula.split("\n")]
    assert max(map(visible, lines)) <= 64 + 1  # a backslash is left at the end of a line
    assert r"\frac{\partial E}{\partial w_1} = " in on_one_line(text) and text.count(r"&\quad \cdot") > 4


def test_breaks_stand_outside_brackets():
    product = r" \cdot ".join([r"\left(a + b\right)", r"\frac{x + 1}{2 \cdot y}", "c(1 - c)", r"1.2\cdot 10^{-3}"] * 3)
    parts = broken(product, 24)
    assert " ".join(parts) == product and len(parts) > 3
    assert all(part.count("(") == part.count(")") and part.count("{") == part.count("}") for part in parts)
    assert all(part.startswith(r"\cdot ") for part in parts[1:])


def test_the_worked_example():
    text = explain(*worked_example()).to_markdown()
    for formula in (
        r"\frac{\partial E}{\partial w_2} = -(T - a_2) \cdot a_2(1 - a_2) \cdot a_1 "
        r"= 0.4653 \cdot 0.2037 \cdot 0.6023 = 0.0571",
        r"\frac{\partial E}{\partial b_2} = -(T - a_2) \cdot a_2(1 - a_2) \cdot 1 = 0.4653 \cdot 0.2037 \cdot 1 = 0.0948",
        r"\frac{\partial E}{\partial w_1} = -(T - a_2) \cdot a_2(1 - a_2) \cdot w_2 \cdot a_1(1 - a_1) \cdot x "
        r"= 0.4653 \cdot 0.2037 \cdot 0.45 \cdot 0.2395 \cdot 0.1 = 0.00102",
        r"\frac{\partial E}{\partial b_1} = -(T - a_2) \cdot a_2(1 - a_2) \cdot w_2 \cdot a_1(1 - a_1) \cdot 1 "
        r"= 0.4653 \cdot 0.2037 \cdot 0.45 \cdot 0.2395 \cdot 1 = 0.0102",
    ):
        assert formula in on_one_line(text)
    assert "| $w_2$ | `note/output/kernel` | $0.45$ | $0.0571$ | $0.4272$ |" in text


def test_small_matrices_are_put_in():
    text = explain(*chain(2, 3, 1, examples=2)).to_markdown()
    assert text.count("$$\n") == 2 * 5  # the gradients of four weights, and the update
    assert r"\frac{\partial E}{\partial W_2} &= a_1^\top \left(-(T - a_2) \odot a_2(1 - a_2)\right)" in text


def test_large_matrices_by_shape_and_norm():
    text = explain(*residual()).to_markdown()
    assert r"$\frac{\partial E}{\partial W_2} \mathrel{+}= " in text
    assert re.search(r"\| \(16×8\) ‖·‖ \d", text)


def unusual():
    """Attention, recurrent layers without and with gates, a loss of directions: formulas with norms, gates and several exponents."""
    layers = keras.layers
    x = keras.Input((3, 2))
    h = layers.GRU(1, reset_after=False, return_sequences=True)(layers.LSTM(2, return_sequences=True)(x))
    h = layers.Flatten()(layers.MultiHeadAttention(1, 1)(h, h))
    model = keras.Model(x, layers.Dense(2)(layers.UnitNormalization()(layers.LayerNormalization()(h))))
    model.compile("adafactor", keras.losses.CosineSimilarity())
    random = np.random.default_rng(0)
    return model, random.normal(size=(2, 3, 2)), random.normal(size=(2, 2))


@pytest.mark.parametrize("network", [unusual, worked_example, residual, lambda: chain(2, 3, 1, examples=2)])
def test_every_formula_is_well_formed(network):
    text = explain(*network()).to_markdown()
    formulas = re.findall(r"\$\$\n(.+?)\n\$\$", text) + re.findall(r"\$([^$\n]+)\$", text)
    assert len(formulas) > 20
    parser = MathTextParser("agg")
    for formula in formulas:
        assert formula.count("{") == formula.count("}"), formula
        assert len(re.findall(r"\\left\b", formula)) == len(re.findall(r"\\right\b", formula)), formula
        assert formula.count(r"\begin{pmatrix}") == formula.count(r"\end{pmatrix}"), formula
        if "pmatrix" not in formula:
            simple = formula.replace(r"\mathrel{+}=", "+=").replace(r"\text{", r"\mathrm{")
            parser.parse(f"${simple}$")  # raises where it is not LaTeX


def test_every_table_has_as_many_cells_as_its_head():
    for table in re.findall(r"(?:^\|.*\n)+", explain(*residual()).to_markdown(), re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
