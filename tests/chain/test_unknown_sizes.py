"""Functions of `keras.ops` and layers on tensors of which more than the number of examples is unknown while a function is traced."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep

X = np.random.default_rng(0).normal(size=(2, 6, 4)).astype("float32")

FUNCTIONS = {
    "mean": lambda x: ops.mean(x, 1),
    "softmax": lambda x: ops.softmax(x, axis=1),
    "matmul": lambda x: ops.matmul(x, ops.transpose(x, (0, 2, 1))),
    "einsum": lambda x: ops.einsum("bsd,btd->bst", x, x),
    "reshape": lambda x: ops.reshape(x, (ops.shape(x)[0], -1)),
    "concatenate": lambda x: ops.concatenate([x, x[:, :1]], 1),
    "max": lambda x: ops.max(x, 1),
    "var": lambda x: ops.var(x, (0, 1)),
    "sort": lambda x: ops.sort(x, 1),
    "norm": lambda x: ops.norm(x, axis=1),
    "cumsum": lambda x: ops.cumsum(x, 1),
    "attention": lambda x: ops.dot_product_attention(*[x[:, :, None]] * 3),
    "cross-entropy": lambda x: ops.sparse_categorical_crossentropy(ops.argmax(x, -1), x, from_logits=True),
    "segments": lambda x: ops.segment_max(
        ops.reshape(x, (12, 4)), ops.argmax(ops.reshape(x, (-1, 4)), -1), num_segments=5
    ),
    "convolution with what was computed": lambda x: ops.conv(x, x[0][:3, :, None], dilation_rate=2),
    "own batch": lambda x: ops.sparse_categorical_crossentropy(
        ops.arange(ops.shape(x)[0]), x[:, 0] @ ops.transpose(x[:, 1]) - ops.eye(ops.shape(x)[0]), from_logits=True
    ),
}

LAYERS = [
    layers.Dense(3, activation="softmax"),
    layers.LayerNormalization(),
    layers.BatchNormalization(),
    layers.GroupNormalization(2),
    layers.Conv1D(3, 2, strides=2),
    layers.AveragePooling1D(2, padding="same"),
    layers.LSTM(3, return_sequences=True, go_backwards=True),
    layers.TimeDistributed(layers.Dense(3)),
    layers.EinsumDense("abc,cd->abd", output_shape=(None, 3), bias_axes="d"),
    layers.Reshape((-1, 2)),
]


def assert_as_the_tape(function, sizes, x=X):
    """Values and gradients of our chain against the tape, both traced with the sizes of `sizes`."""
    function(tf.constant(x))
    weights = getattr(function, "trainable_weights", [])
    factor = tf.cos(tf.range(1000.0))

    @tf.function(input_signature=[tf.TensorSpec(sizes)], autograph=False)
    def ours(x):
        record = Record(weights, [x])
        y = record.run(function, x)
        upstream = tf.reshape(factor[: tf.size(y)], tf.shape(y))
        result = sweep(record.calls, [(y, upstream)], weights, [x])
        return [y, result.input_gradient(x), *map(result.gradient, weights)]

    @tf.function(input_signature=[tf.TensorSpec(sizes)], autograph=False)
    def tape(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        upstream = tf.reshape(factor[: tf.size(y)], tf.shape(y))
        return [y, *tape.gradient(y, [x, *(w.value for w in weights)], output_gradients=upstream)]

    for one, other in zip(ours(tf.constant(x)), tape(tf.constant(x)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sizes", [(None, None, 4), (None, None, None)], ids=["length", "all"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_unknown_sizes(name, sizes):
    assert_as_the_tape(FUNCTIONS[name], sizes)


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_layers_of_unknown_length(layer):
    square = X[:, :2]  # Keras's TimeDistributed takes as many steps as there are examples if their number is unknown
    assert_as_the_tape(layer, (None, None, 4), square if isinstance(layer, layers.TimeDistributed) else X)


def test_time_steps_of_unknown_sizes():
    """What TimeDistributed runs may itself give sizes that are unknown."""
    images = np.random.default_rng(1).normal(size=(2, 2, 6, 4)).astype("float32")
    assert_as_the_tape(layers.TimeDistributed(layers.Conv1D(2, 2)), (None, None, None, 4), images)


def test_films_of_unknown_length_and_size():
    films = np.random.default_rng(1).normal(size=(2, 3, 4, 2)).astype("float32")
    assert_as_the_tape(layers.ConvLSTM1D(2, 3, return_sequences=True), (None, None, None, None), films)


def test_images_of_unknown_channels():
    images = np.random.default_rng(1).normal(size=(2, 4, 4, 2)).astype("float32")
    assert_as_the_tape(layers.Conv2D(3, 2), (None, None, None, None), images)


def test_loss_of_unknown_classes():
    def loss(x):
        t = tf.constant([1, 0])
        return keras.losses.sparse_categorical_crossentropy(t, tf.reshape(x, [2, -1]), from_logits=True)

    assert_as_the_tape(loss, (None, None, None))
