"""A layer whose `call` somebody calls by itself gets tensors that nobody has cast: then Keras promotes, and so do we."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_backprop import BackpropSequential

X, Y = np.random.default_rng(0).normal(size=(2, 8, 3, 2)).astype("float32")


class CallsOnly(layers.Layer):
    """Another layer's `call`, as Keras's `TimeDistributed` does it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x, training=False):
        options = {"training": training} if isinstance(self.inner, layers.BatchNormalization) else {}
        return keras.ops.cast(self.inner.call(x, **options), "float32")


LAYERS = {
    "time distributed": lambda: layers.TimeDistributed(layers.Dense(2, dtype="float64")),
    "Dense": lambda: CallsOnly(layers.Dense(2, "tanh", dtype="float64")),
    "Dense in half precision": lambda: CallsOnly(layers.Dense(2, dtype="float16")),
    "EinsumDense": lambda: CallsOnly(layers.EinsumDense("abc,cd->abd", (None, 2), dtype="float64")),
    "BatchNormalization": lambda: CallsOnly(layers.BatchNormalization(dtype="float64")),
    "LayerNormalization": lambda: CallsOnly(layers.LayerNormalization(dtype="float64")),
}


@pytest.mark.parametrize("name", LAYERS)
def test_equal_to_stock(name):
    losses = []
    for cls in (keras.Sequential, BackpropSequential):
        keras.utils.set_random_seed(0)
        model = cls([keras.Input((3, 2)), LAYERS[name](), layers.Dense(2)])
        model.compile("sgd", "mse")
        losses.append(model.fit(X, Y, epochs=3, verbose=0, shuffle=False).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-6)
