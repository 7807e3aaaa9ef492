"""What `BackwardMonitor` costs: `python -m benchmarks.watching`. Ratios to the same compiled loop without it, in one run."""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np

from keras_backprop import BackpropModel
from keras_backprop.callbacks import BackwardMonitor

MONITORS = {
    "none": None,
    "norms of every link, every step": {"quantities": ("activation.norm", "delta.norm"), "every": 1},
    "norms of links and weights, every step": {"quantities": "norm", "every": 1},
    "all statistics, every step": {"quantities": "all", "every": 1},
    "norms, every 16th step": {"quantities": "norm", "every": 16},
    "all statistics, every 16th step": {"quantities": "all", "every": 16},
    "default, every epoch": {},
}
BOUNDS = [None, 1.10, None, 1.25, 1.03, None, None]
"""What was aimed at."""


def mlp(batch_size):
    """21 layers of 64 units, trained on random data."""
    inputs = x = keras.Input((64,))
    for i in range(20):
        x = keras.layers.Dense(64, "tanh", name=f"dense_{i}")(x)
    model = BackpropModel(inputs, keras.layers.Dense(10, name="out")(x))
    model.compile(
        keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    n = 100 * batch_size
    return model, np.random.default_rng(0).normal(size=(n, 64)).astype("float32"), np.arange(n) % 10, batch_size


def mobilenet(batch_size=16):
    """MobileNetV2 at 64×64."""
    model = BackpropModel.from_keras(keras.applications.MobileNetV2((64, 64, 3), weights=None, classes=10))
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", jit_compile=False)
    n = 6 * batch_size
    return model, np.random.default_rng(0).normal(size=(n, 64, 64, 3)).astype("float32"), np.arange(n) % 10, batch_size


WORKLOADS = {
    "MLP, 21 layers of 64, batch 32": lambda: mlp(32),
    "MLP, 21 layers of 64, batch 256": lambda: mlp(256),
    "MobileNetV2 at 64×64, batch 16": mobilenet,
}


def compare(make, repeats, only=""):
    """dict name -> list of ratios: the time of an epoch with a monitor over that of the epoch without, next to it."""
    runs = {}
    for name, options in MONITORS.items():
        if only in name or name == "none":
            keras.utils.set_random_seed(0)
            model, x, y, size = make()
            monitors = [] if options is None else [BackwardMonitor(**options)]
            fit = {"batch_size": size, "shuffle": False, "verbose": 0, "callbacks": monitors}
            runs[name] = lambda model=model, x=x, y=y, fit=fit: _epoch(model, x, y, fit)
    seconds = {name: [] for name in runs}
    for run in runs.values():
        run()
        run()
    for turn in range(repeats):
        for name in list(runs) if turn % 2 else reversed(list(runs)):
            seconds[name].append(runs[name]())
    return {
        name: [a / b for a, b in zip(times, seconds["none"], strict=True)] for name, times in seconds.items()
    }, seconds


class _Clock(keras.callbacks.Callback):
    """The seconds between the beginning of training and the end of the last epoch, as all callbacks have been told."""

    reads_only_logs = True

    now = staticmethod(time.perf_counter)

    def on_train_begin(self, logs=None):
        self.start = self.now()

    def on_train_end(self, logs=None):
        self.seconds = self.now() - self.start


def _epoch(model, x, y, fit):
    clock = _Clock()
    model.fit(x, y, epochs=3, **{**fit, "callbacks": [clock, *fit["callbacks"]]})
    return clock.seconds


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watching", description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--match", default="", help="only workloads whose name contains this")
    parser.add_argument("--only", default="", help="only monitors whose name contains this")
    parser.add_argument(
        "--cpu", action="store_true", help="seconds of the processor, not of the clock: for a busy machine"
    )
    options = parser.parse_args()
    if options.cpu:
        _Clock.now = staticmethod(time.process_time)
    for name, make in WORKLOADS.items():
        if options.match in name:
            ratios, seconds = compare(make, options.repeats, options.only)
            print(name)
            for bound, monitor in zip(BOUNDS, MONITORS, strict=True):
                if monitor in ratios:
                    aim = "" if bound is None else f"   aimed at {bound:.2f}"
                    print(
                        f"  {monitor:<40} {statistics.median(ratios[monitor]):5.2f}   epoch "
                        f"{statistics.median(seconds[monitor]) / 3 * 1e3:8.1f} ms{aim}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
