"""What stands in an explanation for those who read every line: changes that show, sums that are named, names that are one."""

import re

import keras
import numpy as np
import pytest

from keras_backprop import explain

L = keras.layers


def explained(layers, shape, loss="mse", targets=None, weights=None, **compiled):
    model = keras.Sequential([keras.Input(shape), *layers], name="net")
    if weights is not None:
        model.set_weights([np.array(w) for w in weights])
    model.compile(compiled.get("optimizer", keras.optimizers.SGD(0.01)), loss)
    x = np.random.default_rng(0).normal(size=(1, *shape)).round(1)
    return explain(model, x, np.ones((1, *model.output_shape[1:])) if targets is None else targets)


def test_a_small_change_of_a_weight_shows():
    explanation = explained([L.Dense(1)], (1,), weights=[[[0.3]], [0.29]])
    change = float(explanation.weights[0].updated[0, 0]) - 0.3
    assert 0 < abs(change) < 0.01
    small = explained([L.Dense(1)], (1,), weights=[[[0.3]], [0.29]], optimizer=keras.optimizers.SGD(1e-5))
    line = next(line for line in small.to_text().splitlines() if "kernel" in line and "w" in line.split()[0])
    before, after = float(line.split()[2]), float(line.split()[-1])
    assert after - before == pytest.approx(float(small.weights[0].updated[0, 0]) - 0.3, rel=0.1)
    assert after != before and f"→ {after}" in small.chain("w1").to_text() and f"{after}" in small.to_markdown()
    asked = small.to_text(digits=4)
    assert re.search(r"w₁ +net/dense\w*/kernel +0\.3 +-0\.136 +0\.3\n", asked) and str(after) not in asked


def test_the_columns_of_gates_are_named_and_products_of_nothing_are_counted():
    text = explained([L.LSTM(2), L.Dense(1)], (2, 1)).to_text()
    assert re.search(r"columns of W, U, b:\s+i 1 to 2,\s+f 3 to 4,\s+g 5 to 6,\s+o 7 to 8", text)
    single = explained([L.LSTM(1), L.Dense(1)], (2, 1)).to_text()
    assert "+ 0 (5 products) = " in single and " · 0 · " not in single.split("weight by weight")[1].split("Update")[0]
    unbiased = explained([L.GRU(1, use_bias=False), L.Dense(1)], (2, 1)).to_text()
    assert re.search(r"columns of W, U:\s+u 1", unbiased)
    assert "columns" not in explained([L.SimpleRNN(1), L.Dense(1)], (2, 1)).to_text()


def test_a_bias_of_positions_is_summed_over_more_than_examples():
    text = explained([L.Conv1D(1, 2), L.Flatten(), L.Dense(1)], (4, 1)).to_text()
    assert "∂E/∂b₁ = Σ ∂E/∂z₁" in text
    assert "x·∂E/∂z₁ over the windows" in text


@pytest.mark.parametrize(
    ("layer", "shape", "over"),
    [
        (L.PReLU(), (3, 2), "Σₙ"), (L.PReLU(shared_axes=[1]), (3, 2), "Σ"), (L.PReLU(shared_axes=[1]), (2,), "Σ"),
        (L.LayerNormalization(axis=[1, 2]), (3, 2), "Σₙ"), (L.LayerNormalization(), (3, 2), "Σ"),
        (L.EinsumDense("abc,cd->abd", (3, 2), bias_axes="bd"), (3, 2), "Σₙ"),
        (L.EinsumDense("abc,cd->abd", (3, 2), bias_axes="d"), (3, 2), "Σ"),
    ],
)  # fmt: skip
def test_a_weight_with_a_value_for_every_position_is_summed_over_examples_only(layer, shape, over):
    text = explained([L.Dense(2), layer, *([L.Flatten()] if len(shape) > 1 else []), L.Dense(1)], shape).to_text()
    letter = {"PReLU": "α", "LayerNormalization": "γ", "EinsumDense": "b₂"}[type(layer).__name__]
    assert re.search(rf"∂E/∂{letter}.? = {over} ∂E/∂", text), text


def test_beside_a_convolution_weights_have_one_name():
    explanation = explained([L.Conv1D(1, 2), L.Flatten(), L.Dense(1)], (2, 1))
    assert "(w₁)" not in explanation.to_text()
    with pytest.raises(IndexError, match=r"W₁ .* has the shape \(2, 1, 1\)"):
        explanation.chain("w1")


def test_beside_the_projections_of_attention_the_others_are_counted():
    inputs = keras.Input((2, 2))
    h = L.Dense(1, name="first")(inputs)
    outputs = L.Dense(1, name="last")(L.Flatten()(L.MultiHeadAttention(1, 1)(h, h)))
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse")
    explanation = explain(model, np.ones((1, 2, 2)), np.ones((1, 1)))
    for name, found in (("w2", ("first/kernel", (1, 0))), ("w4", ("last/kernel", (1, 0)))):
        chain = explanation.chain(name)
        assert (chain.path, chain.index) == found


def test_the_factor_of_a_maximum_says_of_which_number():
    explanation = explained([L.Conv1D(1, 1), L.MaxPooling1D(2), L.Flatten(), L.Dense(1)], (2, 1))
    assert re.search(r"= \[z⁽¹⁾.,₁ = y⁽¹⁾₁,₁\] +1", explanation.chain("b1").to_text())


def test_one_of_two_inputs_has_its_number_above():
    a, b = keras.Input((1,), name="a"), keras.Input((2,), name="b")
    model = keras.Model([a, b], L.Dense(1)(L.Concatenate()([a, b])))
    model.compile("sgd", "mse")
    explanation = explain(model, [np.ones((1, 1)), np.ones((1, 2))], np.ones((1, 1)))
    assert "= x⁽¹⁾₁ " in explanation.chain("w1_11").to_text() and "= x⁽²⁾₂ " in explanation.chain("w1_31").to_text()


def test_only_letters_that_stand_in_an_optimizer_have_numbers():
    momentum = explained([L.Dense(1)], (1,), optimizer=keras.optimizers.SGD(0.1, momentum=0.9)).to_text()
    assert "with η = 0.1, μ = 0.9" in momentum
    assert "t = 1" in explained([L.Dense(1)], (1,), optimizer="adam").to_text()
