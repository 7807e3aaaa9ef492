"""A trial, before anything is trained: does what an example contributes depend on who else is in the batch?

A layer, a loss, an activation or a graph of operations of one's own may do anything along the first axis, and so may a layer of
Keras that is told to. So some steps are tried on a few examples, and nothing is changed by it.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.backward_pass import backward
from keras_backprop.privacy.requirements import require_private
from keras_backprop.privacy.trial_examples import choose


def require_built(model: Any, x: Any) -> None:
    """Build a model that would else be built in its first step, by a call that leaves no trace beside its weights."""
    if model.built and model.variables:
        return
    before = {id(v): (v, keras.ops.copy(v.value)) for v in model.variables}  # states of random numbers
    with model.distribute_strategy.scope(), _keras.values_as_built(before):
        model(x)
    own = {id(v) for v in model.variables}  # other threads may build other models meanwhile
    for variable, value in before.values():
        if id(variable) in own:
            variable.assign(value)


def try_examples(model: Any, x: Any, y: Any, n: int) -> None:
    """Run backward passes of a few examples, half of which are the same in two of them, and compare what those contribute.

    Args:
        model: a compiled `BackpropModel`.
        x, y: nested tensors, n examples.
        n: int, 3 or more.

    Raises:
        ValueError: it depends on the others, or on what weighs nothing; the model keeps something of the examples that is no
            weight; or there are no gradients of single examples, and why.
    """
    watched, some, others = choose(y, n)
    k = len(watched)
    take = lambda rows: keras.tree.map_structure(lambda a: a if a is None else tf.gather(a, rows), (x, y))  # noqa: E731
    require_built(model, take(watched)[0])
    if not model.trainable_weights:
        return
    trainable, metrics = ({id(v) for v in vs} for vs in (model.trainable_variables, model.metrics_variables))
    states = {id(v): v for v in (*model.variables, *model.metrics_variables) if id(v) not in trainable}
    # Weights too: `SpectralNormalization` assigns to its layer's kernel.
    before = [(v, keras.ops.copy(v.value)) for v in (*states.values(), *model.trainable_variables)]

    begun = [keras.ops.convert_to_numpy(value) for _, value in before[: len(states)]]
    of_seeds = {id(v) for v in _keras.seeds_in(model)}
    seeds = [id(v) in of_seeds for v in states.values()]
    kept: list = []  # after each pass, what is no weight
    factors: dict = {}  # by which the gradients of k examples are added up

    def contributions(rows, weights=(1,) * (2 * k), metrics_begin_anew=True, firsts=(0,), training=True):
        """Of k examples of these rows, from each of the `firsts` on, what they contribute together: a list of dicts."""
        for variable, value in before:
            if metrics_begin_anew or id(variable) not in metrics:
                variable.assign(value)
        some_x, some_y = take(rows)
        if training:
            result = model.backward_pass(some_x, some_y, tf.constant(weights, tf.float32))
        else:
            result = backward(model, some_x, some_y, training=False)
        require_private(result)
        kept.append([keras.ops.convert_to_numpy(keras.ops.copy(v.value)) for v in states.values()])
        divisor, shares, _ = result.example_scale.weighted()
        own = (divisor * shares).numpy()
        return [_sums(result, own, first, factors.setdefault(tuple(rows[first : first + k]), [])) for first in firsts]

    try:
        (one,) = contributions(watched + some)
        other, of_others = contributions(watched + others, firsts=(0, k))
        (alone,) = contributions(watched + some, [1] * k + [0] * k)
        (later,) = contributions(watched + some, metrics_begin_anew=False)
        (of_others_again,) = contributions(some + others, firsts=(k,))
        first, last = kept[0], kept[-1]  # no row of one is in the other: a layer may keep any
        # Each place has random numbers of its own: where some are drawn, places are compared without.
        drawn = _differ(seeds, begun, first)
        (still,) = contributions(watched + some, training=False) if drawn else (one,)
        (moved,) = contributions(some + watched, firsts=(k,), training=not drawn)
        if drawn and _differ(seeds, begun, kept[-1]):  # in inference too
            moved = still
    finally:
        for variable, value in before:
            variable.assign(value)
    # All states: those of random numbers, and counts of steps, are the same after either pass. What a metric keeps is reported,
    # as the loss is, and may depend on the examples, as long as no gradient depends on it.
    for variable, value, another in zip(states.values(), first, last, strict=True):
        if id(variable) not in metrics and not _same(value, another):
            raise ValueError(
                f"What '{variable.path}' keeps from step to step depends on the examples, and no noise is added to it: the "
                "trained model would tell about them. Let a layer keep nothing of them, or compute it on public data before "
                "training."
            )
    largest = {
        id(sums): max((np.abs(g).max(initial=0) for g in sums.values()), default=0) for sums in (one, of_others, still)
    }
    half = any(layer.compute_dtype in ("float16", "bfloat16") for layer in _keras.layers_in(model))
    rtol = 1e-2 if half else 1e-3
    for path in one:
        for usual, changed, what in (
            (one, other, "who else is in the batch"),
            (of_others, of_others_again, "who else is in the batch"),
            (one, later, "what a metric has kept of the steps before"),
            (still, moved, "its place in the batch, and so on how many others there are"),
            (
                one,
                alone,
                "how many examples of the batch count: a loss must return a value for each example, to be weighted",
            ),
        ):
            gradient = usual.get(path)
            if gradient is None or path not in changed:  # a head that is there in training alone
                continue
            atol = rtol / 10 * np.abs(gradient).max(initial=0) + 1e-6 * largest[id(usual)]
            if not np.allclose(gradient, changed[path], rtol, atol, equal_nan=True):
                raise ValueError(
                    f"What an example contributes to the gradient of '{path}' depends on {what}. Something above that weight, "
                    "a layer, an "
                    "operation or the loss, mixes the examples along the first axis; then clipping bounds nothing. Let every "
                    "example keep a row of its own."
                )


def _sums(result, own, first, factors):
    """The gradients of some examples, from one row on, added up with factors, which are found if there are none: path -> array.

    Args:
        result: a `Backward`.
        own: array, what turns contributions into the examples' own gradients.
        first: int.
        factors: list, of as many as half the rows, or empty.
    """
    k = len(own) // 2
    some = slice(first, first + k)
    if not factors:
        squares = result.squared_norms()
        norms = np.zeros(2 * k) if squares is None else np.sqrt(tf.cast(squares, tf.float64).numpy()) * own
        factors.extend(_factors(norms[some]))
    c = np.zeros(2 * k)
    c[some] = factors
    sums = result.weighted(tf.constant(c * own), penalties=False, left_out=tf.constant(c), least=tf.float32)
    return {
        v.path: keras.ops.convert_to_numpy(tf.cast(tf.convert_to_tensor(g), tf.float64))
        for v, g in zip(result.weights, sums, strict=True)
        if g is not None
    }


def _factors(norms):
    """Factors near 1, each another, with which gradients of these norms are of about one length; 0 for one that is not finite."""
    usable = np.isfinite(norms) & (norms > 0)
    usual = np.median(norms[usable]) if usable.any() else 1.0
    factors = 1 + np.arange(len(norms)) / len(norms)
    factors[usable] *= np.clip(usual / norms[usable], 1e-3, 1e3)
    return np.where(np.isfinite(norms), factors, 0)


def _differ(which, values, others):
    """Whether some of the values, those for which `which` is True, are others now."""
    return not all(_same(*pair) for one, *pair in zip(which, values, others, strict=True) if one)


def _same(value, other):
    return np.array_equal(value, other, equal_nan=value.dtype != object)
