"""Paths through convolutional recurrent layers, position by position and step by step."""

import keras
import numpy as np
import pytest

from keras_backprop import explain
from keras_backprop.explanations.writing.notation import plain
from tests.explanations.networks import dense

L = keras.layers


def explained(layer, shape):
    random = np.random.default_rng(0)
    model = keras.Sequential(
        [keras.Input(shape, dtype="float64"), layer, L.Flatten(dtype="float64"), dense(1)], name="net"
    )
    model.set_weights([random.normal(size=np.shape(w)) for w in model.get_weights()])
    model.compile("sgd", keras.losses.MeanSquaredError(dtype="float64"))
    return explain(model, random.normal(size=(2, *shape)), np.ones((2, 1)))


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("made", "shape"),
    [
        (lambda: L.ConvLSTM1D(1, 2, dtype="float64"), (2, 3, 1)),
        (lambda: L.ConvLSTM1D(2, 2, return_sequences=True, padding="same", dtype="float64"), (2, 3, 2)),
        (lambda: L.ConvLSTM2D(2, 2, strides=2, use_bias=False, dtype="float64"), (3, 4, 4, 1)),
        (lambda: L.ConvLSTM1D(2, 2, dilation_rate=2, dtype="float64"), (2, 5, 2)),
        (lambda: L.ConvLSTM2D(1, 2, go_backwards=True, recurrent_activation="hard_sigmoid", dtype="float64"), (2, 3, 3, 1)),
        (lambda: L.ConvLSTM3D(1, 1, dtype="float64"), (2, 2, 2, 2, 1)),
    ],
)  # fmt: skip
def test_paths_reach_every_weight(made, shape):
    explanation = explained(made(), shape)
    graph = explanation.graph
    assert not graph.opaque and len(graph.heads) == 1
    for weight in explanation.weights:
        np.testing.assert_allclose(graph.gradient_of(weight.path), weight.gradient, rtol=1e-9, atol=1e-12)


def test_names_say_the_step_and_the_place():
    explanation = explained(L.ConvLSTM1D(1, 2, name="memory", dtype="float64"), (2, 3, 1))
    chain = explanation.chain("w1_1,1,1", example=0)
    assert sum(path.value for path in explanation.chain("w1_1,1,1").paths) == pytest.approx(
        float(explanation.weight("W₁").gradient[0, 0, 0])
    )
    formulas = {plain(f.name): plain(f.formula) for f in chain.factors}
    assert formulas["∂h₂,₁,₁/∂k₂,₁,₁"] == "o₂,₁,₁" and formulas["∂zⁱ₁,₂,₁/∂w⁽¹⁾₁,₁,₁"] == "x₁,₂,₁"
    assert explanation.compare("h2_1,1", float(explanation.link("memory").outputs[0][0, 0, 0]), example=0).correct


def test_what_is_too_large_ends_the_paths():
    explanation = explained(L.ConvLSTM2D(8, 3, dtype="float64"), (2, 8, 8, 4))
    assert "conv_lstm" in str(list(explanation.graph.opaque))
