"""What the rule says of models; that it says what was measured is in docs/speed.md."""

import keras
import pytest
from keras import layers

from keras_backprop import BackpropModel, BackpropSequential
from keras_backprop.training.xla import worth_compiling


class Own(layers.Dense):
    pass


def chain(shape, *parts):
    return keras.Sequential([keras.Input(shape), *parts])


def branches():
    inputs = keras.Input((4,))
    return BackpropModel(inputs, layers.Add()([layers.Dense(4, "relu")(inputs), chain((4,), layers.Dense(4))(inputs)]))


WORTH = {
    "the note's network": lambda: BackpropSequential([keras.Input((1,)), layers.Dense(1), layers.Dense(1)]),
    "digits": lambda: chain((64,), layers.Dense(128, "relu"), layers.Dropout(0.5), layers.Dense(10, "softmax")),
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
    "nothing to multiply": lambda: chain((4,), layers.ReLU()),
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
