"""Weights that the forward pass assigns anew: every link goes by the values that it has read."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import backward
from tests.checking import normal

X = normal(5, 6, 4).astype("float32")


class Assigned(keras.Model):
    """Layers that are called twice, and whose weights are others in between and afterwards."""

    def __init__(self, *used):
        super().__init__()
        self.used = used

    def call(self, x, training=None):
        for _ in range(2):
            for layer in self.used:
                x = layer(x)
                for v in layer.trainable_variables:
                    v.assign(0.6 * v + 0.01)
        return x


class Shared(keras.Model):
    def __init__(self, wrapped):
        super().__init__()
        self.normalised = layers.SpectralNormalization(wrapped)

    def call(self, x, training=None):
        return self.normalised(self.normalised(x, training=True), training=True)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: Shared(layers.Dense(4, "tanh")),
        lambda: Assigned(layers.Conv1D(4, 3, padding="same"), layers.LayerNormalization(), layers.PReLU()),
        lambda: Assigned(layers.GRU(4, return_sequences=True)),
    ],
    ids=["spectral_normalization", "layers", "gru"],
)
def test_every_link_goes_by_the_values_that_it_has_read(make, compiled):
    model, x = make(), tf.constant(X)
    model(x)
    before = model.get_weights()
    with tf.GradientTape() as tape:
        tape.watch(x)
        error = tf.reduce_mean(tf.sin(model(x, training=True)))
    expected = tape.gradient(error, [*(v.value for v in model.trainable_variables), x])
    model.set_weights(before)

    def explicit(x):
        result = backward(model, x, loss=tf.sin)
        return [*result.gradients, *result.inputs]

    run = tf.function(explicit, autograph=False) if compiled else explicit
    for ours, tapes in zip(run(x), expected, strict=True):
        np.testing.assert_allclose(ours, tapes, rtol=1e-4, atol=1e-7)
