"""What each example contributes, in layers that are followed operation by operation."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_backprop import backward
from keras_backprop.chain import examples

RNG = np.random.default_rng(2)
X = RNG.normal(size=(5, 6, 4)).astype("float32")
Y = RNG.normal(size=(5, 3)).astype("float32")


class Layer(layers.Layer):
    """Weights w, b and v, and a function of the input and of these."""

    def __init__(self, function):
        super().__init__(name="own")
        self.function = function

    def build(self, shape):
        self.w = self.add_weight(shape=(4, 4), name="w")
        self.b = self.add_weight(shape=(4,), initializer="random_normal", name="b")
        self.v = self.add_weight(shape=(6, 4), initializer="random_normal", name="v")

    def call(self, x):
        return self.function(x, self.w, self.b, self.v)


def rows(x):
    return ops.reshape(x, (-1, 4))


def in_a_function(x, w, b, v):
    """A product with a `tf.function` around."""
    return tf.function(tf.matmul)(x, tf.convert_to_tensor(w))


def looked_up(x, w, b, v):
    places = ops.cast(ops.abs(x[..., 0]) * 2, "int32") % 6
    return x * ops.take(v, places, axis=0) + tf.gather(v, places)


KEEP = {
    "matmul, bias, scale": lambda x, w, b, v: ops.multiply(ops.matmul(x, w) + b, v),
    "TensorFlow": lambda x, w, b, v: tf.nn.bias_add(tf.tensordot(x, w, 1), b) * tf.exp(v),
    "einsum": lambda x, w, b, v: ops.einsum("ntd,de->nte", x, w) + ops.einsum("ntd,td->nt", x, v)[..., None],
    "tf.einsum": lambda x, w, b, v: tf.einsum("...d,de->...e", x, w) + b,
    "rows": lambda x, w, b, v: ops.reshape(ops.tanh(ops.matmul(rows(x), w) + b), (-1, 6, 4)) + v,
    "layer on rows": lambda x, w, b, v: ops.reshape(ops.relu(rows(x) @ w), (-1, 6, 4)),
    "convolution": lambda x, w, b, v: ops.conv(x, ops.reshape(w, (1, 4, 4)), padding="same") * b,
    "tf convolution": lambda x, w, b, v: tf.nn.conv1d(x, tf.reshape(w, (1, 4, 4)), 1, "SAME") + v,
    "attention": lambda x, w, b, v: ops.softmax(x @ w @ ops.transpose(x, (0, 2, 1))) @ x,
    "class token": lambda x, w, b, v: ops.concatenate([ops.broadcast_to(v[:1], (ops.shape(x)[0], 1, 4)), x @ w], 1),
    "gather": looked_up,
    "convolution by Fourier transforms": lambda x, w, b, v: tf.reshape(
        tf.signal.irfft(tf.signal.rfft(tf.reshape(x * b, (-1, 24))) * tf.signal.rfft(tf.reshape(v, (24,)))), (-1, 6, 4)
    ),
    "complex": lambda x, w, b, v: tf.abs(tf.signal.fft2d(tf.complex(x + v, x * b))) + 0 * tf.math.imag(tf.complex(x, x)),
    "normalised weight": lambda x, w, b, v: x @ (w / ops.norm(w, axis=0)) * ops.softplus(b),
    "position": lambda x, w, b, v: x + ops.take(v, ops.arange(6), axis=0),
    "slices": lambda x, w, b, v: ops.concatenate([x[:, :3] @ w, x[:, 3:] * b], 1),
    "twice": lambda x, w, b, v: ops.tanh(x @ w) @ w,
    "a number": lambda x, w, b, v: (x + b[0]) @ w - w[0, 0],
    "silu": lambda x, w, b, v: tf.nn.silu(x @ w) + tf.ensure_shape(x * b, x.shape),
    "quantised": lambda x, w, b, v: x @ w + tf.gather(v, tf.argmax(x, -1)),
}  # fmt: skip


def as_columns(x, w, b, v):
    """In a matrix of sizes that only the run knows, of which a transposed product tells the height."""
    z = tf.reshape(x, tf.stack([tf.size(x) * 0 + 4, tf.size(x) // 4]))
    tf.matmul(z, tf.ones((4, 1)), transpose_a=True)
    return tf.reshape(z * w[0, 0], (-1, 6, 4))


MIX = {
    "as columns": as_columns,
    "mean of the batch": lambda x, w, b, v: (x - ops.mean(x, 0)) @ w,
    "time first": lambda x, w, b, v: ops.transpose(ops.transpose(x, (1, 0, 2)) @ w, (1, 0, 2)),
    "a function": in_a_function,
    "reversed": lambda x, w, b, v: (x[::-1] @ w)[::-1],
    "columns": lambda x, w, b, v: (
        x + ops.transpose(tf.gather(w, ops.cast(x[:4, 0, 0] > 0, "int32"), axis=1))[:, None][:1]
    ),
    "sorted": lambda x, w, b, v: x * ops.reshape(tf.sort(x[:, 0, 0], direction="DESCENDING") * w[0, 0], (-1, 1, 1)),
    "added to rows": lambda x, w, b, v: x + tf.nn.bias_add(w, x[0, 0])[None, :1],
}


def network(function, penalty=None):
    keras.utils.set_random_seed(3)
    own = Layer(function)
    dense = layers.Dense(3, kernel_regularizer=penalty, name="dense")
    model = keras.Sequential([layers.Dense(4, "tanh", name="below"), own, layers.GlobalAveragePooling1D(), dense])
    model.compile(loss="mse")
    model(X)
    return model


def one_by_one(model, weight):
    """The gradient of each example's own loss, over n as in the batch's mean."""
    gradients = [backward(model, X[i : i + 1], Y[i : i + 1]).gradient(weight) for i in range(len(X))]
    return [None if g is None else tf.convert_to_tensor(g) / len(X) for g in gradients]


@pytest.mark.sample(16)
@pytest.mark.parametrize("way", ["eager", "traced", "any number"])
@pytest.mark.parametrize("name", KEEP)
def test_examples_in_own_layers(name, way):
    model = network(KEEP[name])
    weights = model.trainable_weights

    def contributions(x, y):
        result = backward(model, x, y)
        used = [w for w, gradient in zip(weights, result.gradients, strict=True) if gradient is not None]
        c = tf.cast(tf.range(tf.shape(x)[0]), tf.float32)
        return {w.path: result.per_example(w) for w in used}, result.squared_norms(), result.weighted(c)

    if way == "traced":
        contributions = tf.function(contributions)
    if way == "any number":
        contributions = tf.function(contributions, [tf.TensorSpec([None, *a.shape[1:]]) for a in (X, Y)])
    singles, norms, weighted = contributions(X, Y)
    expected = {w.path: one_by_one(model, w) for w in weights}
    expected = {path: np.stack(gradients) for path, gradients in expected.items() if gradients[0] is not None}
    assert singles.keys() == expected.keys()
    for path, gradients in expected.items():
        np.testing.assert_allclose(singles[path], gradients, rtol=1e-4, atol=1e-6, err_msg=path)
    squares = sum(np.square(g).reshape(5, -1).sum(1) for g in expected.values())
    np.testing.assert_allclose(norms, squares, rtol=1e-4)
    for weight, total in zip(weights, weighted, strict=True):
        if weight.path in expected:
            mixed = np.tensordot(np.arange(5.0), expected[weight.path], 1)
            np.testing.assert_allclose(tf.convert_to_tensor(total), mixed, rtol=1e-4, atol=1e-6, err_msg=weight.path)


@pytest.mark.parametrize("name", MIX)
def test_what_mixes_examples_is_named(name):
    model = network(MIX[name])

    @tf.function(autograph=False, input_signature=[tf.TensorSpec((None, *a.shape[1:])) for a in (X, Y)])
    def contributions(x, y):
        return backward(model, x, y).per_example(model.layers[1].w)

    with pytest.raises(ValueError, match="own/.*has no rows that belong to one example each"):
        contributions(X, Y)


def test_penalties_of_any_kind_are_of_no_example():
    """Of a regulariser, by `add_loss`, and of the output of a layer without activation."""

    class Penalised(Layer):
        def call(self, x):
            self.add_loss(0.1 * ops.sum(ops.square(self.w)) + tf.reduce_sum(self.b**2))
            return super().call(x)

    keras.utils.set_random_seed(3)
    own = Penalised(KEEP["matmul, bias, scale"])
    dense = layers.Dense(3, kernel_regularizer="l2", activity_regularizer="l2", name="dense")
    model = keras.Sequential([own, layers.GlobalAveragePooling1D(), dense])
    model.compile(loss="mse")
    model(X)
    result = backward(model, X, Y)
    for weight, penalty in ((own.w, 0.2 * own.w), (own.b, 2 * own.b), (dense.kernel, 0.02 * dense.kernel)):
        total = tf.reduce_sum(result.per_example(weight), 0) + penalty
        np.testing.assert_allclose(total, result.gradient(weight), rtol=1e-4, atol=1e-6)
        nothing = result.weighted(tf.zeros(5))[result.index(weight)]
        np.testing.assert_allclose(nothing, penalty, rtol=1e-5, atol=1e-7)


def test_examples_are_of_the_weights_at_the_time():
    """Asked for after an update, of a layer whose rule needs its weights again."""
    keras.utils.set_random_seed(1)
    dense = layers.Dense(3, lora_rank=2)
    model = keras.Sequential([layers.GlobalAveragePooling1D(), dense])
    model.compile(loss="mse")
    model(X)
    dense.lora_kernel_b.assign(tf.ones((2, 3)))
    result = backward(model, X, Y)
    expected = [result.per_example(w) for w in (dense.lora_kernel_a, dense.lora_kernel_b)]
    for weight in (dense.lora_kernel_a, dense.lora_kernel_b):
        weight.assign(weight * 2)
    for weight, gradients in zip((dense.lora_kernel_a, dense.lora_kernel_b), expected, strict=True):
        np.testing.assert_allclose(result.per_example(weight), gradients, rtol=1e-6)
        np.testing.assert_allclose(tf.reduce_sum(gradients, 0), result.gradient(weight), rtol=1e-4, atol=1e-6)


def whole(*stack):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), *stack])
    model.compile(loss="mse")
    return model


F = X[:, 0]


@pytest.mark.parametrize(
    "between",
    [layers.Lambda(lambda x: x[::-1]), layers.Activation(lambda x: x[::-1]), layers.Dense(4, lambda x: x[::-1])],
    ids=["Lambda", "Activation", "activation"],
)
def test_what_layers_of_keras_are_told_to_do_is_looked_into(between):
    model = whole(layers.Dense(4), between, last := layers.Dense(3))
    result = backward(model, F, Y)
    with pytest.raises(ValueError, match="has no rows that belong to one example each"):
        result.per_example(last.kernel)


def test_examples_that_are_joined():
    keras.utils.set_random_seed(1)
    inputs = [keras.Input((4,)), keras.Input((4,))]
    joined = layers.Concatenate(axis=0)(inputs)
    model = keras.Model(inputs, layers.Dense(3)(joined))
    model.compile(loss="mse")
    result = backward(model, [F, F], np.concatenate([Y, Y]))
    with pytest.raises(ValueError, match="has no rows that belong to one example each"):
        result.squared_norms()


@pytest.mark.parametrize("options", [{}, {"scale": False, "center": False}])
def test_below_batch_statistics_there_are_no_single_examples(options):
    model = whole(below := layers.Dense(4), layers.BatchNormalization(**options), above := layers.Dense(3))
    result = backward(model, F, Y)
    with pytest.raises(ValueError, match="couple its examples"):
        result.per_example(below.kernel)
    assert result.per_example(above.kernel).shape == (5, 4, 3)
    assert backward(model, F, Y, training=False).per_example(below.kernel).shape == (5, 4, 4)


def test_activations_of_keras_keep_the_rows():
    for name in ("silu", "gelu", "softmax", "mish", "log_softmax"):
        model = whole(first := layers.Dense(4, name), layers.Dense(3))
        singles = backward(model, F, Y).per_example(first.kernel)
        np.testing.assert_allclose(singles, np.stack(one_by_one_of(model, first.kernel)), rtol=1e-4, atol=1e-6)


def one_by_one_of(model, weight):
    return [backward(model, F[i : i + 1], Y[i : i + 1]).gradient(weight) / 5 for i in range(5)]


def test_sparse_examples():
    model = whole(dense := layers.Dense(3))
    sparse = tf.sparse.from_dense(F)
    result = backward(model, sparse, loss=lambda p: ops.sum(p**2, -1))
    expected = backward(model, F, loss=lambda p: ops.sum(p**2, -1))
    np.testing.assert_allclose(result.per_example(dense.kernel), expected.per_example(dense.kernel), rtol=1e-5)


@pytest.mark.parametrize("kind", [layers.SimpleRNN, layers.GRU, layers.LSTM])
def test_masked_recurrent_layers_are_products(kind, monkeypatch):
    """Also of a layer whose last state nobody takes; else each example would be swept for itself."""
    monkeypatch.setattr(examples, "Followed", None)
    recurrent = layers.Bidirectional(kind(2))
    model = keras.Sequential([layers.Masking(), recurrent, layers.Dense(3)])
    model.compile(loss="mse")
    x = np.where(np.arange(6)[:, None] < np.array([6, 3, 1, 4, 5])[:, None, None], X, 0)
    result = backward(model, x, Y)
    for weight in recurrent.trainable_weights:
        alone = [backward(model, x[i : i + 1], Y[i : i + 1]).gradient(weight) / 5 for i in range(5)]
        np.testing.assert_allclose(result.per_example(weight), np.stack(alone), rtol=1e-4, atol=1e-6)


def centred(x):
    return x - tf.reduce_mean(x, 0)


def contrastive(y, p):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.range(5), p @ tf.transpose(p))


MIXING = {
    "a mean over the batch": (centred, "mse", ["mean/lambda/mean", "mean/lambda/subtract"]),
    "a contrastive loss": (tf.tanh, contrastive, ["transpose", "matmul"]),
    "the root of a mean": (tf.tanh, lambda y, p: tf.sqrt(tf.reduce_mean((y - p) ** 2)), ["mean"]),
    "a reciprocal": (tf.tanh, lambda y, p: 1 / tf.reduce_mean((y - p) ** 2), ["mean"]),
    "a loss of whole batches": (tf.tanh, keras.losses.Dice(axis=None), ["dice"]),
    "a loss of columns": (tf.tanh, keras.losses.Dice(axis=0), ["dice"]),
    "a mean": (tf.tanh, lambda y, p: 3 * tf.reduce_mean((y - p) ** 2), []),
    "a sum": (tf.tanh, keras.losses.CategoricalCrossentropy(from_logits=True, reduction="sum"), []),
}


@pytest.mark.parametrize("name", MIXING)
def test_what_mixes_examples_above_a_weight_is_told(name):
    function, loss, expected = MIXING[name]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Lambda(function, name="lambda")], name="mean")
    assert list(backward(model, X[:, 0], Y, loss=loss).mixing) == expected


def test_masks_weights_and_penalties_mix_nothing():
    keras.utils.set_random_seed(0)
    stack = [layers.Masking(), layers.LSTM(3, return_sequences=True, activity_regularizer="l1")]
    model = keras.Sequential([keras.Input((6, 4)), *stack, layers.Dense(2, kernel_regularizer="l2")])
    model.compile("sgd", keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"))
    assert backward(model, X, np.ones((5, 6, 2)), np.ones((5, 6))).mixing == {}
    model = keras.Sequential([*model.layers, layers.BatchNormalization(name="statistics")])
    model.compile("sgd", "mse")
    (path,) = backward(model, X, np.ones((5, 6, 2))).mixing
    assert path.endswith("statistics")
