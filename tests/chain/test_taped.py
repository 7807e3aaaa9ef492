"""What a tape or an accumulator of the user's follows is what Keras computes, not what a forward rule does."""

import numpy as np
import pytest
import tensorflow as tf
from keras import activations, layers

from keras_backprop._tensorflow import is_taped
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.chain.test_operations import WAYS, X, assert_equals_the_tape, scaled


class SecondDerivatives(layers.Layer):
    """What a user's own tape gives is the layer's output: the gradient of that has second derivatives of the inner layer."""

    def __init__(self, inner, **options):
        super().__init__()
        self.inner, self.options = inner, options

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.sin(self.inner(x, **self.options))
        return tape.gradient(y, x)


NORMALISATIONS = pytest.mark.parametrize(
    ("inner", "options"),
    [
        (layers.LayerNormalization, {}),
        (lambda: layers.LayerNormalization(rms_scaling=True), {}),
        (lambda: layers.GroupNormalization(1), {}),
        (layers.BatchNormalization, {"training": True}),
    ],
    ids=["LayerNormalization", "rms_scaling", "GroupNormalization", "BatchNormalization"],
)
IGNORING_DEPRECATION = pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")


@WAYS
@NORMALISATIONS
@IGNORING_DEPRECATION
def test_a_tape_of_the_users_sees_the_operations_of_keras(inner, options, compiled):
    """Most hold the mean constant within the variance, which only second derivatives show."""
    layer = SecondDerivatives(inner(), **options)
    layer(X)
    assert_equals_the_tape(layer, X, compiled, atol=1e-5)


class WithoutTape(SecondDerivatives):
    """In a graph nobody knows beforehand that what runs will be differentiated."""

    def call(self, x):
        if tf.executing_eagerly():
            return super().call(x)
        return tf.gradients(tf.sin(self.inner(x, **self.options)), x)[0]


@NORMALISATIONS
@IGNORING_DEPRECATION
def test_gradients_without_a_tape_have_the_derivatives_of_keras(inner, options):
    layer = WithoutTape(inner(), **options)
    layer(X)
    assert_equals_the_tape(layer, X, compiled=True, atol=1e-5)


@pytest.mark.parametrize("gate", [activations.gelu, lambda x: activations.gelu(x, approximate=True), activations.silu])
def test_gradients_without_a_tape_of_gates_have_the_derivatives_of_keras(gate):
    layer = WithoutTape(layers.Activation(gate))
    layer(X)
    assert_equals_the_tape(layer, X, compiled=True)


def test_gradients_without_a_tape_of_the_kernel_have_the_derivatives_of_keras(monkeypatch):
    """Of TensorFlow's kernel for normalising batches, which is for large ones."""
    monkeypatch.setattr("keras_backprop.rules.layers.batch_normalization._LARGE", 0)
    layer = WithoutTape(layers.BatchNormalization(), training=True)
    layer(X)
    assert_equals_the_tape(layer, X, compiled=True, atol=1e-5)


@WAYS
def test_second_derivatives_of_convolutions(compiled):
    """Of whose data format nothing is said where TensorFlow's own functions call each other."""
    layer, x = SecondDerivatives(layers.SeparableConv1D(2, 2)), np.reshape(X, (X.shape[0], -1, 1))
    layer(x)
    assert_equals_the_tape(layer, x, compiled)


class OneStep(layers.Layer):
    """A cell called alone."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def build(self, shape):
        self.cell.build((shape[0], shape[-1]))

    def call(self, x):
        return self.cell(x[:, 0], self.cell.get_initial_state(batch_size=x.shape[0]))[0]


def stacked_cells():
    return layers.RNN([layers.LSTMCell(2), layers.GRUCell(2)], unroll=True)


@WAYS
@pytest.mark.parametrize(
    "inner",
    [lambda: layers.LSTM(2), stacked_cells, lambda: OneStep(layers.LSTMCell(2))],
    ids=["LSTM", "stacked cells", "a cell alone"],
)
def test_second_derivatives_of_recurrences(inner, compiled):
    layer, x = SecondDerivatives(inner()), np.reshape(X, (X.shape[0], 2, 2))
    layer(x)
    assert_equals_the_tape(layer, x, compiled)


class ThirdDerivatives(SecondDerivatives):
    """Two tapes within each other; the gradient of that has third derivatives of the inner layer."""

    def call(self, x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = tf.sin(self.inner(x))
            dx = tf.sin(tape.gradient(y, x))
        return x + outer.gradient(dx, x)


@pytest.mark.parametrize("inner", [layers.SimpleRNN, layers.LSTM])
def test_third_derivatives_of_recurrences(inner):
    layer, x = ThirdDerivatives(inner(2)), np.tile(np.reshape(X, (X.shape[0], 2, 2)), (1, 3, 1))
    layer(x)
    assert_equals_the_tape(layer, x, True)


class OfWeights(SecondDerivatives):
    """The tape follows only the weights: of what takes the input it knows nothing, of what comes after that it does."""

    def call(self, x):
        with tf.GradientTape() as tape:
            y = tf.sin(self.inner(x))
        return y * sum(tf.reduce_sum(g) for g in tape.gradient(y, [w.value for w in self.inner.trainable_variables]))


def test_a_tape_of_the_users_over_the_weights_of_stacked_cells():
    layer, x = OfWeights(stacked_cells()), np.reshape(X, (X.shape[0], 2, 2))
    layer(x)
    assert_equals_the_tape(layer, x, True)


@pytest.mark.parametrize(
    "followed",
    [
        lambda x: tf.while_loop(lambda i, h: i < 3, lambda i, h: (i + 1, tf.sin(h)), (0, x))[1],
        lambda x: tf.cond(tf.reduce_sum(x) > -100, lambda: tf.tanh(x) ** 2, lambda: x),
        tf.function(lambda x: tf.sin(x), autograph=False),
    ],
    ids=["while_loop", "cond", "function"],
)
def test_a_tape_of_the_users_around_a_backward_pass_in_a_graph(followed):
    """What is differentiated there puts out more than it did when the tape noted it."""
    layer = scaled(lambda x, w: followed(w * x) * w)

    def explicit(x):
        record = Record()
        y = record.run(layer, x)
        result = sweep(record.calls, [(y, y)], layer.trainable_variables, [x])
        return result.gradient(layer.w), result.input_gradient(x)

    def taped(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            error = tf.reduce_sum(layer(x) ** 2) / 2
        return tape.gradient(error, (layer.w.value, x))

    @tf.function(autograph=False)
    def second(gradients):
        x = tf.constant(X)
        with tf.GradientTape() as tape:
            tape.watch(x)
            first = sum(tf.reduce_sum(g**2) for g in gradients(x))
        return tape.gradient(first, (layer.w.value, x))

    for ours, theirs in zip(second(explicit), second(taped), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


class ForwardMode(SecondDerivatives):
    def call(self, x):
        with tf.autodiff.ForwardAccumulator(x, tf.cos(x)) as accumulator:
            y = tf.sin(self.inner(x))
        return accumulator.jvp(y)


@pytest.mark.parametrize(
    ("inner", "shape"),
    [(layers.LayerNormalization, X.shape), (stacked_cells, (X.shape[0], 2, 2))],
    ids=["LayerNormalization", "stacked cells"],
)
def test_forward_mode_of_the_users_sees_the_operations_of_keras(inner, shape):
    layer, x = ForwardMode(inner()), np.reshape(X, shape)
    layer(x)
    assert_equals_the_tape(layer, x, True, atol=1e-5)


def test_a_link_of_what_is_taped_in_parts_is_opened():
    """A ragged tensor is followed by its values, whatever else stands beside it."""
    ragged, beside = tf.RaggedTensor.from_row_lengths([1.0, 2.0, 3.0], [1, 2]), tf.constant(1.0)
    with tf.GradientTape() as tape:
        assert not is_taped([ragged, beside, "text", None])
        tape.watch(ragged.flat_values)
        assert is_taped([beside, ragged]) and not is_taped([beside])
        with tape.stop_recording():
            assert not is_taped([ragged])
    with tf.autodiff.ForwardAccumulator(beside, beside):
        assert is_taped([beside]) and not is_taped([ragged])
