"""A loop over time that carries something along and stacks what comes out of every step."""

import tensorflow as tf

UNROLLED_UP_TO = 4
"""Sequences of at most so many steps are unrolled in a compiled graph: shorter than the loop around them."""


def scan(step, carry, sequences, reverse=False, unroll=False):
    """carry, out[t] = step(carry, *(x[t] for x in sequences)) for t = 0 … T−1, or T−1 … 0 if `reverse`.

    Args:
        step: function `(carry, *slices) -> (carry, out)`; carry and out are tuples of tensors.
        carry: tuple of tensors.
        sequences: tuple of tensors of shape `(T, …)`, or None (then the step gets None).
        unroll: bool, a Python loop even in a compiled graph. In eager mode it is one anyway.

    Returns:
        The last carry, and a tuple of tensors of shape `(T, …)`.
    """
    present = [x for x in sequences if x is not None]
    length = present[0].shape[0]
    if tf.executing_eagerly() or unroll or (length is not None and length <= UNROLLED_UP_TO):
        return _unrolled(step, carry, sequences, length, reverse)
    return _looped(step, carry, sequences, tf.shape(present[0])[0] if length is None else length, reverse)


def _unrolled(step, carry, sequences, length, reverse):
    slices = [[None] * length if x is None else tf.unstack(x, length) for x in sequences]
    outs: list = [None] * length
    for t in reversed(range(length)) if reverse else range(length):
        carry, outs[t] = step(carry, *(x[t] for x in slices))
    return carry, tuple(map(tf.stack, zip(*outs, strict=True)))


def _looped(step, carry, sequences, length, reverse):
    arrays = [None if x is None else _array(x.dtype, length, x.shape[1:]).unstack(x) for x in sequences]
    carry = tuple(carry)

    first, after = (length - 1, -1) if reverse else (0, length)

    def run(t, carry):
        return step(carry, *(None if a is None else a.read(t) for a in arrays))

    written = tf.function(lambda: run(tf.constant(0), carry)[1]).get_concrete_function().structured_outputs

    def body(t, carry, outs):
        new_carry, values = run(t, carry)
        outs = tuple(out.write(t, y) for out, y in zip(outs, values, strict=True))
        return t - 1 if reverse else t + 1, tuple(new_carry), outs

    outs = tuple(_array(y.dtype, length, y.shape) for y in written)  # the probe is never run
    _, carry, outs = tf.while_loop(
        lambda t, *_: tf.not_equal(t, after),
        body,
        (tf.convert_to_tensor(first), carry, outs),
        parallel_iterations=32,  # as Keras's own loop has it
    )
    return carry, tuple(out.stack() for out in outs)


def _array(dtype, length, shape):
    return tf.TensorArray(dtype, length, element_shape=shape, clear_after_read=False)
