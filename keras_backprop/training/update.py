"""The optimizer's update in fewer operations, where these compute what Keras computes.

Keras composes an update of several operations, each of which passes over arrays of the weight's size, and does the part that
is the same for all weights anew for each. Here that part is done once, and a kernel that passes once is used where there is
one that computes the same. Everything else that an optimizer does (clipping, decay,
accumulation, averages, the loss scale, the schedule) stays Keras's, and so does the update of every optimizer, weight or
setting that is not named here.
"""

import contextlib
import functools

import keras
import tensorflow as tf

from keras_backprop import _keras


def unwrapped(optimizer):
    """The optimizer that updates, without the `LossScaleOptimizer` that may be around it."""
    return getattr(optimizer, "inner_optimizer", optimizer)


@contextlib.contextmanager
def lean_updates(model):
    """`lean_update` for the optimizers among a model's attributes, and in lists and dicts that are: steps of a user's own may
    have several."""
    with contextlib.ExitStack() as entered:
        for value in vars(model).values():
            inner = (
                value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
            )
            for optimizer in [x for x in inner if isinstance(x, keras.optimizers.Optimizer)]:
                entered.enter_context(lean_update(optimizer))
        yield


@contextlib.contextmanager
def lean_update(optimizer):
    """For the duration of the block, `optimizer.apply` updates in fewer operations where it can.

    Args:
        optimizer: a Keras optimizer, or one wrapped in a `LossScaleOptimizer`.
    """
    optimizer = unwrapped(optimizer)
    leaner = UPDATES.get(type(optimizer))  # a subclass may have an update of its own
    if leaner is None or not _is_as_in_keras(optimizer) or tf.distribute.has_strategy():
        yield
        return
    compose = _keras.current(optimizer, "_backend_update_step")

    def update(gradients, variables, learning_rate):
        rates = functools.cache(lambda dtype: tf.cast(learning_rate, dtype))  # read once, not for each weight
        lean, composed = leaner(optimizer, rates), []
        for gradient, variable in zip(gradients, variables, strict=True):
            if not lean(gradient, variable):
                composed.append((gradient, variable))
        if composed:
            compose(*zip(*composed, strict=True), learning_rate)

    with _keras.replaced(optimizer, _backend_update_step=update):
        yield


def _is_as_in_keras(optimizer):
    """Whether nobody has put another update into this optimizer or its class; that of AdamW is Adam's."""
    update = getattr(optimizer.update_step, "__func__", None)
    return getattr(update, "__module__", None) in [kind.__module__ for kind in type(optimizer).__mro__]


def sgd(optimizer, rates):
    """w ← w − η·g; with momentum μ: m ← μ·m − η·g, w ← w + m, or with Nesterov's w ← w + μ·m − η·g"""

    def update(gradient, variable):
        w = variable.value
        if isinstance(gradient, tf.IndexedSlices):
            return False
        g, η = tf.cast(gradient, w.dtype), rates(w.dtype)
        if optimizer.momentum == 0:
            tf.raw_ops.ResourceApplyGradientDescent(var=w.handle, alpha=η, delta=g)
        else:
            m = optimizer.momentums[_keras.index_of(optimizer, variable)].value
            tf.raw_ops.ResourceApplyKerasMomentum(
                var=w.handle, accum=m.handle, lr=η, grad=g, momentum=tf.cast(optimizer.momentum, w.dtype),
                use_nesterov=optimizer.nesterov,
            )  # fmt: skip
        return True

    return update


def adam(optimizer, rates):
    """m ← m + (g − m)·(1 − β₁)    v ← v + (g² − v)·(1 − β₂)    w ← w − α·m/(√v + ε)    α = η·√(1 − β₂ᵗ)/(1 − β₁ᵗ)

    As Keras composes it, to the last bit, in half as many operations: m ← m + c·Δ is gradient descent by −c along Δ, and what
    AdaGrad's kernel does to a weight, if it leaves its accumulator alone, is the last line. α is computed once and not for
    each weight. Only gradients of some rows, which Keras fills up with zeros, are rounded otherwise. TensorFlow's own kernel
    for Adam will not do: in single precision its 1 − β₂ is off by 1.3e-5.
    """

    @functools.cache
    def step_size(dtype):
        t = keras.ops.cast(optimizer.iterations + 1, dtype.name)
        power_1, power_2 = (  # β rounded to single precision, as Keras does
            keras.ops.power(keras.ops.cast(β, dtype.name), t) for β in (optimizer.beta_1, optimizer.beta_2)
        )
        return rates(dtype) * tf.sqrt(1 - power_2) / (1 - power_1)

    @functools.cache
    def constants(dtype):
        return [tf.constant(c, dtype) for c in (1 - optimizer.beta_1, 1 - optimizer.beta_2, optimizer.epsilon)]

    def update(gradient, variable):
        w, index = variable.value, _keras.index_of(optimizer, variable)
        if optimizer.amsgrad:
            return False
        m, v = (moment.value for moment in _keras.moments_of(optimizer, index))
        c_1, c_2, ε = constants(w.dtype)
        if isinstance(gradient, tf.IndexedSlices):
            g, rows = tf.cast(gradient.values, w.dtype), gradient.indices
            add_to_rows(v, tf.square(g), rows, c_2, after=add_to_rows(m, g, rows, c_1))
        else:
            g = tf.cast(gradient, w.dtype)
            tf.raw_ops.ResourceApplyGradientDescent(var=m.handle, alpha=-c_1, delta=g - m)
            tf.raw_ops.ResourceApplyGradientDescent(var=v.handle, alpha=-c_2, delta=tf.square(g) - v)
        tf.raw_ops.ResourceApplyAdagradV2(
            var=w.handle, accum=v.handle, lr=step_size(w.dtype), epsilon=ε, grad=m, update_slots=False
        )
        return True

    return update


def add_to_rows(m, g, rows, c, after=None):
    """m ← m + (g − m)·c for a g that is 0 but in some rows; a row that is given several times counts as their sum.

    The change is as large as m, a table of many rows perhaps: with `after`, it waits for another such operation. Returns its own.
    """
    with tf.control_dependencies([] if after is None else [after]):
        change = tf.tensor_scatter_nd_add(m * -c, rows[:, None], g * c)
        return tf.raw_ops.AssignAddVariableOp(resource=m.handle, value=change)


UPDATES = {keras.optimizers.SGD: sgd, keras.optimizers.Adam: adam, keras.optimizers.AdamW: adam}
