"""`TimeDistributed`: examples first, and paths to the weights of the layer within, in every time step."""

import keras
import numpy as np
import pytest

from keras_backprop import explain
from tests.explanations.networks import dense

L = keras.layers


def around(*layers):
    return L.TimeDistributed(
        keras.Sequential(list(layers)) if len(layers) > 1 else layers[0], name="each", dtype="float64"
    )


def explained(layer, shape, *after, examples=2):
    random = np.random.default_rng(0)
    layers = [keras.Input(shape, dtype="float64"), layer, *(after or (f64(L.Flatten), dense(1)))]
    model = keras.Sequential(layers, name="net")
    model.set_weights([random.normal(size=np.shape(w)) for w in model.get_weights()])
    model.compile("sgd", keras.losses.MeanSquaredError(dtype="float64"))
    x = random.normal(size=(examples, *shape))
    return explain(model, x, np.zeros((examples, *model.output_shape[1:])))


def f64(kind, *arguments, **options):
    return kind(*arguments, dtype="float64", **options)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (around(dense(2, "tanh")), (3, 2)), (around(dense(3, "softmax")), (2, 2)), (around(dense(2, use_bias=False)), (1, 2)),
        (around(f64(L.Conv1D, 2, 2, padding="same")), (2, 3, 2)), (around(f64(L.SeparableConv1D, 2, 2)), (2, 3, 2)),
        (around(f64(L.LayerNormalization)), (2, 3)), (around(f64(L.GroupNormalization, 2)), (2, 2, 4)),
        (around(f64(L.Conv2D, 2, 2), f64(L.MaxPooling2D, 1), f64(L.Flatten), dense(2, "relu")), (2, 3, 3, 1)),
        (around(dense(2, "sigmoid"), f64(L.UnitNormalization), dense(2)), (2, 3)),
    ],
)  # fmt: skip
@pytest.mark.sample(4)
def test_paths_reach_every_weight(layer, shape):
    explanation = explained(keras.layers.deserialize(keras.layers.serialize(layer)), shape)
    graph = explanation.graph
    assert not graph.opaque and all(head.node.letter == "z" for head in graph.heads)
    for weight in explanation.weights:
        assert weight.path in {use.path for use in graph.uses}, weight
        index = tuple(n - 1 for n in weight.value.shape)
        chain = explanation.chain(weight.path, *index)
        assert sum(path.value for path in chain.paths) == pytest.approx(weight.gradient[index], rel=1e-9, abs=1e-12)
    for link in explanation.links:
        assert all(len(x) == 2 for x in (*link.inputs, *link.outputs) if np.ndim(x)), link
    assert "transpose" not in explanation.to_text() and explanation.to_markdown()


def test_what_comes_out_is_what_the_layer_gives():
    explanation = explained(around(dense(2, "tanh", name="inner")), (3, 2))
    link = explanation.link("inner")
    W, b = link.weights["kernel"], link.weights["bias"]
    np.testing.assert_allclose(link.outputs[0], link.inputs[0] @ W + b)
    assert link.shape == (2, 3, 2) and link.steps == 3
    assert explanation.chain("w1_12").paths[0].factors[-1].name.endswith(r"\partial w^{(1)}_{12}}")


def test_before_a_recurrent_layer():
    explanation = explained(around(dense(2)), (3, 1), f64(L.SimpleRNN, 1))
    assert not explanation.graph.opaque


def test_a_window_of_one_step_is_written_out():
    assert "first window, first channel, first time step" in explained(around(f64(L.Conv1D, 1, 2)), (2, 3, 1)).to_text()


def test_one_within_another_is_shown_as_it_ran():
    explanation = explained(around(around(dense(1))), (2, 3, 2))
    assert explanation.to_text() and explanation.weights[0].gradient is not None
    assert sum(path.value for path in explanation.chain("w1").paths) == pytest.approx(
        explanation.weights[0].gradient[0, 0]
    )
