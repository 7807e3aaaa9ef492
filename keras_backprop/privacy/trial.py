"""A trial, before anything is trained: does what an example contributes depend on who else is in the batch?

Layers and losses of Keras that keep the examples apart are known. What else a model is made of, a layer, a loss or a graph of
operations of one's own, may do anything along the first axis; so some steps are tried on the first examples, and nothing is
changed by it.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.chain.mixing import MIXING_LOSSES
from keras_backprop.chain.rows import keeps_rows
from keras_backprop.privacy.requirements import require_private


def require_built(model: Any, x: Any) -> None:
    """Build a model that would else be built in its first step, by a call that leaves no trace beside its weights."""
    if model.built and model.variables:
        return
    before = [(v, keras.ops.copy(v.value)) for v in model.variables]  # states of random numbers
    with model.distribute_strategy.scope():
        model(x)
    for variable, value in before:
        variable.assign(value)


def is_known(model: Any) -> bool:
    """Whether a model is made of nothing but layers and losses that are known to keep the examples apart."""
    if type(model).compute_loss is not _keras.Trainer.compute_loss:
        return False
    for layer in _keras.layers_in(model):
        graph: Any = _keras.graph_of(layer) if isinstance(layer, keras.Model) else None
        if isinstance(layer, keras.Model):
            if graph is None or not all(isinstance(op, keras.layers.Layer) for op in graph.operations):
                return False
        elif not keeps_rows(layer):
            return False
    losses = _keras.losses_of(_keras.compiled_loss(model))
    return bool(losses) and all(map(_is_known_loss, losses))


def _is_known_loss(loss):
    function = getattr(loss, "fn", None)
    stock = type(loss).__module__.startswith("keras.") and not isinstance(loss, MIXING_LOSSES)
    return stock and (function is None or getattr(function, "__module__", "").startswith("keras."))


def try_examples(model: Any, x: Any, y: Any) -> None:
    """Run backward passes of two examples, in which one is the same, and compare what that one contributes.

    Args:
        model: a compiled `BackpropModel`.
        x, y: nested tensors, three examples.

    Raises:
        ValueError: it depends on the other one, or on what weighs nothing; the model keeps something of the examples that is no
            weight; or there are no gradients of single examples, and why.
    """
    take = lambda indices: keras.tree.map_structure(lambda a: a if a is None else tf.gather(a, indices), (x, y))  # noqa: E731
    trainable, metrics = ({id(v) for v in vs} for vs in (model.trainable_variables, model.metrics_variables))
    states = {id(v): v for v in (*model.variables, *model.metrics_variables) if id(v) not in trainable}
    # Weights too: `SpectralNormalization` assigns to its layer's kernel.
    before = [(v, keras.ops.copy(v.value)) for v in (*states.values(), *model.trainable_variables)]

    kept: list = []  # after each pass, what is no weight

    def contribution(indices, weights, metrics_begin_anew=True, place=0):
        for variable, value in before:
            if metrics_begin_anew or id(variable) not in metrics:
                variable.assign(value)
        result = model.backward_pass(*take(indices), tf.constant(weights, tf.float32))
        require_private(result)
        kept.append([keras.ops.convert_to_numpy(keras.ops.copy(v.value)) for v in states.values()])
        divisor, shares, _ = result.example_scale.weighted()
        parts = {v.path: result.per_example(v) for v in result.weights}
        factor = float(divisor * shares[place]) / (1.0 if result.scale is None else float(result.scale))
        return {
            path: keras.ops.convert_to_numpy(tf.cast(g[place], tf.float64)) * factor
            for path, g in parts.items()
            if g is not None
        }

    try:
        one, other, alone = contribution([0, 1], [1, 1]), contribution([0, 2], [1, 1]), contribution([0, 1], [1, 0])
        later = contribution([0, 1], [1, 1], metrics_begin_anew=False)
        moved = contribution([1, 0], [1, 1], place=1)
        contribution([1, 2], [1, 1])  # for what is kept: a layer may keep any row
    finally:
        for variable, value in before:
            variable.assign(value)
    begun = [keras.ops.convert_to_numpy(value) for _, value in before[: len(states)]]
    if not all(map(_same, begun, kept[0])):  # random numbers have been drawn, and each place has its own
        moved = one
    # All states: those of random numbers, and counts of steps, are the same after either pass. What a metric keeps is reported,
    # as the loss is, and may depend on the examples, as long as no gradient depends on it.
    for variable, value, another in zip(states.values(), kept[0], kept[-1], strict=True):
        if id(variable) not in metrics and not _same(value, another):
            raise ValueError(
                f"What '{variable.path}' keeps from step to step depends on the examples, and no noise is added to it: the "
                "trained model would tell about them. Let a layer keep nothing of them, or compute it on public data before "
                "training."
            )
    for path, gradient in one.items():
        for changed, what in (
            (other, "who else is in the batch"),
            (later, "what a metric has kept of the steps before"),
            (moved, "its place in the batch, and so on how many others there are"),
            (
                alone,
                "how many examples of the batch count: a loss must return a value for each example, to be weighted",
            ),
        ):
            if not np.allclose(
                gradient, changed[path], rtol=1e-2, atol=1e-3 * np.abs(gradient).max() + 1e-7, equal_nan=True
            ):
                raise ValueError(
                    f"What an example contributes to the gradient of '{path}' depends on {what}. Something above that weight, "
                    "a layer, an "
                    "operation or the loss, mixes the examples along the first axis; then clipping bounds nothing. Let every "
                    "example keep a row of its own."
                )


def _same(value, other):
    return np.array_equal(value, other, equal_nan=value.dtype != object)
