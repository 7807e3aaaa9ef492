"""A trial, before anything is trained: does what an example contributes depend on who else is in the batch?

A layer, a loss, an activation or a graph of operations of one's own may do anything along the first axis, and so may a layer of
Keras that is told to. So some steps are tried on a few examples, and nothing is changed by it.
"""

import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras, _tensorflow
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


def what_is_compiled(model: Any) -> tuple[int, ...]:
    """What a trial is of: it stays the same until the model is compiled anew."""
    return id(model), id(model.optimizer), id(_keras.compiled_loss(model))


def try_examples(model: Any, x: Any, y: Any, n: int, size: int) -> bool:
    """Run backward passes of a few examples, some of which are the same in two of them, and compare what those contribute.

    Args:
        model: a compiled `BackpropModel`.
        x, y: nested tensors, n examples.
        n: int, 3 or more.
        size: int, of the batches that each replica will train.

    Returns:
        Whether there was something to compare: not so if all gradients are 0 or not finite.

    Raises:
        ValueError: it depends on the others, or on what weighs nothing; a step keeps something of the examples, beside what the
            optimizer does; or there are no gradients of single examples, and why.
    """
    watched, some, others = choose(y, n)
    k = len(watched)
    take = lambda rows: keras.tree.map_structure(lambda a: a if a is None else tf.gather(a, rows), (x, y))  # noqa: E731
    require_built(model, take(watched)[0])
    if not model.trainable_weights:
        return False
    trainable, metrics = ({id(v) for v in vs} for vs in (model.trainable_variables, model.metrics_variables))
    states = {id(v): v for v in (*model.variables, *model.metrics_variables) if id(v) not in trainable}
    # Weights too: `SpectralNormalization` assigns to its layer's kernel.
    before = [(v, keras.ops.copy(v.value)) for v in (*states.values(), *model.trainable_variables)]
    assigned = _tensorflow.Assignments([v for v, _ in before])
    try:
        with assigned:
            model._part_of_step("backward_pass")(*take(watched + some), tf.ones(2 * k))
    finally:
        before += assigned.variables
        for variable, value in before:
            variable.assign(value)

    begun = [keras.ops.convert_to_numpy(value) for _, value in before]
    of_seeds = {id(v) for v in _keras.seeds_in(model)}
    seeds = [id(v) in of_seeds for v, _ in before]
    kept: list = []  # after each pass, what all of these are
    norms: dict = {}  # of the gradients of rows

    def contributions(rows, weights=None, metrics_are_far_off=False, firsts=(0,), training=True):
        """Of k examples of these rows, from each of the `firsts` on, what they contribute together: a list of dicts."""
        for variable, value in before:
            variable.assign(value)
            if metrics_are_far_off and id(variable) in metrics and tf.as_dtype(variable.dtype).is_floating:
                variable.assign_add(keras.ops.full_like(value, 1e4))
        some_x, some_y = take(rows)
        if training:
            weights = tf.constant([1] * len(rows) if weights is None else weights, tf.float32)
            result = model._part_of_step("backward_pass")(some_x, some_y, weights)
        else:
            result = backward(model, some_x, some_y, training=False)
        require_private(result)
        now = (keras.ops.convert_to_numpy(keras.ops.copy(v.value)) for v, _ in before)
        kept.append([was if _same(value, was) else value for value, was in zip(now, begun, strict=True)])
        divisor, shares, _ = result.example_scale.weighted()
        own = (divisor * shares).numpy()
        if not norms.keys() >= {*rows}:
            squares = result.squared_norms()
            of_rows = np.zeros(len(rows)) if squares is None else np.sqrt(tf.cast(squares, tf.float64).numpy()) * own
            for row, norm in zip(rows, of_rows, strict=True):
                norms.setdefault(row, norm)
        taken = [slice(first, first + k) for first in firsts]
        return [_sums(result, own, these, np.array([norms[row] for row in rows[these]])) for these in taken]

    try:
        (one,) = contributions(watched + some)
        other, of_others = contributions(watched + others, firsts=(0, k))
        (of_others_again,) = contributions(some + others, firsts=(k,))
        # Each of the three sets is missing in one pass: a layer may keep any of it, such as the largest.
        after_some = kept[:3]
        (alone,) = contributions(watched + some, [1] * k + [0] * k)
        (later,) = contributions(watched + some, metrics_are_far_off=True)
        of_large = [contributions(watched + rest)[0] for rest in _rests(watched, norms, size)]
        # Each place has random numbers of its own: where some are drawn, places are compared without.
        drawn = _differ(seeds, begun, kept[0])
        (still,) = contributions(watched + some, training=False) if drawn else (one,)
        (moved,) = contributions(some + watched, firsts=(k,), training=not drawn)
        if drawn and _differ(seeds, begun, kept[-1]):  # in inference too
            moved = still
    finally:
        for variable, value in before:
            variable.assign(value)
    # Those of random numbers, and counts of steps, are the same after each. What a metric keeps is reported,
    # as the loss is, and may depend on the examples, as long as no gradient depends on it.
    for (variable, _), *values in zip(before, *after_some, strict=True):
        if id(variable) not in metrics and not all(_same(values[0], another) for another in values):
            raise ValueError(
                f"What '{variable.path}' keeps from step to step depends on the examples, and no noise is added to it: the "
                "trained model would tell about them. Let a layer keep nothing of them, or compute it on public data before "
                "training."
            )
    half = any(layer.compute_dtype in ("float16", "bfloat16") for layer in _keras.layers_in(model))
    for usual, changed, what in (
        (one, other, "who else is in the batch"),
        (of_others, of_others_again, "who else is in the batch"),
        (*(of_large or (one, one)), "who else is in the batch"),
        (one, later, "what a metric has kept of the steps before"),
        (still, moved, "its place in the batch, and so on how many others there are"),
        (
            one,
            alone,
            "how many examples of the batch count: a loss must return a value for each example, to be weighted",
        ),
    ):
        weight = _changed(usual, changed, 1e-2 if half else 1e-3)
        if weight is not None:
            raise ValueError(
                f"What an example contributes to the gradient of '{weight.path}' depends on {what}. Something above that "
                "weight, a layer, an operation or the loss, mixes the examples along the first axis; then clipping bounds "
                "nothing. Let every example keep a row of its own."
            )
    if any(np.isfinite(gradient).all() and gradient.any() for _, gradient in one.values()):
        return True
    warnings.warn(
        f"Whether an example of the model '{model.name}' changes what another contributes could not be tried: the gradients of "
        "those that were taken are 0 or not finite. Who wrote its layers and losses answers for them.",
        stacklevel=2,
    )
    return False


def _rests(watched, norms, size):
    """Twice other examples, by which a batch of the watched ones has the size of those of training; of a small one, nothing.

    They are copies of the example with the smallest gradient, beside which those that are watched are the hardest of the batch,
    and of the one with the largest.

    Args:
        watched: list of rows.
        norms: dict, row -> norm.
        size: int.
    """
    missing = size - len(watched)
    others = sorted((row for row in norms if row not in watched and np.isfinite(norms[row])), key=norms.get)
    return [[others[0]] * missing, [others[-1]] * missing] if missing > len(watched) and others else []


def _sums(result, own, some, norms):
    """The gradients of some examples, added up with factors by which they are of about one length: id -> (weight, array).

    Args:
        result: a `Backward`.
        own: array, what turns contributions into the examples' own gradients.
        some: slice, which of them.
        norms: array, of their gradients.
    """
    c = np.zeros(len(own))
    c[some] = _factors(norms)
    sums = result.weighted(tf.constant(c * own), penalties=False, left_out=tf.constant(c), least=tf.float32)
    return {
        id(v): (v, keras.ops.convert_to_numpy(tf.cast(tf.convert_to_tensor(g), tf.float64)))
        for v, g in zip(result.weights, sums, strict=True)
        if g is not None
    }


def _changed(usual, changed, rtol):
    """The first weight whose gradient is another in `changed` than in `usual`, or None. In neither, it would be 0."""
    largest = max((_largest(gradient) for _, gradient in usual.values()), default=0)
    for number, (weight, either) in {**changed, **usual}.items():
        one, other = (sums[number][1] if number in sums else np.zeros_like(either) for sums in (usual, changed))
        atol = rtol / 10 * _largest(one) + 1e-6 * largest
        if not np.allclose(one, other, rtol, atol, equal_nan=True):
            return weight
    return None


def _largest(x):
    """The largest finite number of an array, without its sign: beside one that is not finite no deviation would be too large."""
    return np.abs(x).max(initial=0, where=np.isfinite(x))


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
