"""Central differences along random directions, and the kinks that spoil them."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.check.tolerances import DIFFERENCE_TOLERANCE, STEPS


@dataclass
class Difference:
    """A directional derivative, compared.

    Attributes:
        agrees: bool.
        absolute, relative: float, the best difference over the step widths tried.
        kinks: int, 1 if the differences to the two sides disagree however small the step: the error has a kink here.
    """

    agrees: bool
    absolute: float
    relative: float
    kinks: int


def compare_directions(problem, gradients, dtype):
    """Compare ⟨gradient, u⟩ with (E(w + h·u) − E(w − h·u))/2h for each weight and input and a random direction u.

    Args:
        problem: a `Problem`.
        gradients: list of tensors (or None) for the weights and then the inputs.
        dtype: str, the lowest precision in the forward pass.

    Returns:
        list of `Difference`, in the order of `gradients`.
    """
    evaluate = _evaluator(problem)
    weights = [problem.values[id(v)] for v in problem.weights]
    tensors = weights + problem.inputs
    base = float(evaluate(tensors))
    random = np.random.default_rng(1)
    results = []
    for position, (tensor, gradient) in enumerate(zip(tensors, gradients, strict=True)):
        u = random.choice([-1.0, 1.0], size=tensor.shape) * random.uniform(0.5, 1.0, size=tensor.shape)
        u = tf.constant(u / max(np.linalg.norm(u), 1e-30))
        zero = gradient is None
        slope = 0.0 if zero else float(tf.reduce_sum(tf.cast(gradient, tf.float64) * u))
        size = 0.0 if zero else float(tf.norm(gradient))
        width = max(1.0, float(tf.reduce_max(tf.abs(tensor))) if tensor.shape.num_elements() else 1.0)

        def error(h, position=position, tensor=tensor, u=u):
            return float(evaluate([*tensors[:position], tensor + h * u, *tensors[position + 1 :]]))

        results.append(_compare(error, base, slope, size, width, DIFFERENCE_TOLERANCE[dtype]))
    return results


def _compare(error, base, slope, size, width, tolerance):
    """Try step widths until one agrees; a step too wide sees curvature and kinks, one too narrow sees rounding."""
    if not np.isfinite(base):
        return Difference(True, float("nan"), float("nan"), 0)  # nothing to tell beside the tape's NaN
    best = (float("inf"), float("inf"))
    for step in STEPS:
        h = step * width
        plus, minus = error(h), error(-h)
        central = (plus - minus) / (2 * h)
        rounding = 1e-13 * (abs(base) + abs(plus)) / h
        absolute = abs(central - slope)
        if absolute != absolute:
            continue
        relative = absolute / max(abs(slope), size, 1e-8)
        best = min(best, (absolute, relative))
        if absolute <= tolerance * max(abs(slope), size) + rounding + 1e-9:
            return Difference(True, absolute, relative, 0)
    forward, backward = (error(h) - base) / h, (base - error(-h)) / h
    kink = abs(forward - backward) > 1e-3 * max(abs(forward), abs(backward), size) + 1e-6
    return Difference(False, *best, kinks=int(kink))


def _evaluator(problem):
    """The error as a function of the values of all weights and inputs, compiled where the layers compute the same then.

    Keras's preprocessing layers do not: in a graph they go back to the dtype that they were made with.
    """
    count = len(problem.weights)

    def evaluate(tensors):
        values = {id(v): value for v, value in zip(problem.weights, tensors[:count], strict=True)}
        with problem.scope(values):
            return problem.error(tensors[count:])

    preprocesses = any(isinstance(layer, _keras.PreprocessingLayer) for layer in _keras.layers_in(problem.layer))
    return evaluate if preprocesses else tf.function(evaluate, autograph=False)
