"""What LocateNaN costs in a step of the compiled loop: `python -m benchmarks.locating [mlp|mobilenet] [rounds]`.

The same `fit`, with and without the callback, in turn; the ratio is the median of the ratios of neighbours in time. `plain again`
is a second model without it: how far that is from 1 is what the machine's noise makes of nothing.
"""

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np

import keras_backprop
from benchmarks.timing import Times, timed
from keras_backprop.callbacks import LocateNaN


def mlp():
    """21 layers of 64, batches of 32."""
    inputs = hidden = keras.Input((64,))
    for _ in range(20):
        hidden = keras.layers.Dense(64, "relu")(hidden)
    x = np.random.default_rng(0).normal(size=(32 * 300, 64)).astype("float32")
    return keras_backprop.BackpropModel(inputs, keras.layers.Dense(10, "softmax")(hidden)), x, 32


def mobilenet():
    """MobileNetV2 at 64 × 64, batches of 16."""
    network = keras.applications.MobileNetV2((64, 64, 3), weights=None, classes=10)
    x = np.random.default_rng(0).normal(size=(16 * 10, 64, 64, 3)).astype("float32")
    return keras_backprop.BackpropModel.from_keras(network), x, 16


def main(name="mlp", rounds="10"):
    fits = {}
    for side in ("plain", "LocateNaN", "plain again"):
        keras.utils.set_random_seed(0)
        model, x, batch = {"mlp": mlp, "mobilenet": mobilenet}[name]()
        y = np.random.default_rng(1).integers(0, 10, len(x))
        model.compile("adam", "sparse_categorical_crossentropy")
        callbacks = [LocateNaN()] if side == "LocateNaN" else []

        def fit(model=model, x=x, y=y, batch=batch, callbacks=callbacks):
            model.fit(x, y, batch_size=batch, epochs=2, verbose=0, callbacks=callbacks)

        fit()
        assert model.fit_path.compiled
        fits[side] = fit
    for clock in (time.perf_counter, time.process_time):  # the second one is deaf to what others do on the machine
        times = {side: Times() for side in fits}
        for round_ in range(int(rounds)):
            for side in list(fits) if round_ % 2 else reversed(list(fits)):
                times[side].append(timed(fits[side], clock))
        for side, measured in times.items():
            print(f"{name}, {clock.__name__}, {side}: {measured} a fit, {measured.over(times['plain']):.3f} of plain")


if __name__ == "__main__":
    main(*sys.argv[1:])
