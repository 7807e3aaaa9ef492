"""The lean update against the optimizer's own: same weights, same state, whatever else the optimizer does."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_backprop.training import update
from keras_backprop.training.update import lean_update

OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "nesterov": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "adam, other betas": lambda: keras.optimizers.Adam(0.01, beta_1=0.5, beta_2=0.95, epsilon=1e-3),
    "amsgrad": lambda: keras.optimizers.Adam(0.01, amsgrad=True),
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "schedule": lambda: keras.optimizers.Adam(keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5)),
    "clipped": lambda: keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=1.0),
    "averaged": lambda: keras.optimizers.SGD(0.1, use_ema=True, ema_overwrite_frequency=3),
    "accumulated": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), initial_scale=4.0),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01),
}
SHAPES = [(3,), (40, 50), (200, 200)]  # small, between, large


def train(make, context, dtype, compiled=True, steps=20, slices=False):
    random = np.random.default_rng(0)
    weights = [keras.Variable(random.normal(size=shape), dtype=dtype) for shape in SHAPES]
    gradients = [tf.Variable(tf.zeros(shape, dtype)) for shape in SHAPES]
    optimizer = make()
    optimizer.build(weights)

    def step():
        dW = [g.value() for g in gradients]
        if slices:
            dW[2] = tf.IndexedSlices(dW[2][:5], tf.constant([1, 3, 3, 7, 0]), tf.constant([200, 200]))
        with context(optimizer):
            optimizer.apply_gradients(zip(dW, weights, strict=True))

    step = tf.function(step, autograph=False) if compiled else step
    for _ in range(steps):
        for g in gradients:
            g.assign(random.normal(size=g.shape).astype(dtype))
        step()
    return [keras.ops.convert_to_numpy(v) for v in weights + optimizer.variables]


def compare(make, dtype, rtol, **options):
    expected = train(make, lambda optimizer: contextlib.nullcontext(), dtype, **options)
    for ours, theirs in zip(train(make, lean_update, dtype, **options), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_update_is_that_of_keras(name):
    compare(OPTIMIZERS[name], "float64", 1e-12)


@pytest.mark.parametrize("name", ["momentum", "adam", "adamw"])
@pytest.mark.parametrize("compiled", [True, False])
def test_single_precision(name, compiled):
    compare(OPTIMIZERS[name], "float32", 2e-7, compiled=compiled, steps=50)


@pytest.mark.sample(8)
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw", "amsgrad", "clipped", "accumulated", "scaled"])
def test_gradients_of_a_few_rows(name, compiled):
    compare(OPTIMIZERS[name], "float64", 1e-12, slices=True, compiled=compiled)


def test_a_subclass_keeps_its_own_update():
    class Mine(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            variable.assign_sub(2.0 * gradient)

    compare(Mine, "float64", 1e-12)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "rmsprop"])
def test_the_updates_are_used(monkeypatch, name):
    """So that the tests above compare two things."""
    asked = []
    kind = type(update.unwrapped(OPTIMIZERS[name]()))
    leaner = update.UPDATES[kind]

    def spy(optimizer, rates):
        original = leaner(optimizer, rates)
        return lambda *args: asked.append(original(*args)) or asked[-1]

    monkeypatch.setitem(update.UPDATES, kind, spy)
    train(OPTIMIZERS[name], lean_update, "float32", steps=1)
    assert asked == [name != "amsgrad"] * 3
