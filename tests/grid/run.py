"""Run grid cases: explicit gradients against the tape and against one central difference in a random direction, in float64."""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import pathlib
import sys
import time
from dataclasses import dataclass

RESULTS = pathlib.Path(__file__).parents[2] / "docs" / "grid.json"
TOLERANCE = 1e-10
RELATIVE_TOLERANCE = {"float16": 5e-2, "bfloat16": 2e-1}
DIFFERENCE_TOLERANCE = 1e-5


@dataclass
class Outcome:
    """What came of a case.

    Attributes:
        error: float, the largest difference from the tape, relative to the largest entry of the tensor's gradient.
        difference: float, the difference from the central difference, relative; 0 where the case sits on a kink.
        problem: str, an exception, if there was one.
        seconds: float.
        dtype: str, in which it was computed.
        links: the names of the operations, functions and layers whose rules took part.
    """

    error: float
    difference: float
    problem: str = ""
    seconds: float = 0.0
    dtype: str = "float64"
    links: tuple = ()

    @property
    def passed(self):
        tolerance = TOLERANCE if self.dtype == "float64" else RELATIVE_TOLERANCE[self.dtype]
        return not self.problem and self.error <= tolerance and self.difference <= DIFFERENCE_TOLERANCE


def run(case):
    """The `Outcome` of a `GridCase`."""
    start = time.perf_counter()
    try:
        outcome = Outcome(*_errors(case))
    except Exception as error:
        outcome = Outcome(float("inf"), float("inf"), f"{type(error).__name__}: {error}")
    outcome.seconds = time.perf_counter() - start
    return outcome


def _errors(case):
    import keras
    import tensorflow as tf

    from keras_backprop.check.gradients import explicit_gradients, tape_gradients

    keras.utils.set_random_seed(1)
    problem = case.problem() if case.problem is not None else _layer_problem(case)
    ours, _ = explicit_gradients(problem)
    theirs = tape_gradients(problem)
    dtype = "float64" if problem.double else problem.layer.compute_dtype
    scale = max([float(tf.reduce_max(tf.abs(g))) for g in theirs if g is not None and tf.size(g)] + [1e-30])
    error = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if a is None and b is None:
            continue
        a, b = (tf.zeros(()) if g is None else tf.cast(g, tf.float64) for g in (a, b))
        a, b = tf.cast(a, tf.float64), tf.cast(b, tf.float64)
        if tf.size(a) and tf.size(b):
            largest = float(tf.reduce_max(tf.abs(b)))
            floor = 1e-6 if problem.double else 1e-1  # of a gradient that is zero but for rounding
            error = max(error, float(tf.reduce_max(tf.abs(a - b))) / max(largest, floor * scale))
    smooth = case.smooth and problem.double and not problem.holds_something_constant
    difference = _central_difference(problem, ours) if smooth else 0.0
    return (
        error if error == error else float("inf"),
        difference,
        "",
        0.0,
        dtype,
        tuple(sorted(set(map(_name, problem.links)))),
    )


def _name(op):
    """As in `docs/coverage.md`: a layer by its class, an operation as `ops.Name`, a function or loss by its function."""
    import keras

    if isinstance(op, keras.Operation) and not isinstance(op, keras.layers.Layer):
        return f"ops.{type(op).__name__}"
    return getattr(getattr(op, "fn", op), "__name__", type(op).__name__)


def _layer_problem(case):
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_backprop.check.problem import LayerProblem
    from tests.checking import Function, arrays, randomize

    layer = case.make()
    inputs = arrays(case.inputs)
    if isinstance(layer, Function):
        layer.make_graph(inputs)
        layer.built = True
    call = keras.tree.map_structure(lambda v: tf.convert_to_tensor(v) if isinstance(v, np.ndarray) else v, case.call)
    if not all(one.built for one in layer._flatten_layers()):
        layer(*inputs, **call)
    randomize(layer)
    return LayerProblem(layer, inputs, call, double=layer.compute_dtype not in ("float16", "bfloat16"))


def _central_difference(problem, gradients):
    """|⟨gradient, u⟩ − central difference|, relative, for one random direction u of all weights and inputs together."""
    import numpy as np
    import tensorflow as tf

    tensors = [problem.values[id(v)] for v in problem.weights] + problem.inputs
    random = np.random.default_rng(4)
    directions = [tf.constant(random.normal(size=x.shape)) for x in tensors]
    norm = max(float(tf.sqrt(tf.add_n([tf.reduce_sum(u * u) for u in directions]))) if directions else 1.0, 1e-30)
    directions = [u / norm for u in directions]
    slopes = [
        tf.reduce_sum(tf.cast(g, tf.float64) * u) for g, u in zip(gradients, directions, strict=True) if g is not None
    ]
    slope = float(tf.add_n(slopes)) if slopes else 0.0
    size = max([float(tf.norm(g)) for g in gradients if g is not None and tf.size(g)] + [0.0])
    count = len(problem.weights)

    def error(h):
        moved = [x + h * u for x, u in zip(tensors, directions, strict=True)]
        values = {id(v): x for v, x in zip(problem.weights, moved[:count], strict=True)}
        with problem.scope(values):
            return float(problem.error(moved[count:]))

    best = float("inf")
    # A wide step sees past the rounding of what computes in single precision, a narrower one avoids a kink nearby.
    for h in (1e-5, 1e-1, 1e-6, 1e-7):
        plus, minus = error(h), error(-h)
        relative = abs((plus - minus) / (2 * h) - slope) / max(size, abs(slope), 1e-6)
        rounding = 1e-14 * abs(plus) / h / max(size, 1e-6)
        best = min(best, max(relative - rounding, 0.0))
        if best <= DIFFERENCE_TOLERANCE:
            return best
    base = error(0.0)
    low, high = sorted(((plus - base) / h, (base - minus) / h))
    at_a_kink = high - low > 1e-3 * max(size, 1e-6) and low - 1e-6 <= slope <= high + 1e-6
    return 0.0 if at_a_kink else best


def _worker(arguments):
    part, parts, pattern = arguments
    from tests.grid.cases import cases

    results = []
    for case in [c for c in cases() if pattern in c.name][part::parts]:
        outcome = run(case)
        results.append((case.kind, case.name, outcome))
        if not outcome.passed:
            detail = outcome.problem[:300] or f"tape {outcome.error:.1e}, difference {outcome.difference:.1e}"
            print(f"FAILED {case.name}: {detail}", flush=True)
    return results


def summarize(results):
    """For every layer, operation and function, and under "" for all: the number of cases, and the largest error in float64."""
    summary: dict = {}
    for kind, _, outcome in results:
        for name in {"", kind, *outcome.links}:
            entry = summary.setdefault(name, {"cases": 0, "error": 0.0})
            entry["cases"] += 1
            if outcome.dtype == "float64":
                entry["error"] = max(entry["error"], float(f"{outcome.error:.0e}"))
    return summary


def main():
    parser = argparse.ArgumentParser(description="Run the gradient grid and write docs/grid.json.")
    parser.add_argument("pattern", nargs="?", default="", help="only cases whose name contains this; writes nothing")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    start = time.time()
    jobs = [(part, options.processes, options.pattern) for part in range(options.processes)]
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(options.processes, spawn) as pool:  # notices a process that dies
        results = [result for part in pool.map(_worker, jobs) for result in part]
    failed = [name for _, name, outcome in results if not outcome.passed]
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed, in {time.time() - start:.0f} s")
    if not options.pattern and not failed:
        RESULTS.write_text(json.dumps(dict(sorted(summarize(results).items())), indent=1) + "\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
