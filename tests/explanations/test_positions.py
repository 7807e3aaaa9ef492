"""Paths through layers with positions, and through what moves, pools, merges: their products add up to the gradient."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_backprop import explain
from keras_backprop.explanations.numbers import linear
from keras_backprop.explanations.writing.notation import plain
from keras_backprop.registry import registered

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


def crossed(x):
    return dense(1)(keras.ops.cross(dense(3)(x), dense(3)(x)))


def summed(x):
    return dense(1)(layer("Flatten")(keras.ops.einsum("nij,njk->nik", dense(2)(x), dense(2)(x))))


def behind(kind, *arguments, **options):
    """A network of one layer, whatever its output's shape, and a dense unit behind it."""
    made = lambda x: dense(1)(layer("Flatten")(layer(kind, *arguments, **options)(x)))  # noqa: E731
    made.__name__ = kind + "".join(f" {value}" for value in (*arguments, *options.values()))
    return made


def heads(x):
    return dense(1)(layer("Flatten")(layer("GroupQueryAttention", 2, 2, 1)(x, x)))


def by_the_batch(x):
    return dense(1)(layer("BatchNormalization")(dense(2, "tanh")(x)))


def stacked(x):
    return dense(1)(layer("GRU", 1)(layer("SimpleRNN", 2, return_sequences=True)(x)))


def both_ways(x):
    return dense(1)(L.Bidirectional(layer("SimpleRNN", 1), dtype="float64")(dense(2)(x)))


def with_its_state(x):
    _, h, c = layer("LSTM", 2, return_state=True)(x)
    return dense(1)(layer("LSTM", 2)(x[:, :1], initial_state=[h, c]))


def every_step(x):
    return layer("Flatten")(dense(1)(layer("LSTM", 1, return_sequences=True)(x)))


def broadcast(x):
    return dense(1)(dense(2)(x) + dense(1)(x) * keras.ops.convert_to_tensor([1.0, 2]))


NETWORKS = [
    (behind("Conv2DTranspose", 2, 3, strides=2, padding="same", activation="tanh"), (2, 2, 2)),
    (behind("Conv1DTranspose", 2, 2, strides=3), (3, 2)), (behind("Conv3DTranspose", 1, 2), (2, 1, 1, 2)),
    (behind("DepthwiseConv2D", 2, depth_multiplier=2, padding="same", strides=2), (3, 3, 2)),
    (behind("DepthwiseConv1D", 2, dilation_rate=2), (5, 2)), (behind("Conv1D", 4, 2, groups=2), (3, 4)),
    (behind("SeparableConv1D", 3, 2, depth_multiplier=2, padding="same"), (4, 2)), (behind("SeparableConv2D", 2, 2), (3, 3, 2)),
    (behind("Conv1D", 2, 2, dilation_rate=2, padding="causal"), (5, 1)), (behind("Conv2D", 1, 3, strides=2, padding="same"), (5, 4, 1)),
    (behind("EinsumDense", "abc,cd->adb", output_shape=(3, 2), bias_axes="d"), (2, 3)),
    (behind("EinsumDense", "abc,bd->acd", output_shape=(3, 2)), (2, 3)), (behind("EinsumDense", "...x,xy->...y", output_shape=2, bias_axes="y"), (3,)),
    (behind("EinsumDense", "abc,cd->ad", output_shape=2), (2, 3)), (behind("EinsumDense", "ab,cb->ac", output_shape=2), (3,)),
    (behind("LayerNormalization"), (2, 3)), (behind("RMSNormalization"), (3,)), (behind("GroupNormalization", 2), (2, 4)),
    (behind("BatchNormalization", trainable=False), (2,)), (by_the_batch, (2,)), (heads, (2, 2)),
    (stacked, (2, 2)), (both_ways, (2, 2)), (with_its_state, (2, 1)), (every_step, (2, 1)), (broadcast, (2,)),
    (convolution, (4, 4, 1)), (causal, (4, 1)), (side_by_side, (2,)), (pieces, (4,)), (every_position, (3, 2)), (words, (3,)),
    (merged, (2,)), (turned, (2,)), (attended, (3, 2)), (crossed, (3,)), (summed, (2, 2)),
]  # fmt: skip


@functools.cache
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


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("w1_2,1,1,2", (1, 0, 0, 1)), ("w⁽¹⁾₂,₁,₁,₂", (1, 0, 0, 1)), ("w^{(1)}_{2,1,1,2}", (1, 0, 0, 1)), ("W1[1,0,0,1]", (1, 0, 0, 1)),
        ("w1_2112", (1, 0, 0, 1)), ("b1_2", (1,)),
    ],
)  # fmt: skip
def test_the_weights_of_a_convolution_are_named_as_in_books(name, index):
    """Row, column, channel that goes in, channel that comes out."""
    explanation = explained(convolution, (4, 4, 1))
    chain = explanation.chain(name)
    assert chain.path.split("/")[-1] == ("bias" if len(index) == 1 else "kernel") and chain.index == index
    assert chain.name == ("b^{(1)}_{2}" if len(index) == 1 else "w^{(1)}_{2,1,1,2}")


def test_a_unit_with_a_place_is_the_one_at_that_place():
    explanation = explained(convolution, (4, 4, 1))
    z = explanation.links[0].z
    for name in ("z1_2,3,1", "z⁽¹⁾₂,₃,₁", "z1_231", "z1[1,2,0]"):
        assert explanation.compare(name, float(z[1, 1, 2, 0]), example=1).verdict == "exact", name


@pytest.mark.parametrize(
    "name", ["γ1_2", "γ⁽¹⁾₂", r"\gamma^{(1)}_{2}", "gamma1_2", "gamma[1]", "layer_normalization/gamma[1]"]
)
def test_scale_and_shift_have_their_letters(name):
    keras.backend.clear_session()
    explanation = explained(behind("LayerNormalization"), (2, 3))
    chain = explanation.chain(name)
    assert chain.name == r"\gamma^{(1)}_{2}" and chain.index == (1,)
    assert [path.factors[-1].formula for path in chain.paths][:2] == [r"\hat{x}^{(1)}_{1,2}", r"\hat{x}^{(1)}_{2,2}"]
    assert explanation.compare(f"d{name}", chain.gradient).verdict == "exact"
    assert "γ₁" in explanation.to_text() and r"\gamma_1" in explanation.to_markdown()


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
    (last,) = [line for line in sheet.splitlines() if line.startswith("| $z^{(1)}_{2,2,1}$")]
    assert r"$x_{2,2,1} w^{(1)}_{1,1,1,1} + b^{(1)}_{1}$" in last  # the rest of its window is padding
    assert sum(line.startswith("| $z^") for line in sheet.splitlines()) == 4


def test_steps_of_stacked_layers_say_what_goes_into_them():
    text = " ".join(explained(stacked, (2, 2)).to_text().split())
    assert "= x₂ · W₁ + h⁽¹⁾₁ · U₁ + b₁" in text and "h⁽¹⁾₂ · W" in text  # the second layer's own input
    text = " ".join(explained(both_ways, (2, 2)).to_text().split())
    assert "z⁽³⁾₁ = z⁽¹⁾₂ · W₃ + h⁽³⁾₀ · U₃ + b₃" in text  # the way back begins at the end


def test_the_rows_of_a_table_are_called_by_their_keys():
    explanation = explained(words, (3,))
    assert plain(explanation.chain("C[1,0]").name) == "C[1,0]" and "y₁ = C_x" in explanation.to_text()
    assert explanation.chain("embeddings", 1, 0).index == (1, 0)


def test_arithmetic_with_numbers_is_written_out():
    model = network(lambda x: dense(1)(1 - 0.5 * dense(2)(x) ** 3), (2,))
    model.compile("sgd", keras.losses.MeanSquaredError(dtype="float64"))
    text = " ".join(explain(model, np.ones((1, 2)), np.ones((1, 1))).to_text().split())
    assert (
        "= z₁³" in text
        and "= 3 · z₁²" in text
        and "= 0.5 · y₁" in text
        and "= 1 − y₂" in text
        and "by the rule" not in text
    )


class Own(L.Layer):
    """A dense layer of one's own, in keras.ops or in TensorFlow, with a scale, a shift and a penalty."""

    def __init__(self, raw):
        super().__init__(dtype="float64")
        self.raw = raw

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 2), regularizer="l2", name="w")
        self.scale, self.shift = (
            self.add_weight(shape=(2,), initializer="ones", name=name) for name in ("scale", "shift")
        )

    def call(self, x):
        if self.raw:
            return tf.nn.tanh(tf.matmul(x, self.w.value) * self.scale.value + self.shift.value)
        return keras.ops.tanh(keras.ops.matmul(x, self.w) * self.scale + self.shift)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("raw", [False, True])
def test_the_paths_lead_through_a_layer_of_ones_own(raw):
    explanation = explained(lambda x: dense(1)(Own(raw)(dense(2)(x))), (2,))
    assert explanation.graph.opaque == {} and [path.split("/")[-1] for path in explanation.graph.extra] == ["w"]
    for weight in explanation.weights:
        for index in np.ndindex(weight.value.shape):
            chain = explanation.chain(weight.path, *index)
            assert sum(path.value for path in chain.paths) == pytest.approx(weight.gradient[index], rel=1e-9, abs=1e-12)
    (scale,) = [weight for weight in explanation.weights if "scale" in weight.path]
    chain = explanation.chain(scale.path, 0, example=0)
    assert len(chain.paths) == 1 and len(chain.paths[0].factors) == 5  # from the error to the scale, and no penalty


@pytest.mark.parametrize("examples", [1, 2])
@pytest.mark.parametrize("kind", ["MaxPooling1D", "AveragePooling1D"])
def test_a_largest_number_is_not_taken_for_one_that_is_moved(kind, examples):
    inputs = keras.Input((2,), dtype="float64")
    units = layer("Reshape", (2, 1))(dense(2)(inputs))
    model = keras.Model(inputs, layer("Flatten")(layer(kind, 2)(units)))
    model.set_weights([np.eye(2), np.array([0.0, 1.0])])
    model.compile("sgd", "mse")
    graph = explain(model, np.ones((examples, 2)), np.ones((examples, 1))).graph
    graph.nodes[1].bias = np.array([9.0, 1.0])  # a mistake, after which the other number is the largest
    known = graph.forward()
    assert known == (kind == "AveragePooling1D") and (not known or graph.nodes[-1].value[0] == 6.0)


def test_what_counts_as_linear_is_there():
    names = {rule.name for _, rule in registered().items()}
    assert names >= linear.RULES and all(hasattr(tf.raw_ops, name) for name in linear.OPERATIONS)
