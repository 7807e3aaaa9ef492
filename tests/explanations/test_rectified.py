"""PReLU in a chain: its weight α, and what lies before it."""

import keras
import numpy as np
import pytest

from keras_backprop import explain
from keras_backprop.explanations.writing.notation import plain
from tests.explanations.networks import dense, stack

L = keras.layers
W, ALPHA, V = [[0.5, -1.0], [0.3, 0.8]], [0.25, 0.1], [[2.0], [-3.0]]
X = np.array([[1.0, 1.0], [-1.0, 0.5]])


@pytest.fixture(scope="module")
def explanation():
    layers = [dense(2, use_bias=False), L.PReLU(dtype="float64"), dense(1, use_bias=False)]
    return explain(
        stack(layers, (2,), [W, ALPHA, V], keras.losses.MeanSquaredError(dtype="float64")), X, np.zeros((2, 1))
    )


def test_paths_lead_to_the_weight_and_past_it(explanation):
    z = X @ np.array(W)
    a = np.where(z > 0, z, np.array(ALPHA) * z)
    da = (a @ np.array(V)) @ np.array(V).T  # 2·(a − 0)/2 examples
    slope = np.where(z > 0, 1.0, ALPHA)
    for name, right in (
        ("α1_1", (da * np.minimum(z, 0)).sum(0)[0]), ("alpha1_2", (da * np.minimum(z, 0)).sum(0)[1]),
        ("w1_12", (da * slope)[:, 1] @ X[:, 0]),
    ):  # fmt: skip
        chain = explanation.chain(name)
        assert chain.gradient == pytest.approx(right) == pytest.approx(sum(path.value for path in chain.paths))
        assert explanation.compare(f"d{name}", right).correct
    last = explanation.chain("α1_2", example=0).paths[0].factors[-1]
    assert plain(last.formula) == "min(0, z⁽¹⁾₂)" and last.value == z[0, 1]
    slope = explanation.chain("w1_12", example=0).paths[0].factors[-2]
    assert plain(slope.formula) == "[z⁽¹⁾₂ > 0] + α⁽¹⁾₂ · [z⁽¹⁾₂ < 0]"
    assert explanation.compare("∂a1_2/∂z1_2", 0.1, example=0).correct
    assert "∂E/∂α₁ = Σₙ ∂E/∂a₁ · min(0, z₁)" in explanation.to_text()


def test_a_sheet_calls_every_weight_by_its_name():
    layers = [dense(2, use_bias=False), L.PReLU(dtype="float64"), dense(1, use_bias=False)]
    model = stack(layers, (2,), [W, ALPHA, V], "mse")
    assert r"$\max(0, z^{(1)}_2) + \alpha^{(1)}_{2} \cdot \min(0, z^{(1)}_2)$" in explain(
        model, X[:1], np.zeros((1, 1))
    ).to_markdown(blank=["E"])


def test_a_weight_that_positions_share(float64):
    layers = [L.Conv1D(2, 2), L.PReLU(name="p", shared_axes=[1], alpha_initializer="ones"), L.Flatten(), L.Dense(1)]
    model = keras.Sequential([keras.Input((4, 1)), *layers])
    model.compile("sgd", "mse")
    explanation = explain(model, np.random.default_rng(0).normal(size=(2, 4, 1)), np.ones((2, 1)))
    assert not explanation.graph.opaque
    chain = explanation.chain("p/alpha", 0, 1)
    assert sum(path.value for path in chain.paths) == pytest.approx(chain.gradient) and len(chain.paths) == 6


def test_what_is_not_looked_into_is_no_product_of_itself():
    model = keras.Sequential([keras.Input((2, 3, 1)), L.ConvLSTM1D(1, 2, dropout=0.5), L.Flatten(), L.Dense(1)])
    model.compile("sgd", "mse")
    chain = explain(model, np.ones((1, 2, 3, 1)), np.ones((1, 1))).chain("conv_lstm_cell/bias", 0)
    assert "by the rule of a link that is not looked into" in chain.to_text()
    assert "by the rule of a link that is not looked into" in chain.to_markdown()
    assert chain.to_text().count("∂E/∂") == 1


@pytest.mark.parametrize("first", [[], [dense(2)], [dense(2), L.BatchNormalization(dtype="float64")]], ids=len)
def test_every_layer_has_a_weight_of_its_own(first):
    second = [L.PReLU(dtype="float64", alpha_initializer="ones", name="p2"), dense(1)]
    layers = [*first, L.PReLU(dtype="float64", alpha_initializer="ones", name="p1"), dense(2), *second]
    model = keras.Sequential([keras.Input((2,), dtype="float64"), *layers])
    model.compile("sgd", "mse")
    explanation = explain(model, X, np.ones((2, 1)))
    symbols = [str(weight.symbol) for weight in explanation.weights if "alpha" in weight.path]
    assert symbols == ["α₁", "α₂"]
    for number, layer in ((1, model.get_layer("p1")), (2, model.get_layer("p2"))):
        right = next(weight.gradient[0] for weight in explanation.weights if weight.path == layer.alpha.path)
        chain = explanation.chain(f"α{number}_1")
        assert chain.path == layer.alpha.path and sum(path.value for path in chain.paths) == pytest.approx(right)
        assert explanation.compare(f"∂E/∂α{number}_1", float(right)).correct
