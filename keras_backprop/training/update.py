"""The optimizer's update by one kernel of TensorFlow for each weight, where it computes what Keras computes.

Keras composes Adam's update of twelve operations, each of which passes over arrays of the weight's size, and does the part that
is the same for all weights anew for each. The kernel passes once. Everything else that an optimizer does (clipping, decay,
accumulation, averages, the loss scale, the schedule) stays Keras's, and so does the update of every optimizer, weight or
setting that is not named here.
"""

import contextlib
import functools

import keras
import tensorflow as tf

from keras_backprop import _keras


@contextlib.contextmanager
def fused_update(optimizer):
    """For the duration of the block, `optimizer.apply` updates by fused kernels where they apply.

    Args:
        optimizer: a Keras optimizer, or one wrapped in a `LossScaleOptimizer`.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    kernel = KERNELS.get(type(optimizer))  # a subclass may have an update of its own
    if kernel is None or tf.distribute.has_strategy():
        yield
        return
    compose = _keras.current(optimizer, "_backend_update_step")

    def update(gradients, variables, learning_rate):
        rates = functools.cache(lambda dtype: tf.cast(learning_rate, dtype))  # read once, not for each weight
        fused, composed = kernel(optimizer, rates), []
        for gradient, variable in zip(gradients, variables, strict=True):
            if isinstance(gradient, tf.IndexedSlices) or not fused(gradient, variable):
                composed.append((gradient, variable))
        if composed:
            compose(*zip(*composed, strict=True), learning_rate)

    with _keras.replaced(optimizer, _backend_update_step=update):
        yield


def sgd(optimizer, rates):
    """w ← w − η·g; with momentum μ: m ← μ·m − η·g, w ← w + m, or with Nesterov's w ← w + μ·m − η·g"""

    def update(gradient, variable):
        w = variable.value
        g, η = tf.cast(gradient, w.dtype), rates(w.dtype)
        if optimizer.momentum == 0:
            tf.raw_ops.ResourceApplyGradientDescent(var=w.handle, alpha=η, delta=g)
        else:
            m = optimizer.momentums[optimizer._get_variable_index(variable)].value
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=w.handle, accum=m.handle, lr=η, grad=g, momentum=tf.cast(optimizer.momentum, w.dtype),
                use_nesterov=optimizer.nesterov,
            )  # fmt: skip
        return True

    return update


SMALL, LARGE = 256, 2**15
"""Between these numbers of entries the kernel of Adam shares its work out to threads, at a cost that exceeds the gain."""


def adam(optimizer, rates):
    """m ← m + (g − m)·(1 − β₁)    v ← v + (g² − v)·(1 − β₂)    w ← w − η·√(1 − β₂ᵗ)/(1 − β₁ᵗ)·m/(√v + ε)

    In single precision the kernel's 1 − β₂ is off by 10⁻⁵ relative, Keras's is not. The kernel's v is v·k² to rounding, where
    k² = (1 − β₂′ᵗ)/(1 − β₂ᵗ), β₂′ being β₂ in single precision: k·η in the place of η undoes that for w.
    """

    @functools.cache
    def scalars(dtype):
        t, wide = optimizer.iterations + 1, tf.float64
        powers = [  # as Keras rounds them
            keras.ops.power(keras.ops.cast(β, dtype.name), keras.ops.cast(t, dtype.name))
            for β in (optimizer.beta_1, optimizer.beta_2)
        ]
        β1, β2 = (tf.constant(β, dtype) for β in (optimizer.beta_1, optimizer.beta_2))
        t = tf.cast(t, wide)
        k = tf.sqrt((1 - tf.cast(β2, wide) ** t) / (1 - tf.constant(optimizer.beta_2, wide) ** t))
        η = tf.cast(tf.cast(rates(dtype), wide) * k, dtype)
        return η, β1, β2, *powers, tf.constant(optimizer.epsilon, dtype)

    def update(gradient, variable):
        w, index = variable.value, optimizer._get_variable_index(variable)
        between = SMALL < w.shape.num_elements() < LARGE and not tf.executing_eagerly()
        if optimizer.amsgrad or between or w.dtype.size < 4:  # half precision has no β₂ of 0.999
            return False
        η, β1, β2, β1_power, β2_power, ε = scalars(w.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=w.handle, m=optimizer._momentums[index].value.handle, v=optimizer._velocities[index].value.handle,
            beta1_power=β1_power, beta2_power=β2_power, lr=η, beta1=β1, beta2=β2, epsilon=ε, grad=tf.cast(gradient, w.dtype),
        )  # fmt: skip
        return True

    return update


KERNELS = {keras.optimizers.SGD: sgd, keras.optimizers.Adam: adam, keras.optimizers.AdamW: adam}
