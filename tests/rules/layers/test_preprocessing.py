"""The rules of `rules/layers/preprocessing.py`."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_backprop import BackpropModel, rule_for
from tests.checking import Case, check_rule

MEAN, VARIANCE = [0.5, -1.0, 2.0], [4.0, 0.25, 9.0]

CASES = [
    Case("rescaling", lambda: layers.Rescaling(0.5, 1.0), ((2, 3, 4),)),
    Case("rescaling-array", lambda: layers.Rescaling([0.5, 2.0, 3.0]), ((2, 4, 3),)),
    Case("normalization", lambda: layers.Normalization(mean=MEAN, variance=VARIANCE), ((4, 3),)),
    Case("normalization-inverted", lambda: layers.Normalization(mean=MEAN, variance=VARIANCE, invert=True), ((4, 3),)),
    Case("normalization-all-axes", lambda: layers.Normalization(axis=None, mean=2.0, variance=3.0), ((2, 4, 3),)),
    Case("normalization-no-variance", lambda: layers.Normalization(mean=MEAN, variance=[0.0, 1.0, 0.0]), ((4, 3),)),
    Case("pipeline", lambda: layers.Pipeline([layers.Rescaling(0.5, 1.0), layers.Dense(3, "tanh")])),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


def test_an_adapted_normalization():
    def make():
        layer = layers.Normalization()
        layer.adapt(np.random.default_rng(0).normal(2.0, 3.0, (50, 3)))
        return layer

    check_rule(Case("adapted", make, ((4, 3),)))


def test_what_looks_up_is_declared_not_differentiable():
    for name in ("StringLookup", "Discretization"):
        assert rule_for(getattr(keras.layers, name)).kind == "not differentiable"


def augmented(cls, *before):
    """An image classifier that augments its input, after the layers given."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6, 6, 2))
    h = inputs
    for layer in before:
        h = layer(h)
    h = layers.Pipeline([layers.RandomFlip(seed=3), layers.RandomTranslation(0.2, 0.2, seed=4)])(h)
    h = layers.Flatten()(layers.CenterCrop(3, 3)(layers.Resizing(5, 5)(h)))
    model = cls(inputs, layers.Dense(2)(h))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def test_augmentation_at_the_input_trains_as_in_stock_keras():
    x, y = np.random.default_rng(0).normal(size=(4, 6, 6, 2)), np.ones((4, 2))
    weights = []
    for cls in (keras.Model, BackpropModel):
        model = augmented(cls)
        model.fit(x, y, epochs=3, batch_size=4, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for stock, ours in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=0, atol=1e-6)


def test_augmentation_after_a_trainable_layer_trains_as_in_stock_keras():
    x, y = np.random.default_rng(0).normal(size=(4, 6, 6, 2)), np.ones((4, 2))
    weights = []
    for cls in (keras.Model, BackpropModel):
        keras.utils.set_random_seed(1)
        model = augmented(cls, layers.Dense(2))
        model.fit(x, y, epochs=3, verbose=0, shuffle=False)
        weights.append(model.get_weights())
    for stock, ours in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=1e-5, atol=1e-6)


def test_lookups_and_bins_have_no_gradient():
    check_rule(Case("discretization", lambda: layers.Discretization([0.0, 1.0], output_mode="one_hot"), ((4, 1),)))
