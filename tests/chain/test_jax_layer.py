"""`JaxLayer`: another framework's code, which Keras runs as an operation of TensorFlow."""

import keras
import numpy as np
import pytest

from keras_backprop import BackpropSequential

jax = pytest.importorskip("jax")


def tanh(params, inputs):
    return jax.numpy.tanh(inputs @ params["w"])


def initial(rng, inputs):
    return {"w": jax.random.normal(rng, (inputs.shape[-1], 3))}


def test_it_trains_as_in_stock_keras():
    x, y = np.random.default_rng(0).normal(size=(2, 64, 1)).astype("float32")
    trained = []
    for kind in (keras.Sequential, BackpropSequential):
        keras.utils.set_random_seed(0)
        model = kind([keras.Input((1,)), keras.layers.JaxLayer(tanh, initial, seed=1), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        start = model.get_weights()
        model.fit(x, y, epochs=3, shuffle=False, verbose=0)
        trained.append(model.get_weights())
        assert not np.allclose(start[0], trained[-1][0])
    for stock, ours in zip(*trained, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=1e-6)
