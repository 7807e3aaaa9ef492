"""Ctrl-C and `stop_training` from outside, at random moments."""

import _thread
import pathlib
import random
import re
import signal
import subprocess
import sys
import threading
import time

import keras
import numpy as np
import pytest
from keras import layers

from keras_backprop import BackpropSequential
from keras_backprop.training import interrupts
from keras_backprop.training.interrupts import heard_meanwhile

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("count", [6, pytest.param(300, marks=pytest.mark.slow)])
def test_no_interrupt_is_lost(count):
    program = [sys.executable, "-m", "tests.training.interrupted", str(count)]
    printed = subprocess.run(
        program, cwd=ROOT, capture_output=True, text=True, timeout=60 + 5 * count,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs do not hear Ctrl-C
    ).stdout  # fmt: skip
    said = re.search(r"(\d+) sent, (\d+) lost, (\d+) turned into something else", printed)
    assert said is not None, printed
    assert said.groups() == (str(count), "0", "0"), printed


@pytest.mark.parametrize("epochs_per_execution", ["auto", None], ids=["compiled", "Keras's loop"])
def test_one_that_falls_into_a_finalizer_is_not_lost(epochs_per_execution):
    before, handler = sys.unraisablehook, signal.signal(signal.SIGINT, signal.default_int_handler)

    class Finalized:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)
            sum(range(10))  # where Python sees it

    seen = []

    def on_epoch_end(epoch, logs):
        seen.append(epoch)
        if epoch == 1:
            Finalized()

    model = BackpropSequential([keras.Input((8,)), layers.Dense(1)])
    model.compile("sgd", "mse", epochs_per_execution=epochs_per_execution)
    try:
        with pytest.raises(KeyboardInterrupt):
            model.fit(
                X, Y, epochs=100_000, verbose=0, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)]
            )
    finally:
        signal.signal(signal.SIGINT, handler)
    assert len(seen) < 10_000 and sys.unraisablehook is before


X, Y = np.random.default_rng(0).normal(size=(2, 96, 8)).astype("float32")
Y = Y[:, :1]
LISTENS = [keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)]
OPTIONS = [{}, {"validation_data": (X, Y)}, {"callbacks": LISTENS}]


class StopAfter(keras.callbacks.Callback):
    """Stops where the other training was stopped: after so many steps."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == self.steps:
            self.model.stop_training = True


def trained(after=None, steps=None, validation_data=None, callbacks=()):
    keras.utils.set_random_seed(3)
    model = BackpropSequential([keras.Input((8,)), layers.Dense(16, "tanh"), layers.Dense(1)])
    model.compile("adam", "mse")
    if after is not None:
        threading.Timer(after, lambda: setattr(model, "stop_training", True)).start()
    callbacks = [*callbacks, *([] if steps is None else [StopAfter(steps)])]
    history = model.fit(X, Y, epochs=3000, verbose=0, validation_data=validation_data, callbacks=callbacks)
    return history.history, model


@pytest.mark.parametrize("count", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_stopped_by_a_thread_history_and_weights_agree(count):
    draws, stopped = random.Random(1), 0
    for number in range(count):
        options = OPTIONS[number % len(OPTIONS)]
        history, model = trained(draws.uniform(0.3, 0.8), **options)
        epochs, steps = len(history["loss"]), int(model.optimizer.iterations)
        stopped += epochs < 3000
        assert 3 * (epochs - 1) < steps <= 3 * epochs
        again, twin = trained(steps=steps, **options)
        assert again == history
        for a, b in zip(model.get_weights(), twin.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert stopped > count // 2


@pytest.fixture
def ctrl_c_is_heard():
    """Where tests run in the background of a shell, SIGINT is ignored, and was so from the beginning."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_is_heard")
@pytest.mark.parametrize("second", [False, True], ids=["the first of its kind", "like one before"])
@pytest.mark.parametrize("options", [{}, {"loss_scale": True}, {"use_ema": True}], ids=str)
def test_an_optimizer_is_built_whole_or_not_at_all(options, second, monkeypatch):
    def make():
        keras.utils.set_random_seed(3)
        model = BackpropSequential([keras.Input((8,)), layers.Dense(4, "tanh"), layers.Dense(1)])
        adam = keras.optimizers.Adam(use_ema=options.get("use_ema", False))
        optimizer = keras.optimizers.LossScaleOptimizer(adam) if "loss_scale" in options else adam
        model.compile(optimizer, "mse")
        return model, adam

    def fit(model):
        model.fit(X, Y, epochs=2, shuffle=False, verbose=0)

    undisturbed, _ = make()
    if second:  # else its trace would serve the other model
        fit(undisturbed)
    model, adam = make()
    add = adam.add_variable_from_reference
    with monkeypatch.context() as patch:
        patch.setattr(adam, "add_variable_from_reference", lambda variable, name, **more: (
            signal.raise_signal(signal.SIGINT) if name == "velocity" else add(variable, name=name, **more)
        ))  # fmt: skip
        with pytest.raises(KeyboardInterrupt):
            fit(model)
    keras.utils.set_random_seed(3)
    fit(model)
    if not second:
        fit(undisturbed)
    assert len(model.optimizer.variables) == len(undisturbed.optimizer.variables)
    for one, other in zip(
        model.variables + model.optimizer.variables,
        undisturbed.variables + undisturbed.optimizer.variables,
        strict=True,
    ):
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=1e-6)


STEPPING = """
def stepping(at):
    steps = 0
    def step(frame, event, argument):
        nonlocal steps
        steps += 1
        if steps == at:
            sys.settrace(None)
            signal.raise_signal(signal.SIGINT)
    return step, lambda: steps
"""
"""Python that is told of every call, and sends SIGINT at one of them; it passes for Python's own, which the function has called."""

WAYS = {
    "whole epochs": {},
    "one epoch": {"callbacks": [keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None)]},
    "validation": {"validation_data": (X, Y)},
    "steps": {"callbacks": LISTENS, "validation_data": (X, Y)},
}


@pytest.mark.usefixtures("ctrl_c_is_heard")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", [257, pytest.param(11, marks=pytest.mark.slow)])
def test_one_is_heard_in_any_function(way, step):
    names = {"sys": sys, "signal": signal}
    exec(compile(STEPPING, threading.__file__, "exec"), names)
    keras.utils.set_random_seed(3)
    model = BackpropSequential([keras.Input((8,)), layers.Dense(4, "tanh"), layers.Dense(1)])
    model.compile("sgd", "mse")

    def calls(at=None):
        """The number of calls of Python functions in a `fit`, at one of which SIGINT comes."""
        trace, count = names["stepping"](at)
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            model.fit(X, Y, epochs=3, verbose=0, **WAYS[way])
        finally:
            sys.settrace(before)
        return count()

    calls()
    for at in range(1 + step // 2, min(calls(), calls()), step):
        with pytest.raises(KeyboardInterrupt):
            calls(at)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("ctrl_c_is_heard")
def test_one_amid_somebody_elses_code_waits_for_ours_but_not_for_ever(monkeypatch):
    monkeypatch.setattr(interrupts, "_THEIRS", (__file__,))
    with pytest.raises(KeyboardInterrupt), interrupts.raised_where_it_is_heard():
        signal.raise_signal(signal.SIGINT)
        reached = True
        interrupts.let_through()
        reached = False
    assert reached
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), interrupts.raised_where_it_is_heard():
        signal.raise_signal(signal.SIGINT)
        while time.monotonic() - start < 20:
            pass
    assert interrupts.LONGEST <= time.monotonic() - start < 10
    with pytest.raises(KeyboardInterrupt), interrupts.raised_where_it_is_heard():
        signal.raise_signal(signal.SIGINT)  # at the very end
    handled = []
    with interrupts.raised_where_it_is_heard():
        signal.raise_signal(signal.SIGINT)
        signal.signal(signal.SIGINT, lambda number, frame: handled.append(number))
        interrupts.let_through()
    assert handled == [signal.SIGINT] and signal.getsignal(signal.SIGINT) is not signal.default_int_handler


@pytest.mark.usefixtures("ctrl_c_is_heard")
def test_one_that_the_main_thread_blocks_meanwhile_is_raised(monkeypatch):
    monkeypatch.setattr(interrupts, "_THEIRS", (__file__,))
    try:
        with pytest.raises(KeyboardInterrupt), interrupts.raised_where_it_is_heard():
            signal.raise_signal(signal.SIGINT)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            interrupts.let_through()
        assert signal.sigpending() == {signal.SIGINT}
        signal.signal(signal.SIGINT, lambda number, frame: None)  # hears of it when it is let in
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])


class Fails(layers.Layer):
    """Ends by a `SystemError` that may come of Ctrl-C, as TensorFlow ends a graph that has half an operation."""

    def __init__(self, interrupted):
        super().__init__()
        self.interrupted = interrupted

    def call(self, x):
        try:
            if self.interrupted:
                raise KeyboardInterrupt
        finally:
            raise SystemError("half an operation")


@pytest.mark.parametrize("interrupted", [True, False])
def test_what_comes_of_an_interrupt_is_one(interrupted):
    model = BackpropSequential([Fails(interrupted), layers.Dense(1)])
    model.compile("sgd", "mse")
    try:
        raise KeyboardInterrupt  # one that has been dealt with is behind whatever is raised while it is
    except KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt if interrupted else SystemError):
            model.fit(X, Y, verbose=0)


def test_what_takes_long_in_one_piece_does_not_delay_one():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    done, ended = threading.Event(), []
    try:
        threading.Timer(0.1, _thread.interrupt_main).start()
        with pytest.raises(KeyboardInterrupt):
            heard_meanwhile(lambda: ended.append(done.wait(20)))
        assert not ended
    finally:
        done.set()
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ZeroDivisionError):
        heard_meanwhile(divmod, 1, 0)
    assert heard_meanwhile(divmod, 7, 2) == (3, 1)
