"""Ctrl-C at random moments of `fit`: `python -m tests.training.interrupted COUNT` prints how many were lost, and the longest delay.

The moments are in tracing (a new model), in the compiled loop, between epochs, and in callbacks.
"""

import os
import random
import signal
import sys
import threading
import time

import keras
import numpy as np
from keras import layers

from keras_backprop import BackpropSequential


def make():
    model = BackpropSequential([keras.Input((8,)), layers.Dense(16, "tanh"), layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def interrupted(model, after, options):
    """Send SIGINT some seconds after `fit` has begun. Returns the delay until KeyboardInterrupt; None if it was lost."""
    sent = []

    def send():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(after, send)
    try:
        timer.start()
        model.fit(X, Y, epochs=10**6, verbose=0, **options)
    except KeyboardInterrupt:
        return time.perf_counter() - sent[0]
    finally:
        timer.cancel()
    return None


X, Y = np.random.default_rng(0).normal(size=(2, 96, 8)).astype("float32")
Y = Y[:, :1]
OPTIONS = [
    {},
    {"batch_size": 96},
    {"validation_data": (X, Y)},
    {"callbacks": [keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None)]},
    {"callbacks": [keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)]},
]


def main(count):
    draws, lost, delays, others = random.Random(0), 0, [], []
    model = make()
    for number in range(count):
        if number % 5 == 0:
            model = make()
        try:
            delay = interrupted(model, draws.uniform(0.0, 1.2), OPTIONS[number % len(OPTIONS)])
        except BaseException as error:  # what ought to have been a KeyboardInterrupt
            others.append(f"{type(error).__name__}: {str(error)[:80]}")
            continue
        if delay is None:
            lost += 1
        else:
            delays.append(delay)
    print(
        f"{count} sent, {lost} lost, {len(others)} turned into something else, longest delay {max(delays):.2f} s",
        *others,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
