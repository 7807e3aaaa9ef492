"""Steps of every make can be copied into a loop: functions inside functions, loops, branches, tables, state, Python."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropSequential, _keras

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(70, 5)).astype("float32")
Y = X[:, :1] * 2 + 1


def grown(x):
    return tf.while_loop(lambda i, _: i < 3, lambda i, x: (i + 1, x * 1.1), (tf.constant(0), x))[1]


def plus_one(x):
    y = tf.stop_gradient(tf.py_function(lambda x: x + 1, [x], tf.float32))
    return x + tf.reshape(y, tf.shape(x))


class Counted(layers.Layer):
    def __init__(self):
        super().__init__()
        self.calls = tf.Variable(0.0, trainable=False)

    def call(self, x):
        return x * (1 + 0.01 * self.calls.assign_add(1.0))


class Looked(layers.Layer):
    def __init__(self):
        super().__init__()
        entries = tf.lookup.KeyValueTensorInitializer([0, 1, 2], [0.5, 1.0, 2.0])
        self.table = tf.lookup.StaticHashTable(entries, -1.0)

    def call(self, x):
        return x + self.table.lookup(tf.cast(tf.abs(x), tf.int32))


class Own(layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def call(self, x):
        return self.function(x)


LAYERS = {
    "branch": lambda: Own(lambda x: tf.cond(tf.reduce_mean(x) > 0, lambda: x * 2, lambda: x * 3)),
    "loop": lambda: Own(grown),
    "loop in a branch": lambda: Own(lambda x: tf.cond(tf.reduce_mean(x) > 0, lambda: grown(x), lambda: x)),
    "function": lambda: Own(tf.function(lambda x: x * tf.sin(x))),
    "map": lambda: Own(lambda x: tf.map_fn(lambda row: row * 2, x)),
    "Python": lambda: Own(plus_one),
    "state": Counted,
    "table": Looked,
    "random": lambda: layers.GaussianNoise(0.1, seed=3),
}


@pytest.mark.sample(5)
@pytest.mark.parametrize("jit_compile", ["auto", pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_a_copied_step_does_what_the_step_does(layer, jit_compile):
    """In loops over batches of two sizes, with and without validation."""
    results = []
    for cls in (keras.Sequential, BackpropSequential):
        keras.utils.set_random_seed(1)
        model = cls([keras.Input((5,)), layers.Dense(8, "tanh"), layer(), layers.Dense(1)])
        model.compile("adam", "mse", jit_compile=jit_compile)
        arguments = {"epochs": 2, "verbose": 0, "shuffle": False}
        try:
            losses = [model.fit(X, Y, **arguments).history["loss"]]
            history = model.fit(X[:50], Y[:50], validation_data=(X[:33], Y[:33]), **arguments).history
            results.append([*losses, history["loss"], history["val_loss"], *model.get_weights()])
        except (tf.errors.OpError, ValueError) as error:  # what XLA cannot compile
            results.append([type(error).__name__])
    assert model.fit_path.compiled or jit_compile is True
    for stock, ours in zip(*results, strict=True):
        if isinstance(stock, str):
            assert ours == stock
        else:
            np.testing.assert_allclose(ours, stock, rtol=1e-5, atol=1e-6)


def test_a_name_that_tensorflow_refuses_is_an_error_as_in_stock_keras():
    """The attempt at a loop must leave no name scope behind, in which Keras's own loop would go through."""
    for cls in (keras.Sequential, BackpropSequential):
        model = cls([keras.Input((3,)), layers.Dense(1)], name="a b")
        model.compile("sgd", "mse")
        with pytest.raises(ValueError, match="scope name"), _keras.name_scopes_kept():  # Keras itself leaves one
            model.fit(np.ones((8, 3)), np.ones((8, 1)), verbose=0)
        after = layers.Dense(1, name="fine")
        after.build((None, 3))
        assert after.path == "fine"
