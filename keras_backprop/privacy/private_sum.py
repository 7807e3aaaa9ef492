"""The step that is private: clip each example's gradient, add up, add noise once, divide by what is public."""

from typing import Any

import tensorflow as tf

from keras_backprop.privacy.clipping import PerLayer
from keras_backprop.privacy.randomness import COUNT, FIRST_WEIGHT


def private_gradients(plan: Any, result: Any) -> list[Any]:
    """(Σᵢ clip(wᵢ·gᵢ) + σ·C·z)/B, and the gradients of penalties, which are no example's.

    gᵢ is the gradient of the example's own error and wᵢ its sample weight: what depends on the other examples of the batch, its size or
    the sum of its weights, is taken out before the norm is. An example whose gradient is not finite counts 0. In parts
    of a batch each is returned times their number, for the optimizer takes the mean over them, and the noise is in the last.

    Args:
        plan: a `Plan`.
        result: a `Backward`, whose gradients may carry a loss scale.

    Returns:
        list of float tensors, dense, None where E does not depend on the weight; with the loss scale.
    """
    scale = tf.ones([], tf.float64) if result.scale is None else tf.cast(result.scale, tf.float64)
    divisor, shares, present = result.example_scale.weighted()
    weights = result.weights
    factors: list = [None] * len(weights)
    whole, fits = tf.ones_like(shares), None
    for indices, norm in plan.clipping.groups(weights):
        squares = result.squared_norms([weights[i] for i in indices])
        if squares is None:
            continue
        norms = tf.sqrt(tf.cast(squares, tf.float64)) * divisor * shares / scale
        finite, limit = tf.math.is_finite(norms), _number(norm)
        factor = tf.where(finite, limit / tf.maximum(norms, limit), 0)
        fits = norms <= limit  # False where it is NaN
        whole *= tf.cast(finite, tf.float64)  # whoever is not finite in one layer counts in none
        for i in indices:
            factors[i] = factor
    whole *= present
    sums = result.weighted([f if f is None else f * shares * whole for f in factors], penalties=False, left_out=whole)
    noise = _Noise(plan)
    stddev = plan.noise_multiplier * plan.clipping.noise_factor * _number(_sensitivity(plan, weights))
    gradients: list = []
    for i, (weight, total, penalty) in enumerate(zip(weights, sums, result.penalties(), strict=True)):
        if total is None:
            gradients.append(penalty)
            continue
        dtype = tf.float64 if weight.dtype == "float64" else tf.float32
        total = tf.cast(tf.convert_to_tensor(total), dtype) * tf.cast(divisor / scale, dtype)
        total += tf.cast(stddev, dtype) * tf.cast(noise.of(weight.shape, FIRST_WEIGHT + i), dtype)
        total = tf.cast(total * tf.cast(scale * plan.parts / plan.expected_batch_size, dtype), weight.dtype)
        gradients.append(total if penalty is None else total + tf.cast(tf.convert_to_tensor(penalty), total.dtype))
    changes = []
    if plan.clipping.variables and fits is not None:
        centred = tf.reduce_sum((tf.cast(fits, tf.float32) - 0.5) * tf.cast(present, tf.float32))
        changes = plan.clipping.observe(
            _over_replicas(centred), noise.of([], COUNT, once=False), noise.last, plan.expected_batch_size
        )
    return _after(gradients, [lambda: plan._count.assign_add(1), *changes])


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
        self.share = tf.cast(self.last, tf.float32)
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            self.share *= tf.cast(tf.equal(context.replica_id_in_sync_group, 0), tf.float32)

    def of(self, shape, stream, once=True):
        normal = self.randomness.normal(list(shape), self.step, stream)
        return normal * self.share if once else normal


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
