"""Paths through layers with positions, and through what moves, pools, merges: their products add up to the gradient."""

import keras
import numpy as np
import pytest

from keras_backprop import explain

L = keras.layers


def layer(kind, *arguments, **options):
    return getattr(L, kind)(*arguments, dtype="float64", **options)


def dense(units, activation=None):
    return layer("Dense", units, activation)


def network(build, shape, dtype="float64"):
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, build(inputs), name="net")


def convolution(x):
    x = layer("MaxPooling2D", 2)(layer("Conv2D", 2, 2, padding="same", activation="tanh")(x))
    return dense(2, "softmax")(layer("Flatten")(x))


def causal(x):
    return dense(1)(layer("GlobalAveragePooling1D")(layer("Conv1D", 2, 2, padding="causal")(x)))


def side_by_side(x):
    return dense(1)(layer("Concatenate")([dense(2, "tanh")(x), dense(1, "sigmoid")(x)]))


def pieces(x):
    return dense(1)(dense(2, "tanh")(x[:, :2]) * dense(2)(x[:, 2:]))


def every_position(x):
    return dense(1)(layer("Flatten")(dense(2, "tanh")(x)))


def words(x):
    return dense(1, "sigmoid")(layer("GlobalAveragePooling1D")(layer("Embedding", 5, 2)(x)))


def merged(x):
    a, b, c = (dense(2, "tanh")(x) for _ in range(3))
    return dense(1)(layer("Maximum")([layer("Average")([a, b, c]), layer("Multiply")([a, b, c])]))


def turned(x):
    x = layer("Permute", (2, 1))(layer("Reshape", (2, 2))(dense(4)(x)))
    return dense(1)(layer("Flatten")(layer("AveragePooling1D", 2)(x)))


def attended(x):
    return dense(1)(layer("Flatten")(layer("Attention")([dense(2)(x), x])))


NETWORKS = [
    (convolution, (4, 4, 1)), (causal, (4, 1)), (side_by_side, (2,)), (pieces, (4,)), (every_position, (3, 2)), (words, (3,)),
    (merged, (2,)), (turned, (2,)), (attended, (3, 2)),
]  # fmt: skip


def explained(build, shape):
    keras.utils.set_random_seed(1)
    words_in = build is words
    model = network(build, shape, "int32" if words_in else "float64")
    model.compile(keras.optimizers.SGD(0.1), keras.losses.MeanSquaredError(dtype="float64"))
    x = np.array([[0, 1, 1], [2, 1, 4]]) if words_in else np.random.default_rng(0).normal(size=(2, *shape))
    return explain(model, x, np.full((2, *model.output_shape[1:]), 0.5))


@pytest.mark.parametrize(("build", "shape"), NETWORKS, ids=lambda value: getattr(value, "__name__", ""))
def test_the_paths_lead_all_the_way(build, shape):
    explanation = explained(build, shape)
    assert explanation.graph.opaque == {}
    for weight in explanation.weights:
        for index in list(np.ndindex(weight.value.shape))[:6]:
            chain = explanation.chain(weight.path, *index)
            assert sum(path.value for path in chain.paths) == pytest.approx(weight.gradient[index], rel=1e-9, abs=1e-12)
            assert all(np.prod([f.value for f in path.factors]) == pytest.approx(path.value) for path in chain.paths)


def test_what_is_only_moved_is_no_factor():
    explanation = explained(side_by_side, (2,))
    assert "∂z⁽³⁾₁/∂a⁽¹⁾₂ · ∂a⁽¹⁾₂/∂z⁽¹⁾₂" in explanation.chain("w1_12", example=0).to_text()
    assert "∂z⁽³⁾₁/∂a⁽²⁾₁" in explanation.chain("w2_11", example=0).to_text()


def test_a_convolution_is_followed_window_by_window():
    model = network(lambda x: layer("Flatten")(layer("Conv2D", 1, 2)(x)), (2, 2, 1))
    model.compile("sgd", keras.losses.MeanSquaredError(dtype="float64"))
    x = np.array([[[[1.0], [2]], [[3], [4]]]])
    explanation = explain(model, x, np.array([[0.0]]))
    (path,) = explanation.chain("kernel", 1, 0, 0, 0).paths
    assert [f.value for f in path.factors][1:] == [3.0] and path.factors[-1].formula == "x_{2,1,1}"


def test_a_product_names_the_other_factor():
    text = explained(pieces, (4,)).chain("w1_11", example=0).to_text()
    assert "∂y⁽³⁾₁/∂a⁽¹⁾₁ = z⁽²⁾₁" in " ".join(text.split())


def test_examples_that_depend_on_each_other_end_the_paths():
    model = network(lambda x: dense(1)(keras.ops.cumsum(dense(2)(x), axis=0)), (2,))
    model.compile("sgd", keras.losses.MeanSquaredError(dtype="float64"))
    explanation = explain(model, np.array([[1.0, 2], [3, 4]]), np.array([[0.0], [1]]))
    chain = explanation.chain("w1_11")
    assert [len(path.factors) for path in chain.paths] == [2, 2]  # ∂E/∂z and x
    assert sum(path.value for path in chain.paths) == pytest.approx(chain.gradient)


def test_mistakes_are_found_through_positions():
    explanation = explained(side_by_side, (2,))
    gradient = float(explanation.weight("W1").gradient[0, 0])
    assert explanation.compare("dw1_11", gradient)[0].verdict == "exact"
    assert "sign" in explanation.compare("dw1_11", -gradient)[0].mistake


def test_a_sheet_writes_a_convolution_out():
    model = network(lambda x: layer("Flatten")(layer("Conv2D", 1, 2, padding="same", name="conv")(x)), (2, 2, 1))
    model.compile("sgd", keras.losses.MeanSquaredError(dtype="float64"))
    explanation = explain(model, np.array([[[[1.0], [2]], [[3.0], [4]]]]), np.zeros((1, 4)))
    sheet = explanation.to_markdown(blank=["values"])
    (last,) = [line for line in sheet.splitlines() if line.startswith("| $y^{(1)}_{2,2,1}$")]
    assert r"$x_{2,2,1} \text{conv/kernel}[0,0,0,0] + \text{conv/bias}[0]$" in last  # the rest of its window is padding
    assert sum(line.startswith("| $y^") for line in sheet.splitlines()) == 4
