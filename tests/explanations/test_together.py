"""∂E/∂a where the activation and the error are differentiated together: what a book's formula gives."""

import keras
import numpy as np
import pytest

from keras_backprop import explain
from keras_backprop.formula import LossFormula
from keras_backprop.formula_value import evaluate
from keras_backprop.rules.loss_formulas import LOSSES
from tests.explanations.networks import dense, stack

W = [[0.5, -0.3, 0.2], [0.1, 0.4, -0.6]]
X = np.array([[1.0, 2.0], [-1.0, 0.5]])
ONE_HOT = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


def loss_of(name, **options):
    return getattr(keras.losses, name)(dtype="float64", **options)


def predictions(name):
    z = X @ np.array(W)
    return 1 / (1 + np.exp(-z)) if name == "sigmoid" else np.exp(z) / np.exp(z).sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("activation", "loss", "targets", "expected"),
    [
        ("softmax", loss_of("CategoricalCrossentropy"), ONE_HOT, lambda T, a: -T / a / 2),
        ("softmax", loss_of("CategoricalCrossentropy", label_smoothing=0.1), ONE_HOT,
         lambda T, a: -(T * 0.9 + 0.1 / 3) / a / 2),
        ("softmax", loss_of("SparseCategoricalCrossentropy"), np.array([1, 0]), lambda T, a: -ONE_HOT / a / 2),
        ("sigmoid", loss_of("BinaryCrossentropy"), ONE_HOT, lambda T, a: ((1 - T) / (1 - a) - T / a) / 6),
    ],
)  # fmt: skip
def test_the_derivative_by_the_prediction(activation, loss, targets, expected):
    explanation = explain(stack([dense(3, activation, use_bias=False)], (2,), [W], loss), X, targets)
    a = predictions(activation)
    for example in (0, 1):
        for unit in range(3):
            right = expected(targets, a)[example, unit]
            for name in (f"∂E/∂a1_{unit + 1}", f"da1_{unit + 1}"):
                (one,) = explanation.compare(name, right, example=example)
                assert one.verdict == "exact" and one.expected == pytest.approx(right, abs=1e-9), str(one)
    assert explanation.compare("dW", explanation.weights[0].gradient).correct  # and nothing is counted twice


def test_a_probability_of_zero_has_no_such_derivative():
    explanation = explain(stack([dense(2, "softmax", use_bias=False)], (1,), [[[0.0, 2000.0]]],
                                loss_of("CategoricalCrossentropy")), np.array([[1.0]]), np.array([[1.0, 0.0]]))  # fmt: skip
    with pytest.raises(ValueError, match=r"differentiated together. Compare ∂E/∂z instead"):
        explanation.compare("∂E/∂a1_1", 0.5)
    assert explanation.compare("∂E/∂z1_1", -1.0).correct


def test_with_a_class_left_out_they_are_not_together():
    loss = loss_of("SparseCategoricalCrossentropy", ignore_class=2)
    explanation = explain(stack([dense(3, "softmax", use_bias=False)], (2,), [W], loss), X, np.array([1, 2]))
    assert "together" not in explanation.to_text()
    assert explanation.compare("∂E/∂a1_2", 1 - 1 / predictions("softmax")[0, 1], example=0).correct


def test_what_the_division_by_the_sum_adds_is_said():
    layers = [dense(3, "exponential", use_bias=False)]
    explanation = explain(stack(layers, (2,), [W], loss_of("CategoricalCrossentropy")), X[:1], ONE_HOT[:1])
    assert "Keras divides a by its sum" in explanation.to_text()
    (one,) = explanation.compare("∂E/∂a1_2", -1 / np.exp(X[0] @ np.array(W))[1])
    assert one.verdict == "mistake" and any("divides a by its sum" in sentence for sentence in one.mistakes)


def test_a_slope_that_is_shown_is_that_of_the_term_that_is_shown():
    random, step, found = np.random.default_rng(0), 1e-6, 0
    for cases in LOSSES.values():
        for formula in cases if isinstance(cases, tuple) else (cases,):
            if isinstance(formula, LossFormula) and formula.shown_slope:
                T, a = random.uniform(0.1, 1, (4, 3)), random.uniform(0.1, 0.9, (4, 3))
                values = {"T": T, "label_smoothing": 0.1}
                above, below = (evaluate(formula.shown, {**values, "a": a + s}) for s in (step, -step))
                slope = evaluate(formula.shown_slope, {**values, "a": a})
                assert np.allclose((above - below) / (2 * step), slope, rtol=1e-6)
                found += 1
    assert found == 3


def test_a_focal_error_is_not_a_minus_t():
    loss = loss_of("BinaryFocalCrossentropy")
    text = explain(stack([dense(3, "sigmoid", use_bias=False)], (2,), [W], loss), X, ONE_HOT).to_text()
    assert "together" not in text and "a − T" not in text


def test_a_rectifier_has_its_formula_in_a_network():
    layers = [dense(3, use_bias=False), keras.layers.ReLU(dtype="float64")]
    text = explain(stack(layers, (2,), [W], loss_of("MeanSquaredError")), X, ONE_HOT).to_text()
    assert "a₁ = max(0, z₁)" in text and "∂a₁/∂z₁ = [z₁ > 0]" in text
