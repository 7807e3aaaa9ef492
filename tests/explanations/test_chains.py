"""The long products of a chain of dense layers: their factors multiply to the gradients."""

import math

import keras
import numpy as np
import pytest

from keras_backprop import explain
from keras_backprop.explanations.drawing import neurons
from keras_backprop.explanations.writing.matrix_chain import dense_chain, matrix_chain
from keras_backprop.explanations.writing.notation import plain
from keras_backprop.explanations.writing.scalar_chain import factors_of, scalar_chain
from tests.explanations.networks import by_hand, chain, residual, worked_example


@pytest.mark.usefixtures("float64")
def test_the_factors_of_the_worked_example():
    products, hand = scalar_chain(explain(*worked_example())), by_hand()
    expected = [
        ("∂E/∂a₂", "−(T − a₂)", hand.dE_da2), ("∂a₂/∂z₂", "a₂(1 − a₂)", hand.da2_dz2), ("∂z₂/∂w₂", "a₁", hand.a1),
        ("∂z₂/∂b₂", "1", 1), ("∂z₂/∂a₁", "w₂", 0.45), ("∂a₁/∂z₁", "a₁(1 − a₁)", hand.da1_dz1), ("∂z₁/∂w₁", "x", 0.1),
        ("∂z₁/∂b₁", "1", 1),
    ]  # fmt: skip
    factors = factors_of(products)
    assert [(plain(f.name), plain(f.formula)) for f in factors] == [row[:2] for row in expected]
    np.testing.assert_allclose([f.value for f in factors], [row[2] for row in expected], rtol=0, atol=1e-12)
    assert [str(p.symbol) for p in products] == ["w₂", "b₂", "w₁", "b₁"]


@pytest.mark.parametrize("loss", ["mse", "binary_crossentropy", "half", "mae", "huber"])
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "softplus", "silu", "elu", None])
def test_the_product_of_the_factors_is_the_gradient(loss, activation):
    if loss == "half":
        loss = worked_example()[0].loss
    model, x, y = chain(1, 1, 1, 1, activation=activation, last="sigmoid", loss=loss)
    products = scalar_chain(explain(model, x, y))
    assert len(products) == 6
    for product in products:
        assert math.prod(f.value for f in product.factors) == pytest.approx(product.gradient, rel=1e-4, abs=1e-9)


@pytest.mark.usefixtures("float64")
def test_what_is_no_chain_of_single_units():
    assert scalar_chain(explain(*chain(1, 2, 1))) is None
    assert scalar_chain(explain(*chain(1, 1, 1, examples=2))) is None


@pytest.mark.usefixtures("float64")
def test_a_penalty_is_added_to_the_product():
    explanation = explain(*worked_example(kernel_regularizer="l2"))
    products = {str(p.symbol): p for p in scalar_chain(explanation)}
    assert products["w₁"].penalty == pytest.approx(2 * 0.01 * 0.15) and products["w₂"].penalty == 0
    assert products["w₁"].gradient == pytest.approx(by_hand().dw1 + 0.003)
    assert "0.1 + 0.003 (penalty) = 0.004" in explanation.to_text()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("loss", [lambda t, a: keras.ops.mean((t - a) ** 4, -1), "half"])
def test_an_error_and_a_penalty_of_ones_own(loss):
    def cubed(w):
        return 0.1 * keras.ops.sum(keras.ops.abs(w) ** 3)

    explanation = explain(*worked_example(loss=None if loss == "half" else loss, kernel_regularizer=cubed))
    text = explanation.to_text()
    assert "The chain, factor by factor" in text and "Subtract" not in text and "(penalty)" in text
    total = sum(path.value for path in explanation.chain("w1").paths)
    assert total == pytest.approx(explanation.weight("w1").gradient.item())
    assert neurons.fits(explanation)


def test_a_network_with_branches_is_no_chain():
    assert dense_chain(explain(*residual())) is None


def test_a_shared_layer_is_no_chain():
    dense = keras.layers.Dense(1, "tanh")
    inputs = keras.Input((1,))
    model = keras.Model(inputs, dense(dense(inputs)))
    model.compile("sgd", "mse")
    assert dense_chain(explain(model, [[0.5]], [[1.0]])) is None


def test_the_product_of_matrices_is_the_gradient():
    model, x, y = chain(2, 3, 2, examples=2)
    explanation = explain(model, x, y)
    products = {str(p.symbol): p for p in matrix_chain(explanation)}
    assert list(products) == ["W₂", "b₂", "W₁", "b₁"]
    hidden, tanh, output, sigmoid, error = explanation.links
    delta2 = error.local_derivative * sigmoid.local_derivative
    delta1 = delta2 @ output.weights["kernel"].T * tanh.local_derivative
    np.testing.assert_allclose(products["W₂"].gradient, tanh.a.T @ delta2, rtol=1e-5)
    np.testing.assert_allclose(products["W₁"].gradient, hidden.inputs[0].T @ delta1, rtol=1e-5)
    np.testing.assert_allclose(products["b₁"].gradient, delta1.sum(0), rtol=1e-5)
    formula = "xᵀ ((−1/2 · (T − a₂) ⊙ a₂(1 − a₂)) W₂ᵀ ⊙ (1 − a₁²))"
    assert plain(products["W₁"].formula) == formula
    assert products["W₁"].numbers.count("pmatrix") == 2 * 5  # x, ∂E/∂a₂, two local derivatives, W₂


def test_large_matrices_are_not_written_out():
    assert matrix_chain(explain(*chain(2, 5, 1))) is None
    assert matrix_chain(explain(*chain(2, 3, 1, examples=5))) is None


def test_a_cross_entropy_skips_the_activation_it_was_differentiated_with():
    explanation = explain(*chain(2, 3, 2, last="softmax", loss="categorical_crossentropy"))
    product = matrix_chain(explanation)[0]
    assert plain(product.formula) == "a₁ᵀ (a₂ − T)"
    error = explanation.links[-1]
    np.testing.assert_allclose(error.local_derivative, error.inputs[1] - error.inputs[0], rtol=1e-4, atol=1e-6)


def test_a_softmax_under_another_loss_has_no_elementwise_derivative():
    explanation = explain(*chain(2, 3, 2, last="softmax", loss="mse"))
    assert matrix_chain(explanation) is None
    assert "∂E/∂z₂ = a₂(∂E/∂a₂ − Σ a₂ · ∂E/∂a₂)" in explanation.to_text()
