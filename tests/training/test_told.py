"""What has been trained is what the callbacks have been told of, though many epochs share a call."""

import threading
import time
from unittest import mock

import keras
import numpy as np
import pytest
from keras import layers

from keras_backprop import BackpropSequential

X = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
Y = X[:, :1] * 2 + 1


def network():
    keras.utils.set_random_seed(1)
    model = BackpropSequential(
        [keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dropout(0.3, seed=2), layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def assert_trained(model, epochs):
    """It is what a training of so many epochs makes of it."""
    expected = network()
    expected.fit(X, Y, epochs=epochs, verbose=0)
    assert int(model.optimizer.iterations) == epochs
    for a, b in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    rest = [one.fit(X, Y, epochs=2, verbose=0).history["loss"] for one in (model, expected)]
    np.testing.assert_allclose(*rest, rtol=1e-5)  # the metrics and random numbers, too, went on from there


class Reads(keras.callbacks.Callback):
    """Reads the logs, and does something at the end, or the beginning, of the epoch with this number."""

    reads_only_logs = True

    def __init__(self, number, do, at="end"):
        super().__init__()
        self.number, self.do, self.at, self.told = number, do, at, 0

    def on_epoch_begin(self, epoch, logs=None):
        if self.at == "begin" and epoch == self.number:
            self.do(self.model)

    def on_epoch_end(self, epoch, logs=None):
        self.told += 1
        if self.at == "end" and epoch == self.number:
            self.do(self.model)


def fail(model):
    raise OSError("disk full")


def interrupt(model):
    raise KeyboardInterrupt


def stop(model):
    model.stop_training = True


@pytest.mark.parametrize("do", [fail, interrupt])
@pytest.mark.parametrize(("at", "epochs"), [("begin", 300), ("end", 301)])
def test_what_nobody_was_told_of_is_given_back(do, at, epochs):
    model, callback = network(), Reads(300, do, at)
    with pytest.raises((OSError, KeyboardInterrupt)):
        model.fit(X, Y, epochs=1000, verbose=0, callbacks=[callback])
    assert model.fit_path.epochs_per_execution > 1 and callback.told == epochs
    assert_trained(model, epochs)


@pytest.mark.parametrize("options", [{}, {"epochs_per_execution": 50}])
def test_training_ends_in_the_epoch_in_which_it_is_ended(options):
    model = network()
    model.compile(keras.optimizers.Adam(0.01), "mse", **options)
    history = model.fit(X, Y, epochs=1000, verbose=0, callbacks=[Reads(300, stop)])
    assert len(history.epoch) == 301
    assert_trained(model, 301)


def test_a_model_too_large_to_copy_tells_every_epoch(monkeypatch):
    monkeypatch.setattr("keras_backprop.training.run.LARGEST", 100)
    model, callback = network(), Reads(20, fail)
    with pytest.raises(OSError, match="disk full"):
        model.fit(X, Y, epochs=100, verbose=0, callbacks=[callback])
    assert model.fit_path.epochs_per_execution == 1 and "would be large" in model.fit_path.reason
    assert_trained(model, 21)


def test_a_thread_may_end_the_training():
    model = network()
    thread = threading.Timer(0.5, stop, [model])
    thread.start()
    start = time.perf_counter()
    history = model.fit(X, Y, epochs=10**7, verbose=0)
    thread.join()
    assert time.perf_counter() - start < 20
    assert_trained(model, len(history.epoch))


def test_a_thread_may_end_a_long_epoch(monkeypatch):
    monkeypatch.setattr("keras_backprop.training.loops.pace.SECONDS", 0.0)  # one step a call
    model = network()
    wait = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: threading.Timer(0.5, stop, [model]).start()
    )
    x, y = np.repeat(X, 5000, 0), np.repeat(Y, 5000, 0)
    history = model.fit(x, y, batch_size=2, epochs=3, verbose=0, callbacks=[wait], validation_data=(X, Y))
    assert len(history.epoch) == 1 and list(history.history) == ["loss", "val_loss"]
    assert int(model.optimizer.iterations) < 50_000


@pytest.mark.parametrize("options", [{}, {"epochs_per_execution": None}])
def test_ctrl_c_in_the_logs_is_not_swallowed(options):
    """Keras makes numbers of logs under a bare `except`."""

    class Interrupting:
        def __float__(self):
            raise KeyboardInterrupt

    class Reads(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            keras.callbacks.CallbackList([]).on_epoch_end(epoch, {"loss": Interrupting()})

    model = BackpropSequential([keras.Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse", **options)
    x = np.ones((4, 2), "float32")
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, x[:, :1], epochs=2, verbose=0, callbacks=[Reads()])
    history = model.fit(x, x[:, :1], epochs=2, verbose=0)  # and afterwards all is as before
    assert all(isinstance(loss, float) for loss in history.history["loss"])


class Proxy:
    """Has an answer to every name."""

    def __init__(self):
        self.heard = []

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.heard.append(name)


@pytest.mark.parametrize("make", [Proxy, mock.MagicMock])
def test_a_callback_that_answers_to_every_name_hears_of_all(make):
    heard = []
    for sequential in (keras.Sequential, BackpropSequential):
        callback, model = make(), sequential([keras.Input((3,)), layers.Dense(1)])
        model.compile("sgd", "mse")
        model.fit(X, Y, epochs=2, batch_size=10, verbose=0, callbacks=[callback])
        names = callback.heard if make is Proxy else [name for name, *_ in callback.method_calls]
        heard.append([name for name in names if name.startswith("on_")])
    stock, ours = heard
    assert ours == stock and ours.count("on_train_batch_end") == 4
