"""What the rule says of models; that it says what was measured is in docs/speed.md."""

import time

import keras
import numpy as np
import pytest
from keras import layers

from keras_backprop import BackpropModel, BackpropSequential
from keras_backprop.layers import BackpropDense
from keras_backprop.training import xla
from keras_backprop.training.xla import worth_compiling


class Own(layers.Dense):
    pass


class OwnCall(BackpropModel):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)
        self(np.ones((1, 3), "float32"))

    def call(self, x):
        return keras.ops.tanh(self.dense(x))


def operations():
    inputs = keras.Input((4,))
    return inputs, keras.ops.sort(layers.Dense(4)(inputs))


def chain(shape, *parts):
    return keras.Sequential([keras.Input(shape), *parts])


def branches():
    inputs = keras.Input((4,))
    return BackpropModel(inputs, layers.Add()([layers.Dense(4, "relu")(inputs), chain((4,), layers.Dense(4))(inputs)]))


WORTH = {
    "the note's network": lambda: BackpropSequential([keras.Input((1,)), BackpropDense(1), BackpropDense(1)]),
    "digits": lambda: chain((64,), layers.Dense(128, "relu"), layers.BatchNormalization(), layers.Dense(10, "softmax")),
    "flattened": lambda: chain((4, 4), layers.Flatten(), layers.Dense(3)),
    "branches": branches,
    "recurrent": lambda: chain((20, 8), layers.LSTM(16), layers.Dense(1)),
}
NOT_WORTH = {
    "a large kernel": lambda: chain((512,), layers.Dense(512)),
    "deep": lambda: chain((4,), *(layers.Dense(4) for _ in range(50))),
    "a convolution": lambda: chain((8, 8, 1), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(1)),
    "a table": lambda: chain((3,), layers.Embedding(10, 4), layers.Flatten(), layers.Dense(1)),
    "the user's own": lambda: chain((4,), Own(3)),
    "random numbers": lambda: chain((4,), layers.Dropout(0.5), layers.Dense(1)),
    "random numbers in a loop": lambda: chain((20, 8), layers.GRU(8, dropout=0.1), layers.Dense(1)),
    "nothing to multiply": lambda: chain((4,), layers.ReLU()),
    "operations between layers": lambda: keras.Model(*operations()),
    "a call of its own": lambda: OwnCall(),
    "not built": lambda: keras.Sequential([layers.Dense(3)]),
}


@pytest.mark.parametrize("name", WORTH)
def test_chains_of_small_layers(name):
    assert worth_compiling(WORTH[name]())


@pytest.mark.parametrize("name", NOT_WORTH)
def test_everything_else(name):
    assert not worth_compiling(NOT_WORTH[name]())


def test_the_batch_counts():
    model = WORTH["digits"]()
    assert worth_compiling(model, batch_size=128)
    assert not worth_compiling(model, batch_size=1024)


def test_short_trainings_do_without():
    model = WORTH["digits"]()
    assert xla.pays(model, 32, xla.STEPS) and not xla.pays(model, 32, xla.STEPS - 1)
    recurrent = WORTH["recurrent"]()
    assert xla.pays(recurrent, 32, xla.RECURRENT_STEPS) and not xla.pays(recurrent, 32, xla.RECURRENT_STEPS - 1)
    assert not xla.pays(NOT_WORTH["a convolution"](), 32, 10**9)


@pytest.mark.parametrize(("jit_compile", "expected"), [("auto", True), (False, False), (True, True)])
def test_fit_asks(monkeypatch, jit_compile, expected):
    monkeypatch.setattr(xla, "STEPS", 4)
    x = np.linspace(-1.0, 1.0, 8, dtype="float32")[:, None]
    losses = []
    for cls, options in ((keras.Sequential, {}), (BackpropSequential, {"jit_compile": jit_compile})):
        keras.utils.set_random_seed(0)
        model = cls([keras.Input((1,)), layers.Dense(4, "tanh"), layers.Dense(1)])
        model.compile("sgd", "mse", **options)
        losses.append(model.fit(x, x**2, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"])
    assert model.fit_path.jit_compile is expected
    np.testing.assert_allclose(*losses, rtol=1e-6)


def test_other_epochs_compile_nothing_anew():
    """What XLA must know while it compiles, such as where a slice begins, must not depend on which epochs are run."""
    model = BackpropSequential([keras.Input((4,)), layers.Dense(3, "tanh"), layers.Dense(1)])
    model.compile("sgd", "mse", jit_compile=True)
    x, y = np.ones((40, 4), "float32"), np.ones((40, 1), "float32")

    def seconds(epochs):
        start = time.process_time()
        model.fit(x, y, epochs=epochs, batch_size=16, validation_data=(x, y), verbose=0)
        return time.process_time() - start

    first = seconds(1)
    assert model.fit_path.compiled and model.fit_path.jit_compile
    assert seconds(4) < first / 5
