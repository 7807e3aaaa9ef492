"""A step is traced in the first batch, and kept until the model is compiled anew: as in stock Keras, whatever loop runs it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropSequential

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(70, 5)).astype("float32")
Y = (X[:, :1] * 2 + 1).astype("float32")


def network(cls):
    keras.utils.set_random_seed(1)
    model = cls([keras.Input((5,)), layers.Dense(8, "tanh"), layers.Dropout(0.5, seed=1), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05, momentum=0.5), "mse", metrics=["mae"])
    return model


def fit(model, n=70, **arguments):
    return model.fit(X[:n], Y[:n], **{"epochs": 3, "verbose": 0, "shuffle": False, **arguments}).history


def assert_equal(program):
    """A program that takes the class of a model and returns the model and its histories does the same in stock and ours."""
    (stock, expected), (ours, histories) = (program(cls) for cls in (keras.Sequential, BackpropSequential))
    for history, other in zip(histories, expected, strict=True):
        assert list(history) == list(other)
        for name, values in other.items():
            np.testing.assert_allclose(history[name], values, rtol=1e-5, atol=1e-6, err_msg=name)
    for a, b in zip(ours.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    assert int(ours.optimizer.iterations) == int(stock.optimizer.iterations)
    return ours


def freeze(model):
    model.layers[0].trainable = False


def rate(model):
    model.layers[1].rate = 0.0


def schedule(model):
    model.optimizer.learning_rate = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)


def clip(model):
    model.optimizer.clipnorm = 1e-3


def penalty(model):
    model.layers[0].kernel.regularizer = keras.regularizers.L2(1.0)


def constraint(model):
    model.layers[0].kernel.constraint = keras.constraints.MaxNorm(0.1)


def decay(model):
    model.optimizer.weight_decay = 0.5


def other_optimizer(model):
    model.optimizer = keras.optimizers.Adam(0.1)


CHANGES = (freeze, rate, schedule, clip, penalty, constraint, decay, other_optimizer)


class Change(keras.callbacks.Callback):
    """Changes the model when it is called by `hook`, the n-th time."""

    def __init__(self, hook, change, time=0):
        super().__init__()
        self.calls = 0

        def method(*args, **kwargs):
            if self.calls == time:
                change(self.model)
            self.calls += 1

        if hook == "set_model":
            self.change = change
        else:
            setattr(self, hook, method)

    def set_model(self, model):
        super().set_model(model)
        if hasattr(self, "change"):
            self.change(model)


HOOKS = ("set_model", "on_train_begin", "on_epoch_begin")


@pytest.mark.sample(5)
@pytest.mark.parametrize(
    ("hook", "change"),
    [
        pytest.param(hook, change, marks=[] if (i + j) % 3 == 0 else pytest.mark.slow)
        for i, hook in enumerate(HOOKS)
        for j, change in enumerate(CHANGES)
    ],
)
def test_what_a_callback_changes_before_the_first_batch_takes_effect(hook, change):
    def program(cls):
        model = network(cls)
        return model, [fit(model, callbacks=[Change(hook, change)]), fit(model, n=50)]

    assert assert_equal(program).fit_path.compiled


@pytest.mark.sample(5)
@pytest.mark.parametrize("change", [penalty])
@pytest.mark.parametrize(
    ("hook", "time"), [("on_epoch_begin", 1), ("on_epoch_end", 0), ("on_test_begin", 0), ("on_test_begin", 1)]
)
@pytest.mark.parametrize("frequency", [1, 2])
def test_what_a_callback_changes_afterwards_does_not(hook, time, change, frequency):
    """Nor in validation, after the first."""

    def program(cls):
        model = network(cls)
        callbacks = [Change(hook, change, time)]
        return model, [fit(model, callbacks=callbacks, epochs=4, validation_data=(X, Y), validation_freq=frequency)]

    assert assert_equal(program).fit_path.compiled


FIRST = {
    "fit": fit,
    "other rows": lambda model: fit(model, n=40),
    "even batches": lambda model: fit(model, n=64),
    "one batch": lambda model: fit(model, batch_size=70),
    "Keras's loop": lambda model: fit(model, callbacks=[EveryBatch()]),
    "validation": lambda model: fit(model, validation_data=(X, Y)),
    "evaluate": lambda model: model.evaluate(X, Y, verbose=0, return_dict=True),
    "train_on_batch": lambda model: model.train_on_batch(X[:32], Y[:32], return_dict=True),
    "tf.data": lambda model: model.fit(dataset(), epochs=2, verbose=0, shuffle=False).history,
}
THEN = {**FIRST, "weights": lambda model: fit(model, sample_weight=np.linspace(0.1, 1, 70))}


class EveryBatch(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(32)


PAIRS = [(a, b) for a in FIRST for b in THEN if "fit" in (a, b) or a == "validation"]
QUICK = [
    ("fit", "other rows"),
    ("fit", "validation"),
    ("Keras's loop", "fit"),
    ("evaluate", "fit"),
    ("even batches", "fit"),
]


@pytest.mark.sample(6)
@pytest.mark.parametrize("change", [freeze, rate])
@pytest.mark.parametrize(
    ("first", "then"), [pytest.param(*pair, marks=[] if pair in QUICK else pytest.mark.slow) for pair in PAIRS]
)
def test_what_is_changed_between_two_calls(first, then, change):
    def program(cls):
        model = network(cls)
        before = FIRST[first](model)
        change(model)
        return model, [before, THEN[then](model), fit(model)]

    assert_equal(program)


def anew(model):
    model.compile(keras.optimizers.SGD(0.01), "mae", metrics=["mse"])


def anew_eagerly(model):
    model.compile(keras.optimizers.SGD(0.01), "mae", metrics=["mse"], run_eagerly=True)


@pytest.mark.sample(3)
@pytest.mark.parametrize("change", [anew, anew_eagerly])
@pytest.mark.parametrize(("hook", "epoch"), [("on_train_begin", 0), ("on_epoch_begin", 1), ("on_epoch_end", 0)])
def test_a_callback_that_compiles_the_model(hook, epoch, change):
    """Stock Keras has no train function then, and fails. Here training goes on with what has been compiled."""
    with pytest.raises(TypeError, match="not callable"):
        fit(network(keras.Sequential), callbacks=[Change(hook, change, epoch if hook == "on_epoch_begin" else 0)])
    model, expected = network(BackpropSequential), network(BackpropSequential)
    begun = []
    count = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs=None: begun.append(epoch))
    change_of = Change(hook, change, epoch if hook == "on_epoch_begin" else 0)
    history = fit(model, callbacks=[change_of, count], validation_data=(X, Y))
    if hook != "on_train_begin":
        fit(expected, epochs=1, validation_data=(X, Y))
    change(expected)
    rest = fit(expected, initial_epoch=0 if hook == "on_train_begin" else 1, validation_data=(X, Y))
    assert begun == [0, 1, 2] and model.history.epoch == [0, 1, 2]
    for name, values in rest.items():
        np.testing.assert_allclose(history[name][-len(values) :], values, rtol=1e-5)
    for a, b in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert model.fit_path.compiled is (change is anew)
