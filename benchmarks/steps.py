"""One training step of every workload, explicit rules against the tape: compiled, under XLA and eager."""

import gc
import math
import statistics
import time

import keras
import tensorflow as tf

from benchmarks.timing import Times, alternate, timed
from keras_backprop import BackpropModel

SIDES = ("stock", "ours")


def model_of(workload, side):
    """The workload's model, compiled and built: a `keras.Model` or a `BackpropModel`."""
    keras.utils.set_random_seed(0)
    model = workload.make()
    model = model if side == "stock" else BackpropModel.from_keras(model)
    model.compile(workload.optimizer(), workload.loss, jit_compile=False)
    model._symbolic_build(data_batch=workload.batch())
    return model


def step_of(workload, side):
    """`model.train_step` on the batch, as a function without arguments."""
    model, batch = model_of(workload, side), keras.tree.map_structure(tf.constant, workload.batch())
    return lambda: model.train_step(batch)


def compare(workload, mode="graph", repeats=30, traces=3):
    """Measure one workload in one mode: "graph", "xla" or "eager".

    Returns:
        dict: `times`, `trace` and `compile`, each a dict side -> `Times`; `ratio` and `trace ratio`.
    """
    steps = {side: step_of(workload, side) for side in SIDES}
    if mode == "eager":
        times = alternate(steps, repeats, seconds=0.2)
        return {"times": times, "ratio": times["ours"].over(times["stock"])}
    trace, first, compiled = ({side: Times() for side in SIDES} for _ in range(3))
    for _ in range(traces):
        for side, step in steps.items():
            compiled[side] = tf.function(step, autograph=False, jit_compile=mode == "xla")
            gc.collect()
            trace[side].append(timed(compiled[side].get_concrete_function, time.process_time))
            first[side].append(timed(compiled[side]))
    times = alternate(compiled, repeats, seconds=0.1)
    return {
        "times": times, "trace": trace, "compile": first,
        "ratio": times["ours"].over(times["stock"]), "trace ratio": trace["ours"].over(trace["stock"]),
    }  # fmt: skip


def geometric_mean(values):
    return math.exp(statistics.fmean(map(math.log, values)))
