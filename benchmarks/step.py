"""One compiled training step, explicit rules against stock Keras: `python benchmarks/step.py [--repeats N]`.

Both train functions run in one process, on the same batch, alternating in blocks of steps, so that a drift of the machine's
speed hits both. Quoted is the ratio of the medians, ours to stock's; below 1 we are faster.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropModel


def mlp(sizes):
    """A chain of Dense layers with relu, softmax at the end: `(make(model class), batch)`."""

    def make(cls):
        inputs = keras.Input((sizes[0],))
        h = inputs
        for size in sizes[1:-1]:
            h = layers.Dense(size, activation="relu")(h)
        return cls(inputs, layers.Dense(sizes[-1], activation="softmax")(h))

    return make


WORKLOADS = {
    "digits MLP 64-128-64-10, batch 32": (mlp([64, 128, 64, 10]), 32, 64, 10),
    "MLP 784-512-512-10, batch 128": (mlp([784, 512, 512, 10]), 128, 784, 10),
}


def train_step(cls, make, batch, features, classes):
    """A compiled training step on one batch, and the time its tracing took in seconds."""
    keras.utils.set_random_seed(0)
    model = make(cls)
    model.compile("adam", "sparse_categorical_crossentropy")
    random = np.random.default_rng(0)
    x = tf.constant(random.normal(size=(batch, features)).astype("float32"))
    y = tf.constant(random.integers(0, classes, batch))
    model._symbolic_build(data_batch=(x, y))
    step = tf.function(lambda: model.train_step((x, y)), autograph=False)
    start = time.perf_counter()
    step()
    return step, time.perf_counter() - start


def compare(make, batch, features, classes, repeats, block):
    """(median stock, median ours, trace stock, trace ours) in seconds a step."""
    (stock, stock_trace), (ours, our_trace) = (
        train_step(cls, make, batch, features, classes) for cls in (keras.Model, BackpropModel)
    )
    times = {stock: [], ours: []}
    for _ in range(repeats):
        for step in (stock, ours):
            start = time.perf_counter()
            for _ in range(block):
                step()
            times[step].append((time.perf_counter() - start) / block)
    return statistics.median(times[stock]), statistics.median(times[ours]), stock_trace, our_trace


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=40, help="blocks of steps for each of the two")
    parser.add_argument("--block", type=int, default=25, help="steps in a block")
    args = parser.parse_args()
    print(f"{'workload':<36} {'stock':>9} {'ours':>9} {'ratio':>6} {'tracing, ratio':>15}")
    for name, workload in WORKLOADS.items():
        stock, ours, stock_trace, our_trace = compare(*workload, args.repeats, args.block)
        print(
            f"{name:<36} {stock * 1e3:>6.3f} ms {ours * 1e3:>6.3f} ms {ours / stock:>6.3f} {our_trace / stock_trace:>15.2f}"
        )


if __name__ == "__main__":
    main()
