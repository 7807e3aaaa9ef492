"""What a trial before the first step finds out, and what an examination of the links does."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_backprop import BackpropSequential, backward
from keras_backprop.privacy.trial import require_built
from tests.privacy.problem import X, Y, a_plan


class Steps(layers.Layer):
    def build(self, shape):
        self.steps = self.add_weight(shape=(), trainable=False, initializer="zeros")
        self.steps.assign(5.0)

    def call(self, x):
        self.steps.assign_add(1.0)
        return x


def test_building_leaves_states_as_they_are_built():
    model = BackpropSequential([Steps(), layers.Dense(3)])
    require_built(model, X[:3])
    assert model.built and float(model.layers[0].steps) == 5


MIXING = {
    "softmax": lambda: [layers.Dense(3), layers.Softmax(axis=-2)],
    "unit norm": lambda: [layers.Dense(3), layers.UnitNormalization(axis=-2)],
    "activation": lambda: [layers.Dense(3, activation=lambda x: x - keras.ops.mean(x, 0, keepdims=True))],
    "activation that is a layer": lambda: [layers.Dense(3, activation=layers.Softmax(axis=0))],
    "equation": lambda: [layers.Dense(3), layers.EinsumDense("ab,bc->ca", (3, None))],
}


@pytest.mark.parametrize("kind", ["unit norm", "activation"])
def test_a_model_that_has_been_evaluated_is_tried(kind):
    model = BackpropSequential([keras.Input((5,)), *MIXING[kind]()])
    model.compile("sgd", "sparse_categorical_crossentropy", gradients=a_plan())
    model.evaluate(X, Y, verbose=0)
    with pytest.raises(ValueError, match="depends on who else is in the batch"):
        model.fit(X, Y, verbose=0)


@pytest.mark.parametrize("kind", MIXING)
def test_layers_of_keras_that_were_told_to_mix_do(kind):
    batch_size = 3 if kind == "equation" else None
    model = keras.Sequential([keras.Input((5,), batch_size=batch_size), *MIXING[kind]()])
    assert backward(model, X[:3], loss=lambda y: y**2).mixing


@pytest.mark.parametrize(
    "inner",
    [
        lambda: layers.Dense(4, activation=lambda x: x * keras.ops.tanh(x)),
        lambda: layers.Dense(4, activation=layers.LeakyReLU()),
        lambda: layers.LayerNormalization(axis=-1),
        lambda: layers.Softmax(axis=-2),
        lambda: layers.EinsumDense("abc,cd->abd", (2, 4)),
    ],
)
def test_layers_of_keras_that_were_not_told_so_do_not(inner):
    model = keras.Sequential([keras.Input((2, 5)), layers.Dense(4), inner(), layers.Flatten(), layers.Dense(3)])
    assert not backward(model, np.stack([X[:3], X[3:6]], 1), loss=lambda y: keras.ops.mean(y, -1)).mixing
