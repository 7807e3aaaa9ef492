"""The chain in a terminal."""

import re

import keras
import numpy as np
import pytest

from keras_backprop import explain
from keras_backprop.losses import HalfSquaredError
from tests.explanations.networks import chain, residual, worked_example

WORKED_EXAMPLE = """\
The chain of 'note' for 1 example: E = 0.1082

Forward
  note/hidden               z₁ = x · w₁ + b₁      0.415
  note/hidden/sigmoid       a₁ = σ(z₁)            0.6023
  note/output               z₂ = a₁ · w₂ + b₂     0.9210
  note/output/sigmoid       a₂ = σ(z₂)            0.7153
  half_mean_squared_error   E = 1/2 · (T − a₂)²   0.1082

The chain, factor by factor
  ∂E/∂a₂    = −(T − a₂)    0.4653
  ∂a₂/∂z₂   = a₂(1 − a₂)   0.2037
  ∂z₂/∂w₂   = a₁           0.6023
  ∂z₂/∂b₂   = 1            1
  ∂z₂/∂a₁   = w₂           0.45
  ∂a₁/∂z₁   = a₁(1 − a₁)   0.2395
  ∂z₁/∂w₁   = x            0.1
  ∂z₁/∂b₁   = 1            1

The gradients, as products of these factors
  ∂E/∂w₂ = 0.4653 · 0.2037 · 0.6023 = 0.0571
  ∂E/∂b₂ = 0.4653 · 0.2037 · 1 = 0.0948
  ∂E/∂w₁ = 0.4653 · 0.2037 · 0.45 · 0.2395 · 0.1 = 0.00102
  ∂E/∂b₁ = 0.4653 · 0.2037 · 0.45 · 0.2395 · 1 = 0.0102

Update (SGD, learning rate 0.4): w ← w − η · g
  weight   path                 before   ∂E/∂weight   after
  w₁       note/hidden/kernel   0.15     0.00102      0.1496
  b₁       note/hidden/bias     0.4      0.0102       0.3959
  w₂       note/output/kernel   0.45     0.0571       0.4272
  b₂       note/output/bias     0.65     0.0948       0.6121"""


def test_the_worked_example():
    assert explain(*worked_example()).to_text() == WORKED_EXAMPLE


def test_a_network_with_branches():
    text = explain(*residual()).to_text()
    assert "classes   " in text and "1/16 · (a₄ − one hot T)" in text.replace("₅", "₄")
    assert text.count("∂E/∂W₂ +=") == 4  # three uses and the penalty
    assert "E = 1/16 · Σ e₁ + R₁" in text


def test_large_tensors_do_not_drown_the_reader():
    text = explain(*chain(300, 200, 100, examples=50)).to_text()
    assert "(300×200) ‖·‖" in text
    assert max(map(len, text.splitlines())) < 180
    assert max(len(re.findall(r"\d\.\d", line)) for line in text.splitlines()) <= 12


def test_columns_are_aligned():
    lines = explain(*worked_example()).to_text().splitlines()[3:8]
    assert len({line.index(" = ") - len(line.split(" = ")[0].split()[-1]) for line in lines}) == 1


def test_the_coefficient_of_a_mean_is_a_fraction():
    assert "∂E/∂z₂ = 1/32 · (a₂ − T)" in explain(*chain(5, 4, 1, loss="binary_crossentropy", examples=32)).to_text()


def test_outputs_that_nothing_depends_on_are_not_listed():
    layers = [keras.Input((4, 3)), keras.layers.LSTM(5, name="lstm"), keras.layers.Dense(1)]
    model = keras.Sequential(layers)
    model.compile("sgd", "mse")
    text = explain(model, np.ones((2, 4, 3)), np.ones((2, 1))).to_text()
    assert text.count("= LSTM(x)") == 1 and "∂E/∂W₁ = Σₜ xₜᵀ δₜ" in text


def test_optimizers_are_written_line_by_line_with_their_state():
    text = explain(*worked_example(optimizer=keras.optimizers.Adam(0.1))).to_text()
    for line in ("m ← β₁ · m + (1 − β₁) · g", "w ← w − (d · m)/(√v + ε)", "β₂ = 0.999", "of w₂: m 0 → 0.00571"):
        assert line in text
    assert "m ← μ · m − η · g" in explain(*worked_example(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))).to_text()


def test_digits_one_example_and_some_units():
    model, x, y = chain(2, 3, 2, examples=3)
    explanation = explain(model, x, y)
    text = explanation.to_text(digits=8, example=1, units=[0])
    hidden = explanation.links[0]
    assert f"{hidden.z[1, 0]:.8f}".rstrip("0") in text and f"{hidden.z[0, 0]:.8f}" not in text
    assert "of which example 2 is shown" in text
    with pytest.raises(IndexError, match="`example` must be from 0 to 2"):
        explanation.to_text(example=3)
    with pytest.raises(TypeError, match="`units` must be a list of whole numbers"):
        explanation.to_text(units=["z"])
    with pytest.raises(ValueError, match="`digits` must be a whole number"):
        explanation.to_text(digits="many")


@pytest.mark.parametrize("examples", [1, 3, 5, 6, 10])
def test_the_number_of_examples_is_in_the_error(examples):
    text = explain(*chain(2, 2, 1, examples=examples, loss=keras.losses.MeanSquaredError())).to_text()
    assert ("E = (T − a₂)²" if examples == 1 else f"E = 1/{examples} · Σ (T − a₂)²") in text
    model, x, y = chain(2, 2, 1, examples=examples, loss=HalfSquaredError())
    text = explain(model, x, y).to_text()
    assert ("E = 1/2 · (T − a₂)²" if examples == 1 else f"E = 1/(2 · {examples}) · Σ (T − a₂)²") in text


def test_what_happens_inside_layers():
    layers = keras.layers
    stack = [layers.Conv1D(1, 2, name="conv"), layers.MaxPooling1D(2, name="pool"), layers.Flatten(), layers.Dense(1)]
    model = keras.Sequential([keras.Input((5, 1)), *stack], name="cnn")
    model.compile("sgd", "mse")
    model.set_weights([np.array([[[0.5]], [[-0.25]]]), np.array([0.1]), np.ones((2, 1)), np.zeros(1)])
    text = explain(model, np.array([[[1.0], [2.0], [3.0], [4.0], [5.0]]]), np.ones((1, 1))).to_text()
    assert "1·0.5 + 2·(-0.25) + 0.1 = 0.1" in text and "largest of 0.1, 0.35 = 0.35" in text
    assert "z₁ = window(x) W₁ + b₁" in text and "window(x)ᵀ" in text


def test_softmax_and_cross_entropy_with_a_sentence():
    text = explain(*chain(2, 3, 2, last="softmax", loss="categorical_crossentropy")).to_text()
    assert "E = −Σ T · log(a₂)" in text and "∂E/∂z₂ = a₂ − T" in text and "there is no factor ∂a/∂z besides" in text


def test_a_recurrent_layer_step_by_step():
    model = keras.Sequential([keras.Input((3, 1)), keras.layers.GRU(1, name="gru"), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    text = explain(model, np.ones((1, 3, 1)), np.ones((1, 1))).to_text()
    for name in ("u₁", "r₂", "g₃", "h₃", "∂E/∂h₁"):
        assert name in text
    for line in (
        "uₜ = σ(pᵘₜ + qᵘₜ)",
        "hₜ = uₜ ⊙ hₜ₋₁ + (1 − uₜ) ⊙ gₜ",
        "∂E/∂hₜ₋₁ = ∂E/∂hₜ ⊙ uₜ + δ′ₜ Uᵀ",
        "∂E/∂U = Σₜ hₜ₋₁ᵀ δ′ₜ",
    ):
        assert line in text


def test_four_examples_are_written_out_and_their_weights_are_in_the_formulas():
    model, x, y = chain(2, 3, 1, examples=4)
    text = explain(model, x, y, np.array([1.0, 2, 3, 4])).to_text()
    assert "‖·‖" not in text.split("Backward")[0]
    assert "E = Σₙ cₙ · (T − a₂)²" in text and "∂E/∂a₂ = −2 · cₙ · (T − a₂)" in text


def test_where_float16_overflows_it_says_so():
    layers = [
        keras.Input((2,)),
        keras.layers.Dense(2, "tanh", name="half", dtype="mixed_float16"),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential(layers, name="scaled")
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)), "mse")
    ordinary, large = (explain(model, np.ones((1, 2)), np.full((1, 1), target)).to_text() for target in (0.5, 1e4))
    assert "inf" not in ordinary
    assert "From 'scaled/half/tanh' on gradients are inf or NaN. The largest float16 is 65504." in large
    assert "multiplied by the loss scale 32768" in " ".join(large.split()) and "(overflowed: " in large


def test_an_activation_of_ones_own_is_written_out():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, lambda z: keras.ops.sin(z) + z * z)], name="own")
    model.compile("sgd", lambda y_true, y_pred: keras.ops.mean((y_true - y_pred) ** 4, -1))
    explanation = explain(model, np.full((1, 2), 0.5), np.full((1, 1), 0.3))
    text = explanation.to_text()
    for line in ("= z₁ · z₁", "= sin(z₁)", "∂y₁/∂z₁ = cos(z₁)", "∂E/∂z₁ += ∂E/∂y₂ · z₁", "T   0.3"):
        assert line in text
    chain = explanation.chain("W1", 0, 0)
    assert len(chain.paths) == 3 and sum(path.value for path in chain.paths) == pytest.approx(chain.gradient)


def test_several_errors_and_penalties_are_written_out():
    x = keras.Input((2,))
    outputs = [
        keras.layers.Dense(1, kernel_regularizer="l1", name="a")(x),
        keras.layers.Dense(2, "softmax", name="b")(x),
    ]
    model = keras.Model(x, outputs)
    model.compile("sgd", ["mse", "categorical_crossentropy"], loss_weights=[1.0, 0.5])
    text = explain(model, np.ones((3, 2)), [np.ones((3, 1)), np.eye(2)[[0, 1, 0]]]).to_text()
    assert "e₁ = (T₁ − z" in text and "e₂ = −Σ T₂ · log(a" in text and "R₁ = 0.01 · Σ |W" in text
    assert "E = 1/3 · Σ e₁ + 1/6 · Σ e₂ + R₁" in text


def test_a_frozen_layer_is_counted_where_it_stands():
    layers = [keras.layers.Dense(2, "tanh", trainable=False, name="held"), keras.layers.Dense(1, name="last")]
    model = keras.Sequential([keras.Input((2,)), *layers], name="net")
    model.compile("sgd", "mse")
    explanation = explain(model, np.ones((1, 2)), np.ones((1, 1)))
    assert explanation.chain("w5").path == "net/last/kernel" and explanation.chain("w1").path == "net/held/kernel"
    assert "is frozen: its gradient is not computed" in explanation.chain("w1").to_text()
    with pytest.raises(ValueError, match="is frozen"):
        explanation.compare("dw1", 0.1)


def test_the_mask_of_dropout_where_nothing_came_in():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    text = explain(model, np.array([[0.0, 1.0, 0.0, 2.0]]), np.ones((1, 1))).to_text()
    line = next(line for line in text.splitlines() if "mask m" in line)
    assert set(line.split("rate))")[1].split()) <= {"0", "2"}


def test_weights_of_examples_are_in_the_formula():
    model, x, y = chain(2, 1, examples=2)
    explanation = explain(model, x, y, sample_weight=np.array([1.0, 3.0]))
    text = explanation.to_text()
    assert "∂E/∂a₁ = −2 · cₙ · (T − a₁)" in text and "enters E: [0.5 1.5]" in text
    loss = next(link for link in explanation.links if link.kind == "loss")
    given = -2 * np.array([[0.5], [1.5]]) * (y - loss.inputs[1])
    np.testing.assert_allclose(loss.downstream[1], given, rtol=1e-5)


def test_what_is_more_than_a_sum_of_errors_is_not_called_one():
    class Squared(keras.Model):
        def compute_loss(self, *arguments, **named):
            return super().compute_loss(*arguments, **named) ** 2

    inputs = keras.Input((2,))
    model = Squared(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    text = explain(model, np.ones((2, 2)), np.ones((2, 1))).to_text()
    assert "e₁ = (T − z₁)²" in text and "E = what is made of all errors and penalties" in text


def test_the_formulas_of_layers_alike_stand_once():
    both = keras.layers.Bidirectional(keras.layers.LSTM(1, name="lstm"), name="bidirectional")
    model = keras.Sequential([keras.Input((3, 1)), both, keras.layers.Dense(1)], name="both")
    model.compile("sgd", "mse")
    text = explain(model, np.ones((1, 3, 1)), np.ones((1, 1))).to_text()
    assert text.count("cₜ = fₜ ⊙ cₜ₋₁ + iₜ ⊙ gₜ") == 1 and "as               both/bidirectional/forward_lstm" in text


def test_recurrent_layers_on_top_of_each_other():
    layers = [keras.layers.SimpleRNN(2, return_sequences=True), keras.layers.GRU(1, return_sequences=True)]
    model = keras.Sequential([keras.Input((3, 1)), *layers, keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    explanation = explain(model, np.ones((1, 3, 1)), np.ones((1, 1)))
    chain_of = explanation.chain("W2", 0, 0)
    assert sum(path.value for path in chain_of.paths) == pytest.approx(chain_of.gradient, rel=1e-3)


def test_attention_as_books_write_it():
    inputs = keras.Input((2, 3))
    x = keras.layers.MultiHeadAttention(1, 2, name="first")(inputs, inputs)
    x = keras.layers.MultiHeadAttention(1, 2, name="second")(x, x)
    model = keras.Model(inputs, x)
    model.compile("sgd", "mse")
    explanation = explain(model, np.random.default_rng(0).normal(size=(1, 2, 3)), np.ones((1, 2, 3)))
    text = explanation.to_text()
    assert "Q₁ = x W⁽¹⁾_Q + b⁽¹⁾_Q" in text and "P = softmax(0.7071 · Q₂ K₂ᵀ)" in text and "∂E/∂W⁽²⁾_O = " in text
    chain = explanation.chain("W⁽²⁾_Q", 0, 0, 1)
    assert chain.path == "second/query/kernel" and explanation.chain("W2_Q[0, 0, 1]").gradient == chain.gradient
    assert explanation.compare("dW2_Q", explanation.weight("second/query/kernel").gradient)[0].verdict == "exact"


@pytest.mark.parametrize(
    ("loss", "targets"),
    [("dice", [[1.0, 0]]), ("tversky", [[1.0, 0]]), ("circle", [1, 1, 0]), ("ctc", [[1]]),
     (keras.losses.CategoricalGeneralizedCrossEntropy(), [1])],
)  # fmt: skip
def test_losses_of_which_only_few_courses_tell(loss, targets):
    shape = (4, 2) if loss == "ctc" else (2,)
    model = keras.Sequential([keras.Input(shape), keras.layers.Dense(2, None if loss == "ctc" else "softmax")])
    model.compile("sgd", loss)
    x = np.random.default_rng(0).normal(size=(len(targets), *shape))
    text = explain(model, x, np.array(targets)).to_text()
    assert "by the rule" not in text and "E = " in text
