"""What private training costs: a step with per-example clipping and noise against the plain step, in one run.

    python -m benchmarks.private [--rounds 30] [--cpu]
    python -m benchmarks.private --memory

Both steps are those of a compiled loop, get the same batch, and are run in turn; the ratio is the median of the ratios of
neighbours in time.
With `--cpu` it is the time of all threads, which tells more than the clock where others use the machine.
Memory is how far steps raise that of a process with the built model, each step in processes of its own.
"""

import argparse
import time
import warnings

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from benchmarks.memory import peak, rise
from benchmarks.timing import alternate
from keras_backprop import BackpropModel, privacy
from keras_backprop.training.loops.steps import Operations


def mlp():
    x = inputs = keras.Input((784,))
    for _ in range(2):
        x = layers.Dense(512, "relu")(x)
    return inputs, layers.Dense(10, "softmax")(x), 256


def convnet():
    x = inputs = keras.Input((28, 28, 1))
    for filters in (16, 32):
        x = layers.MaxPooling2D()(layers.Conv2D(filters, 3, activation="relu", padding="same")(x))
    x = layers.Dense(64, "relu")(layers.Flatten()(x))
    return inputs, layers.Dense(10, "softmax")(x), 128


def tanh_convnet():
    x = inputs = keras.Input((28, 28, 1))
    x = layers.MaxPooling2D(2, 1)(layers.Conv2D(16, 8, 2, padding="same", activation="tanh")(x))
    x = layers.MaxPooling2D(2, 1)(layers.Conv2D(32, 4, 2, activation="tanh")(x))
    x = layers.Dense(32, "tanh")(layers.Flatten()(x))
    return inputs, layers.Dense(10, "softmax")(x), 512


def transformer():
    x = inputs = keras.Input((64, 128))
    y = layers.MultiHeadAttention(4, 32)(x, x)
    x = layers.LayerNormalization()(x + y)
    y = layers.Dense(128)(layers.Dense(512, "gelu")(x))
    x = layers.LayerNormalization()(x + y)
    return inputs, layers.Dense(10, "softmax")(layers.GlobalAveragePooling1D()(x)), 32


def recurrent(kind):
    x = inputs = keras.Input((50, 32))
    return inputs, layers.Dense(10, "softmax")(kind(128)(x)), 64


MODELS = {
    "MLP 784-512-512-10": mlp,
    "convnet": convnet,
    "tanh convnet": tanh_convnet,
    "Transformer block": transformer,
    "LSTM": lambda: recurrent(layers.LSTM),
    "GRU": lambda: recurrent(layers.GRU),
}


SIDES = ("plain", "private")


def step_of(make, private, times=1):
    """A step that has not run yet, a function without arguments, and the size of its batch, `times` the usual one."""
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    inputs, outputs, n = make()
    n *= times
    plan = None
    if private:
        plan = privacy.Plan(10 * n, n, 10_000, 1.0, noise_multiplier=1.0, delta=1e-5, largest_batch_size=2 * n)
    model = BackpropModel(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy", gradients=plan)
    x = tf.constant(rng.normal(size=(n, *inputs.shape[1:])).astype("float32"))
    y, weights = tf.constant(rng.integers(0, 10, n)), tf.ones([n])
    model.optimizer.build(model.trainable_variables)
    batch = x, y, weights
    traced = tf.function(model.train_step, autograph=False).get_concrete_function(batch)
    operations = Operations(traced, substituted=True)
    return tf.function(lambda: operations.run(batch, lowered=True) and None, autograph=False), n


def compare_time(name, make, rounds, clock):
    for times in (1, 4):
        steps = {}
        for side in SIDES:
            steps[side], n = step_of(make, side == "private", times)
        took = alternate(steps, rounds, seconds=0.1, clock=clock)
        plain, private = took["plain"], took["private"]
        ratio = f"{private.over(plain):.2f} | {min(private) / min(plain):.2f}"
        print(f"| {name} | {n} | {plain.median_text()} | {private.median_text()} | {ratio} |", flush=True)


def compare_memory(name, repeats=3):
    plain, private = (min(peak(name, side, "benchmarks.private") for _ in range(repeats)) / 2**20 for side in SIDES)
    print(f"| {name} | {plain:.0f} MiB | {private:.0f} MiB | {private / plain:.2f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--cpu", action="store_true", help="the time of all threads in the place of the clock's")
    parser.add_argument("--only", help="a part of a model's name")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument(
        "side", nargs="*", help=argparse.SUPPRESS
    )  # of a process that measures memory: a model, and which step
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.side:
        name, side = arguments.side
        print(rise(step_of(MODELS[name], side == "private", times=4)[0]))
        return
    if arguments.memory:
        print("| model | plain step | private step | ratio |\n|---|---|---|---|")
    else:
        print("| model | batch | plain step | private step | ratio | of the shortest |\n|---|---|---|---|---|---|")
    for name, make in MODELS.items():
        if arguments.only and arguments.only not in name:
            continue
        if arguments.memory:
            compare_memory(name)
        else:
            compare_time(name, make, arguments.rounds, time.process_time if arguments.cpu else time.perf_counter)


if __name__ == "__main__":
    main()
