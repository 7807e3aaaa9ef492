"""A loop over time that carries something along and stacks what comes out of every step."""

import tensorflow as tf

UNROLLED_UP_TO = 4
"""Sequences of at most so many steps are unrolled in a compiled graph: shorter than the loop around them."""


def scan(step, carry, sequences, reverse=False, unroll=False):
    """carry, out[t], part[t] = step(carry, *(x[t] for x in sequences)) for t = 0 … T−1, or T−1 … 0 if `reverse`.

    Args:
        step: function `(carry, *slices) -> (carry, out, part)`: tuples of tensors.
        carry: tuple of tensors.
        sequences: tuple of tensors of shape `(T, …)`, of what a scan has left in parts, or None (then the step gets None).
        unroll: bool, a Python loop even in a compiled graph. In eager mode it is one anyway.

    Returns:
        The last carry, a tuple of tensors of shape `(T, …)` for `out`, and a tuple for `part`, left in parts: nothing is copied
        on the way to another scan, which runs as this one did, and `stacked` makes tensors of them.
    """
    present = [x for x in sequences if x is not None]
    for x in present:
        if isinstance(x, list):
            return _unrolled(step, carry, sequences, len(x), reverse)
        if isinstance(x, tf.TensorArray):
            return _looped(step, carry, sequences, x.size(), reverse)
    length = present[0].shape[0]
    if tf.executing_eagerly() or unroll or (length is not None and length <= UNROLLED_UP_TO):
        return _unrolled(step, carry, sequences, length, reverse)
    return _looped(step, carry, sequences, tf.shape(present[0])[0] if length is None else length, reverse)


def stacked(x):
    """A tensor of shape `(T, …)` of what `scan` has left in parts."""
    return tf.stack(x) if isinstance(x, list) else x.stack()


def _unrolled(step, carry, sequences, length, reverse):
    slices = [[None] * length if x is None else x if isinstance(x, list) else tf.unstack(x, length) for x in sequences]
    outs: list = [None] * length
    parts: list = [None] * length
    for t in reversed(range(length)) if reverse else range(length):
        carry, outs[t], parts[t] = step(carry, *(x[t] for x in slices))
    return carry, tuple(map(tf.stack, zip(*outs, strict=True))), tuple(map(list, zip(*parts, strict=True)))


def _looped(step, carry, sequences, length, reverse):
    arrays = [x if x is None or isinstance(x, tf.TensorArray) else _unstacked(x, length) for x in sequences]
    carry = tuple(carry)

    first, after = (length - 1, -1) if reverse else (0, length)

    def run(t, carry):
        return step(carry, *(None if a is None else a.read(t) for a in arrays))

    once = tf.function(lambda: run(tf.constant(0), carry)).get_concrete_function()  # for the shapes; it never runs
    _, out, part = once.structured_outputs

    def body(t, carry, written):
        new_carry, out, part = run(t, carry)
        written = tuple(array.write(t, y) for array, y in zip(written, (*out, *part), strict=True))
        return t - 1 if reverse else t + 1, tuple(new_carry), written

    _, carry, written = tf.while_loop(
        lambda t, *_: tf.not_equal(t, after),
        body,
        (tf.convert_to_tensor(first), carry, tuple(_array(y.dtype, length, y.shape) for y in (*out, *part))),
        parallel_iterations=32,  # as Keras's own loop has it
    )
    return carry, tuple(array.stack() for array in written[: len(out)]), written[len(out) :]


def _unstacked(x, length):
    return _array(x.dtype, length, x.shape[1:]).unstack(x)


def _array(dtype, length, shape):
    return tf.TensorArray(dtype, length, element_shape=shape, clear_after_read=False)
