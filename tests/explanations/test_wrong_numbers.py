"""A number that is wrong is judged in every network, and what a mistake would have given is right."""

import keras
import numpy as np
import pytest

from keras_backprop import explain
from keras_backprop.explanations.comparing.mistakes import Mistakes
from keras_backprop.explanations.comparing.spelling import Spelling
from tests.explanations.test_positions import NETWORKS, Own, behind, dense, explained, layer, network

SHAPES = [
    (behind("LSTM", 1), (2, 4)), (behind("GRU", 1), (2, 3)), (behind("LayerNormalization", axis=[1, 2]), (2, 2)),
    (behind("EinsumDense", "abc,cd->ad", output_shape=2), (2, 2)),
    (behind("EinsumDense", "ab,bcd->acd", output_shape=(2, 3), bias_axes="cd"), (2,)), (behind("LayerNormalization", axis=[1, 2]), (2, 3)),
]  # fmt: skip
"""Weights that are square and matrices that are not, and the other way round; biases of two axes."""


def judged(build, shape):
    explanation = explained(build, shape)
    given = {
        f"d{weight.path}[{','.join(map(str, index))}]": (weight.gradient[index] + 0.0123, weight.gradient[index])
        for weight in explanation.weights
        for index in {(0,) * weight.value.ndim, tuple(n - 1 for n in weight.value.shape)}
    }
    found = explanation.compare({name: wrong for name, (wrong, _) in given.items()})
    for one, (_, right) in zip(found, given.values(), strict=True):
        assert not one.correct and one.expected == pytest.approx(right), str(one)


@pytest.mark.sample(8)
@pytest.mark.parametrize(("build", "shape"), NETWORKS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_wrong_gradient_of_every_weight_is_judged(build, shape):
    judged(build, shape)


@pytest.mark.parametrize(("build", "shape"), SHAPES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_wrong_gradient_is_judged_where_weight_and_matrix_differ_in_shape(build, shape):
    judged(build, shape)


def with_biases(build, shape):
    """The explanation of a network whose biases are not 0, and its inputs as an array."""
    keras.utils.set_random_seed(1)
    model, random = network(build, shape), np.random.default_rng(0)
    for variable in model.variables:
        if variable.name in ("bias", "beta", "shift"):
            variable.assign(random.normal(size=variable.shape))
    model.compile("sgd", keras.losses.MeanSquaredError(dtype="float64"))
    x = random.normal(size=(2, *shape))
    return explain(model, x, np.full((2, *model.output_shape[1:]), 0.5)), x


def after(explanation, sentence):
    """The graph after a mistake in the forward pass."""
    mistakes = Mistakes(explanation, Spelling(explanation, explanation.graph))
    (graph,) = [graph for said, graph in mistakes.of_gradients() if said.startswith(sentence)]
    return graph


def frozen(x):
    return dense(1)(layer("BatchNormalization", scale=False, trainable=False)(x))


def own(x):
    return dense(1)(Own(False)(x))


def folded(x):
    inside = layer("TimeDistributed", layer("Dense", 2))(dense(2, "tanh")(x))
    return dense(1)(layer("Flatten")(inside))


def test_paths_end_where_positions_are_taken_for_examples():
    """TimeDistributed makes rows of the positions of all examples."""
    judged(folded, (3, 2))
    explanation = explained(folded, (3, 2))
    for weight in explanation.weights:
        chain = explanation.chain(weight.path, *(0,) * weight.value.ndim)
        assert sum(path.value for path in chain.paths) == pytest.approx(chain.gradient)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("build", [frozen, own])
def test_biases_are_left_out_where_they_are_no_part_of_a_product(build):
    explanation, x = with_biases(build, (2,))
    value = {weight.path.split("/")[-1]: weight.value for weight in (*explanation.weights, *explanation.frozen)}
    inside = x / np.sqrt(1.001) if build is frozen else np.tanh(x @ value["w"] * value["scale"])
    graph = after(explanation, "the biases were left out in y")
    np.testing.assert_allclose(graph.nodes[-1].value, inside @ value["kernel"] + value["bias"], rtol=1e-6)
