"""Explaining changes nothing, and foretells what the optimizer will do, whichever it is."""

import keras
import numpy as np
import pytest

from keras_backprop import explain
from tests.explanations.networks import residual, same, state

optimizers = keras.optimizers
OPTIMIZERS = {
    "SGD": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "Adam with a schedule": lambda: optimizers.Adam(optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)),
    "Adam with a function": lambda: optimizers.Adam(lambda: 0.01, clipnorm=0.1),
    "AdamW": optimizers.AdamW,
    "RMSprop with averages": lambda: optimizers.RMSprop(use_ema=True, ema_overwrite_frequency=2),
    "SGD that accumulates": lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2),
    "LossScaleOptimizer": lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.1)),
    "Adafactor": optimizers.Adafactor,
    "Lamb": optimizers.Lamb,
    "Muon": optimizers.Muon,
    "Ftrl": optimizers.Ftrl,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_foretells_the_next_steps_and_changes_nothing(name):
    model, x, y = residual(optimizer=OPTIMIZERS[name](), metrics=["accuracy"], run_eagerly=True)
    for _ in range(2):  # the first step builds the optimizer
        before = state(model)
        explanation = explain(model, x, y)
        assert same(before, state(model))
        model.train_on_batch(x, y)  # draws the dropout mask that was explained
        for weight, variable in zip(explanation.weights, model.trainable_weights, strict=True):
            np.testing.assert_allclose(
                weight.updated, keras.ops.convert_to_numpy(variable), rtol=1e-5, atol=1e-6, err_msg=weight.path
            )
    assert not same(before, state(model))


def test_batch_statistics_seeds_and_added_losses_stay():
    class Penalised(keras.layers.Layer):
        def call(self, x):
            self.add_loss(0.01 * keras.ops.sum(keras.ops.square(x)))
            return x

    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3, activity_regularizer="l2"),
            keras.layers.BatchNormalization(),
            Penalised(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )
    model.compile("adam", "mse", metrics=["mae"])
    x, y = np.random.default_rng(0).normal(size=(8, 4)), np.ones((8, 1))
    model.train_on_batch(x, y)
    model(x, training=True)
    before = state(model)
    first, second = explain(model, x, y), explain(model, x, y)
    assert len(before["losses"]) == 2
    assert same(before, state(model))
    assert first.loss == second.loss  # the same mask each time


def test_everything_is_put_back_after_an_error(monkeypatch):
    model, x, y = residual()
    before = state(model)

    def fail(*arguments):
        raise ArithmeticError("in the middle of an update")

    monkeypatch.setattr(keras.optimizers.Adam, "apply", fail)
    with pytest.raises(ArithmeticError, match="in the middle"):
        explain(model, x, y)
    assert same(before, state(model))
