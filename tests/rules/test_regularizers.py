"""The rules of `rules/regularizers.py`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops, regularizers

from keras_backprop import BackpropModel, check_gradients, rule_for
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep


class Cubic(regularizers.Regularizer):
    """A custom penalty: it expands."""

    def __call__(self, x):
        return 0.1 * ops.sum(ops.abs(x) ** 3)


class Shifted(regularizers.L2):
    """A subclass that computes something else must not inherit the rule."""

    def __call__(self, x):
        return super().__call__(x - 1.0)


class OfTheWeight(regularizers.Regularizer):
    """It takes what Keras hands over for a weight and not for its value: it asks for the path, and its tape for the variable."""

    def __call__(self, w):
        with tf.GradientTape() as tape:
            error = tf.reduce_sum(tf.sin(w)) if w.path.endswith("kernel") else 0.0
        return 0.1 * tf.reduce_sum(tape.gradient(error, w.value) ** 2)


REGULARIZERS = {
    "l1": lambda: regularizers.L1(0.3),
    "l2": lambda: regularizers.L2(0.3),
    "l1_l2": lambda: regularizers.L1L2(0.3, 0.7),
    "l1_l2-first": lambda: regularizers.L1L2(l1=0.3),
    "l1_l2-second": lambda: regularizers.L1L2(l2=0.3),
    "l1_l2-none": lambda: regularizers.L1L2(),
    "rows": lambda: regularizers.OrthogonalRegularizer(0.3),
    "columns": lambda: regularizers.OrthogonalRegularizer(0.3, mode="columns"),
    "custom": Cubic,
    "subclass": lambda: Shifted(0.3),
}
IN_DOUBLE = [name for name in REGULARIZERS if name not in ("rows", "columns")]  # Keras keeps their factor in float32


@pytest.mark.parametrize("name", REGULARIZERS)
def test_rule(name):
    """Against the tape, in float32: the dtype that every regulariser works in."""
    regularizer = REGULARIZERS[name]()
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 3)), tf.float32)
    record = Record()
    y = record.run(regularizer, x)
    ours = sweep(record.calls, [(y, tf.constant(1.5))], inputs=[x]).input_gradient(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        expected = regularizer(x)
    theirs = tape.gradient(expected, x, unconnected_gradients="zero")
    np.testing.assert_allclose(y, expected, rtol=1e-6)
    np.testing.assert_allclose(ours, 1.5 * theirs, rtol=1e-5, atol=1e-6)


def test_every_regularizer_has_a_rule():
    for name in dir(regularizers):
        value = getattr(regularizers, name)
        if isinstance(value, type) and value is not regularizers.Regularizer:
            assert rule_for(value()) is not None, name
    assert rule_for(Cubic()) is None
    assert rule_for(Shifted()) is None


@pytest.mark.parametrize("name", IN_DOUBLE)
@pytest.mark.parametrize("where", ["kernel_regularizer", "bias_regularizer", "activity_regularizer"])
def test_in_a_model(name, where):
    regularizer = REGULARIZERS[name]()
    inputs = keras.Input((4,))
    h = layers.Dense(3, "tanh", bias_initializer="normal", **{where: regularizer})(inputs)
    model = keras.Model(inputs, layers.Dense(2)(h))
    model.compile("sgd", "mse")
    x, y = np.random.default_rng(1).normal(size=(5, 4)), np.ones((5, 2))
    check_gradients(model, x, y).raise_if_failed()


@pytest.mark.sample(5)
@pytest.mark.parametrize("name", REGULARIZERS)
def test_fit_equals_stock_keras(name):
    assert_fit_equals_stock_keras(REGULARIZERS[name])


def test_a_weight_is_penalised_as_it_is():
    assert_fit_equals_stock_keras(OfTheWeight)


def assert_fit_equals_stock_keras(regularizer):
    weights = []
    for cls in (keras.Model, BackpropModel):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((4,))
        kind = {"kernel_regularizer": regularizer(), "activity_regularizer": REGULARIZERS["l1"]()}
        h = layers.Dense(3, "tanh", **kind)(inputs)
        model = cls(inputs, layers.Dense(2)(h))
        model.compile(keras.optimizers.SGD(0.1), "mse")
        x, y = np.random.default_rng(1).normal(size=(7, 4)), np.ones((7, 2))
        model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for stock, ours in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=0, atol=1e-6)
