"""The step that is private: clip each example's gradient, add up, add noise once, divide by what is public."""

from typing import Any

import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.privacy.clipping import PerLayer
from keras_backprop.privacy.randomness import COUNT, FIRST_WEIGHT


def private_gradients(plan: Any, result: Any, allowed: Any = True) -> list[Any]:
    """(Σᵢ clip(wᵢ·gᵢ) + σ·C·z)/B, and the gradients of penalties, which are no example's.

    gᵢ is the gradient of the example's own error and wᵢ its sample weight: what depends on the other examples of the batch,
    its size or the sum of its weights, is taken out before the norm is. An example whose gradient is not finite counts 0. In
    parts of a batch each is returned times their number, for the optimizer takes the mean over them, and the noise is in the
    last.

    Args:
        plan: a `Plan`.
        result: a `Backward`, whose gradients may carry a loss scale.
        allowed: bool or bool tensor, whether the plan allows the step. Else all examples count 0.

    Returns:
        list of float tensors, dense, None where E does not depend on the weight; with the loss scale.

    Raises:
        ValueError: weights of half precision on several replicas.
    """
    _require_single_precision(result.weights)
    scale = tf.ones([], tf.float64) if result.scale is None else tf.cast(result.scale, tf.float64)
    divisor, shares, present = result.example_scale.weighted()
    present *= tf.cast(allowed, present.dtype)
    weights = result.weights
    factors: list = [None] * len(weights)
    whole, fits, broken = tf.ones_like(shares), None, tf.constant(False)
    for indices, norm in plan.clipping.groups(weights):
        squares = result.squared_norms([weights[i] for i in indices])
        if squares is None:
            continue
        norms = tf.sqrt(tf.cast(squares, tf.float64)) * divisor * shares / scale
        finite, limit = tf.math.is_finite(norms), _number(norm)
        factor = tf.where(finite, limit / tf.maximum(norms, limit), 0)
        fits = norms <= limit  # False where it is NaN
        whole *= tf.cast(finite, tf.float64)  # whoever is not finite in one layer counts in none
        broken |= ~tf.reduce_all(finite)
        for i in indices:
            factors[i] = factor
    whole *= present
    # D, the parts and B are in the factors, which stay near 1: sums in half precision do not overflow, and the loss scale
    # stays in.
    counts = divisor * shares * whole * (plan.parts / plan.expected_batch_size)
    factors = [f if f is None else f * counts for f in factors]
    sums = _finite_sums(result, factors, whole, broken)
    noise = _Noise(plan)
    stddev = plan.noise_multiplier * plan.clipping.noise_factor * _number(_sensitivity(plan, weights))
    stddev *= scale * plan.parts / plan.expected_batch_size
    gradients: list = []
    for i, (weight, total, penalty) in enumerate(zip(weights, sums, result.penalties(), strict=True)):
        if total is None:
            gradients.append(penalty)
            continue
        total = noise.added_to(total, FIRST_WEIGHT + i, stddev)
        total = tf.cast(total, weight.dtype)  # half precision would round what is not private yet
        gradients.append(total if penalty is None else total + tf.convert_to_tensor(penalty))
    changes = []
    if plan.clipping.variables and fits is not None:
        centred = tf.reduce_sum((tf.cast(fits, tf.float32) - 0.5) * tf.cast(present, tf.float32))
        changes = plan.clipping.observe(_over_replicas(centred), noise.of_count(), noise.last, plan.expected_batch_size)
    return _after(gradients, [lambda: plan._count.assign_add(1), *changes])


def _finite_sums(result, factors, whole, broken):
    """Σᵢ cᵢ·gᵢ of each weight, dense.

    Zero times an infinity is NaN. So where a gradient is `broken`, not finite, the sums are made once more, of products without
    the examples that count 0, which takes a pass over all their factors.
    """

    def sums(left_out=None):
        weighted = result.weighted(factors, penalties=False, left_out=left_out, least=tf.float32)
        pairs = zip(weighted, result.weights, strict=True)
        return [None if g is None else tf.ensure_shape(tf.convert_to_tensor(g), v.shape) for g, v in pairs]

    if tf.executing_eagerly():
        return sums(whole if broken else None)
    usual = sums()

    def without(*_):
        return (tf.constant(False), *(g for g in sums(whole) if g is not None))

    # A loop of at most one turn, which unlike `tf.cond` leaves the step one that can run in one thread.
    _, *given = tf.while_loop(lambda due, *_: due, without, (broken, *(g for g in usual if g is not None)))
    rest = iter(given)
    return [None if g is None else next(rest) for g in usual]


def _sensitivity(plan, weights):
    if isinstance(plan.clipping, PerLayer):
        plan.sensitivity = plan.clipping.of(weights) if isinstance(plan.clipping.given, dict) else plan.clipping.given
        return plan.sensitivity
    return plan.clipping.stddev()


class _Noise:
    """Standard normal numbers of a step, once: in the last part of a batch, and on the first of several replicas."""

    def __init__(self, plan):
        self.count, self.randomness = plan.count, plan._randomness
        self.step = self.count // plan.parts
        self.last = tf.constant(True)
        if plan.parts > 1:
            self.last = tf.equal(self.count % plan.parts, plan.parts - 1)
        self.share = tf.cast(self.last, tf.float64)
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            self.share *= tf.cast(tf.equal(context.replica_id_in_sync_group, 0), tf.float64)

    def added_to(self, total, stream, stddev):
        """A gradient with noise."""
        return self.randomness.added_to(total, self.step, stream, tf.cast(stddev * self.share, tf.float32))

    def of_count(self):
        """One number for the count of examples, the same on all replicas."""
        return self.randomness.normal([], self.step, COUNT)


def _require_single_precision(weights):
    """The noise is in the sum of one replica. Those of the others would be rounded before they get any."""
    context = tf.distribute.get_replica_context()
    half = [v.path for v in weights if tf.as_dtype(_keras.dtype_of(v)).size < 4]
    if half and context is not None and context.num_replicas_in_sync > 1:
        raise ValueError(
            f"On several replicas the weights of private training must be of single precision. Received: {', '.join(half)} of "
            "half precision. Use the policy `mixed_float16` or `mixed_bfloat16`, or train on one device."
        )


def _over_replicas(value):
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def _after(gradients, changes):
    """The gradients, which wait for changes of the plan's variables; of several replicas these are made once."""
    present = [g for g in gradients if g is not None]
    context = tf.distribute.get_replica_context()

    def change(strategy=None):
        with tf.control_dependencies(present):
            for one in changes:
                one()

    if context is None or context.num_replicas_in_sync == 1:
        change()
    else:
        context.merge_call(change)
    return gradients


def _number(x):
    """A number in double precision, which `tf.cast` would first round to single."""
    return tf.cast(x, tf.float64) if tf.is_tensor(x) else tf.constant(x, tf.float64)
