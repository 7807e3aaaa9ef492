"""Random operations that keep their place in a stream to themselves: the numbers of stock Keras, whatever `fit` is asked for."""

import functools
import itertools
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_backprop import BackpropModel
from keras_backprop.callbacks import BackwardMonitor

X, Y = np.ones((16, 3), "float32"), np.zeros((16, 1), "float32")
layers = keras.layers


class Noisy(layers.Layer):
    def call(self, x):
        return x + tf.random.normal(tf.shape(x))


class NoisyInTests(layers.Layer):
    def call(self, x, training=None):
        return x if training else x + tf.random.normal(tf.shape(x))


def batches():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)


class StopsAtBatch(keras.callbacks.Callback):
    reads_only_logs = True

    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = batch == 2

    def on_test_batch_end(self, batch, logs=None):
        pass


class StopsAfterTwoEpochs(keras.callbacks.Callback):
    reads_only_logs = True

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == 1


def trained(base, data, fits, monitor=None, noise=Noisy, **compiled):
    """The losses of some `fit` in a row, of `evaluate`, and the weights."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((3,))
    model = base(inputs, layers.Dense(1)(noise()(inputs)))
    model.compile("sgd", "mse", **compiled)
    data = {"x": X, "y": Y, "batch_size": 4} if data == "memory" else {"x": batches()}
    seen = []
    for options in fits:
        callbacks = [*options.get("callbacks", []), *([monitor] if monitor is not None else [])]
        history = model.fit(**data, epochs=3, shuffle=False, verbose=0, **{**options, "callbacks": callbacks}).history
        seen += [x for name in sorted(history) for x in history[name]]
    return [*seen, model.evaluate(**data, verbose=0), *keras.ops.convert_to_numpy(model.weights[0]).ravel()]


CASES = {
    "callbacks": [{}, {"callbacks": [keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)]}],
    "validation": [{}, {"validation_data": (X[:8], Y[:8])}, {}],
    "undone": [{"callbacks": [StopsAtBatch()]}, {"callbacks": [StopsAtBatch()], "validation_data": (X[:8], Y[:8])}],
}


@pytest.mark.parametrize("case, data", [*((case, "memory") for case in CASES), ("validation", "batch by batch")])
def test_another_fit_goes_on_with_the_stream(case, data):
    expected = trained(keras.Model, data, CASES[case])
    np.testing.assert_allclose(trained(BackpropModel, data, CASES[case]), expected, rtol=1e-5, atol=1e-6)


def test_validation_draws_from_the_stream_of_evaluate():
    fits = [{"validation_data": (X[:8], Y[:8])}, {}]
    expected = trained(keras.Model, "memory", fits, noise=NoisyInTests)
    np.testing.assert_allclose(
        trained(BackpropModel, "memory", fits, noise=NoisyInTests), expected, rtol=1e-5, atol=1e-6
    )


def test_epochs_that_would_be_undone_share_no_call():
    fits = [{"callbacks": [StopsAfterTwoEpochs()]}]
    expected = trained(keras.Model, "memory", fits)
    got = trained(BackpropModel, "memory", fits, epochs_per_execution=3)
    np.testing.assert_allclose(got[:2] + got[3:], expected[:2] + expected[3:], rtol=1e-5, atol=1e-6)  # `evaluate` apart


def test_a_monitor_that_notes_some_steps_changes_no_random_numbers():
    expected = trained(keras.Model, "memory", [{}])
    np.testing.assert_allclose(
        trained(BackpropModel, "memory", [{}], BackwardMonitor(every=3)), expected, rtol=1e-5, atol=1e-6
    )


class DrawnInPython(layers.Layer):
    """A seed, and a number, that Python draws while the step is traced."""

    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def call(self, x):
        return x + self.draw(tf.shape(x))


class Stack(keras.Model):
    def __init__(self, draw):
        super().__init__()
        self.stack = [layers.Dense(3), DrawnInPython(draw), layers.Dense(1)]

    def call(self, x):
        for layer in self.stack:
            x = layer(x)
        return x


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize(
    "draw",
    [
        lambda shape: tf.random.normal(shape, seed=np.random.randint(1000)),
        lambda shape: np.random.uniform(),
        lambda shape: random.random(),
    ],
    ids=["a seed", "numpy", "random"],
)
def test_what_python_draws_in_a_trace_is_that_of_the_trace_that_stock_keras_runs(draw, built):
    """Of the second one, where the first makes weights or the optimizer's variables."""
    losses = []
    for ours in (False, True):
        keras.utils.set_random_seed(3)
        model = Stack(draw)
        if built:
            inputs = keras.Input((3,))
            model = keras.Model(inputs, model(inputs))
        model = BackpropModel.from_keras(model) if ours else model
        model.compile("adam", "mse")
        losses.append(model.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


class Counting(layers.Layer):
    """Counts in Python how often it has been traced."""

    def __init__(self, kind, name):
        super().__init__()
        self.counter = name
        setattr(self, name, kind(0))

    def call(self, x):
        calls = getattr(self, self.counter) + 1
        setattr(self, self.counter, calls)
        return x * float(calls)


class Drawing(layers.Layer):
    """Has a generator of its own in Python."""

    def __init__(self, kind):
        super().__init__()
        self.generator = kind(3)

    def call(self, x):
        return x * self.generator.normal()


class Outer(layers.Layer):
    """Makes another layer when it is built."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def build(self, shape):
        self.inner = self.make()

    def call(self, x):
        return self.inner(x)


class Asking(layers.Layer):
    """Asks for a number whenever it is traced."""

    def __init__(self, ask):
        super().__init__()
        self.ask = ask

    def call(self, x):
        return x * float(self.ask())


class Tally:
    of_all = 0

    def __init__(self):
        self.calls = 0

    def next(self):
        self.calls += 1
        return self.calls

    @classmethod
    def next_of_all(cls):
        cls.of_all += 1
        return cls.of_all


COUNTS: dict = {"calls": 0}
CALLS: list = []


def counted():
    COUNTS["calls"] += 1
    CALLS.append(len(CALLS))
    return COUNTS["calls"] * len(CALLS)


def counted_in_an_array():
    counts = np.zeros(2)

    def count():
        counts[1] += 1
        return counts[1]

    return count


class Slotted:
    """Whoever asks it for its attributes gets an error."""

    __slots__ = ("calls",)

    def __getattr__(self, name):
        raise KeyError(name)


class Called(Tally):
    def __call__(self, x):
        return x * self.next()

    def penalty(self, x):
        return 0.01 * self.next() * tf.reduce_sum(tf.square(x))


class Unlike(layers.Layer):
    """It keeps what cannot be looked at."""

    def __init__(self):
        super().__init__()
        self.slotted, self.system, self.calls = Slotted(), random.SystemRandom(), 0

    def call(self, x):
        self.calls += 1
        return x * self.calls


STATES = {
    "beside what cannot be looked at": Unlike,
    "a method as Lambda": lambda: layers.Lambda(Called().__call__),
    "an object as activation": lambda: layers.Dense(3, Called()),
    "a regularizer": lambda: layers.Dense(3, kernel_regularizer=Called().penalty),
    "globals of a function": lambda: Asking(lambda: counted()),
    "an array": lambda: Asking(counted_in_an_array()),
    "an object": lambda: Asking(Tally().next),
    "a class": lambda: Asking(Tally.next_of_all),
    "an iterator": lambda: Asking(functools.partial(next, itertools.cycle([1, 2, 3]))),
    "a generator function": lambda: Asking(functools.partial(next, (i for i in range(1, 9)))),
    "Lambda": lambda: layers.Lambda(lambda x, calls=[0]: x * (calls.append(0) or len(calls))),
    "an activation": lambda: layers.Dense(3, (lambda count: lambda x: x * count())(Tally().next)),
    "a count": lambda: Counting(int, "calls"),
    "a private count": lambda: Counting(int, "_calls"),
    "a number of NumPy": lambda: Counting(np.int64, "calls"),
    "in a layer": lambda: Outer(lambda: Counting(int, "calls")),
    "a generator": lambda: Drawing(np.random.default_rng),
    "an old generator": lambda: Drawing(np.random.RandomState),
}


@pytest.mark.sample(8)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("state", STATES)
def test_what_python_keeps_in_a_trace_is_that_of_the_trace_that_stock_keras_runs(state, optimizer, built):
    losses = []
    for ours in (False, True):
        keras.utils.set_random_seed(3)
        COUNTS["calls"] = Tally.of_all = 0
        CALLS.clear()
        inputs = [keras.Input((3,))] if built else []
        model = keras.Sequential([*inputs, layers.Dense(3), STATES[state](), layers.Dense(1)])
        model = BackpropModel.from_keras(model) if ours else model
        model.compile(optimizer, "mse")
        losses.append(model.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def counting_loss():
    count = Tally()
    return lambda y, p: keras.losses.mean_squared_error(y, p) * count.next()


class CountingLoss(keras.losses.Loss):
    calls = 0

    def call(self, y_true, y_pred):
        self.calls += 1
        return keras.ops.mean(keras.ops.square(y_true - y_pred), -1) * self.calls


class CountingMean(keras.metrics.Mean):
    calls = 0

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.calls += 1
        super().update_state(y_pred * self.calls)


def drawing_around_its_step(base):
    class Drawing(base):
        calls = 0

        def train_step(self, data):
            x, y = data
            logs = super().train_step((x * np.random.uniform() * (1 + self.calls), y))
            self.calls += 1
            return logs

    return Drawing


@pytest.mark.parametrize(
    "made",
    [
        {"loss": counting_loss},
        {"loss": CountingLoss},
        {"metrics": lambda: [CountingMean(name="m")]},
        {"base": drawing_around_its_step},
    ],
    ids=["a loss function", "a loss", "a metric", "a train_step"],
)
def test_so_is_what_losses_metrics_and_a_train_step_keep(made):
    histories = []
    for base in (keras.Model, BackpropModel):
        keras.utils.set_random_seed(3)
        inputs = keras.Input((3,))
        model = made.get("base", lambda base: base)(base)(inputs, layers.Dense(1)(layers.Dense(3)(inputs)))
        model.compile("adam", made.get("loss", lambda: "mse")(), metrics=made.get("metrics", list)())
        histories.append(model.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0).history)
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=1e-5)
