"""Where XLA pays on a CPU: `python -m benchmarks.xla` measures a training step of small models with and without it.

A step is measured as `fit` runs it, one call of a compiled function each, and inside a compiled loop of many steps, as when
whole epochs are compiled.
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import tensorflow as tf
from keras import layers

from benchmarks.steps import step_of
from benchmarks.timing import alternate, timed
from benchmarks.workloads import Workload, encoder, integers, mlp, normal
from keras_backprop.training.xla import worth_compiling

STEPS = 20


def dense(width, depth, batch):
    return Workload(
        f"{depth} Dense of {width}, batch {batch}", lambda: mlp(*[width] * depth, 10), normal(batch, width),
        integers(10, batch), optimizer=keras.optimizers.SGD,
    )  # fmt: skip


def recurrent(layer, units, length, batch=32):
    def make():
        return keras.Sequential([keras.Input((length, 32)), layer(units), layers.Dense(10, activation="softmax")])

    return Workload(
        f"{layer.__name__} of {units}, {length} steps", make, normal(batch, length, 32), integers(10, batch),
        optimizer=keras.optimizers.SGD,
    )  # fmt: skip


def convolutions(size, channels, batch=32):
    def make():
        hidden = [layers.Conv2D(channels, 3, activation="relu", padding="same") for _ in range(2)]
        return keras.Sequential(
            [keras.Input((size, size, 3)), *hidden, layers.GlobalAveragePooling2D(), layers.Dense(10, "softmax")]
        )

    return Workload(
        f"2 Conv2D of {channels} on {size}×{size}", make, normal(batch, size, size, 3), integers(10, batch),
        optimizer=keras.optimizers.SGD,
    )  # fmt: skip


def transformer(width, length, batch=16):
    return Workload(
        f"Transformer, 1 layer of {width} on {length}", lambda: encoder(1, length, width), normal(batch, length, width),
        integers(10, batch), optimizer=keras.optimizers.SGD,
    )  # fmt: skip


MODELS = [
    *(dense(width, 3, 32) for width in (16, 64, 128, 256, 512)),
    *(dense(64, 3, batch) for batch in (1, 256, 1024)),
    *(dense(16, depth, 32) for depth in (8, 32)),
    recurrent(layers.SimpleRNN, 32, 20), recurrent(layers.LSTM, 32, 20), recurrent(layers.LSTM, 64, 50),
    recurrent(layers.GRU, 32, 20), recurrent(layers.GRU, 64, 50), recurrent(layers.LSTM, 128, 50),
    convolutions(8, 8), convolutions(16, 32), transformer(32, 16), transformer(128, 64),
]  # fmt: skip


def measure(workload, repeats=7):
    """(dict name -> `Times` of a step, dict name -> seconds to compile)."""
    step = step_of(workload, "ours")

    def loop():
        def body(i):
            step()
            return (i + 1,)

        return tf.while_loop(lambda i: i < STEPS, body, (tf.constant(0),))

    functions, compiling = {}, {}
    for name, function in (("step", step), ("loop", loop)):
        for jit in (False, True):
            compiled = tf.function(function, autograph=False, jit_compile=jit)
            compiled.get_concrete_function()
            compiling[name, jit] = timed(compiled)
            functions[name, jit] = compiled
    times = alternate(functions, repeats, 0.1)
    for (name, _), values in times.items():
        if name == "loop":
            values[:] = [value / STEPS for value in values]
    return times, compiling


def lines():
    """The table, line by line."""
    yield "| model | step, graph | XLA | ratio | in a loop, graph | XLA | ratio | XLA's compilation | rule |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for workload in MODELS:
        keras.backend.clear_session()
        times, compiling = measure(workload)
        cells = []
        for name in ("step", "loop"):
            graph, xla = times[name, False], times[name, True]
            cells += [graph.median_text(), xla.median_text(), f"{xla.over(graph):.2f}"]
        rule = "XLA" if worth_compiling(workload.make(), len(workload.batch()[0])) else "–"
        yield f"| {workload.name} | {' | '.join(cells)} | {compiling['loop', True]:.1f} s | {rule} |"


if __name__ == "__main__":
    start = time.perf_counter()
    for line in lines():
        print(line, flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s")
