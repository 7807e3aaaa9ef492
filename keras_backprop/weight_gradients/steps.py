"""Sums over time steps."""

from typing import Any

import tensorflow as tf

from keras_backprop.shapes import sizes_of


def sum_of_steps(part: Any, shape: Any, steps: Any, *factors: Any) -> Any:
    """Σₜ part(factors at t): in single precision, of parts in half.

    Keras casts the weights to half precision within each step, so that its backward pass casts each part back before it adds.
    What overflows in one step, and no more, overflows here as there, and the loss scale is alike. One part is held at a time:
    those of all steps take as many times the memory of the weight. In single precision and above all steps are one product.

    Args:
        part: function (a slice of each factor, or all of them) -> tensor.
        shape: of the parts.
        steps: int or scalar tensor, how many steps the rows of the factors are of, the steps first; None where the factors have
            an axis for them.
        *factors: tensors of shape `(steps·n, …)` or `(steps, n, …)`.
    """
    if factors[-1].dtype.size > 2:
        return part(*factors)
    if steps is None:
        steps = tf.shape(factors[0])[0]
    else:
        factors = tuple(tf.reshape(factor, [steps, -1, *sizes_of(factor, 1)]) for factor in factors)

    def add(step, total):
        return step + 1, total + tf.cast(part(*(factor[step] for factor in factors)), total.dtype)

    start = tf.constant(0), tf.zeros(shape, tf.float32)
    return tf.while_loop(lambda step, total: step < steps, add, start)[1]
