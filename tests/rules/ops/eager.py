"""For operations that Keras itself cannot trace or compile, so that `check_rule` cannot reach them."""

import numpy as np
import tensorflow as tf

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import normal


def gradients(function, *inputs, upstream=None):
    """The explicit gradients of a function (or operation) at tensors; the upstream gradient is y itself by default."""
    record = Record()
    y = record.run(function, *inputs)
    result = sweep(record.calls, [(y, y if upstream is None else upstream(y))], inputs=inputs)
    return [result.input_gradient(x) for x in inputs]


def against_the_tape(function, *inputs, forward=None, signature=None, rtol=1e-10, atol=1e-12):
    """Assert that explicit gradients equal the tape's; compiled, if there is an input signature.

    Args:
        function: of tensors, or an operation.
        *inputs: arrays, or shapes to be filled with random numbers.
        forward: the same function for the tape; `function` by default.
        signature: list of shapes with None for unknown sizes.
    """
    inputs = [tf.constant(normal(*x, seed=i) if isinstance(x, tuple) else x) for i, x in enumerate(inputs)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        error = 0.5 * tf.reduce_sum((forward or function)(*inputs) ** 2)
    expected = tape.gradient(error, inputs)
    ours = lambda *inputs: gradients(function, *inputs)  # noqa: E731
    if signature is not None:
        ours = tf.function(ours, input_signature=[tf.TensorSpec(shape, tf.float64) for shape in signature])
    for mine, theirs in zip(ours(*inputs), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=atol)
