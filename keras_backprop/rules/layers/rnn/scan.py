"""A loop over time that carries something along and stacks what comes out of every step."""

import tensorflow as tf

UNROLLED_UP_TO = 4
"""Sequences of at most so many steps are unrolled in a compiled graph: shorter than the loop around them."""

STEPS_IN_A_TURN = 2
"""So many steps make one turn of a compiled loop. What a turn costs by itself is shared; each further step is traced anew."""


def scan(step, carry, sequences, length, reverse=False, unroll=False):
    """carry, out[t], part[t] = step(carry, *(x[t] for x in sequences)) for t = 0 … T−1, or T−1 … 0 if `reverse`.

    Args:
        step: function `(carry, *slices) -> (carry, out, part)`: tuples of tensors.
        carry: tuple of tensors.
        sequences: tuple of tensors of shape `(T, …)`, of what a scan has left in parts, or None (then the step gets None).
        length: int, T; None where it is not known before the graph runs.
        unroll: bool, a Python loop even in a compiled graph. In eager mode it is one anyway.

    Returns:
        The last carry, a tuple of tensors of shape `(T, …)` for `out`, and a tuple for `part`, left in parts: nothing is copied
        on the way to another scan, which runs as this one did, and `stacked` makes tensors of them.
    """
    parts = [x for x in sequences if isinstance(x, (list, tf.TensorArray))]
    short = length is not None and length <= UNROLLED_UP_TO
    if isinstance(parts[0], list) if parts else tf.executing_eagerly() or unroll or short:
        return _unrolled(step, carry, sequences, length, reverse)
    return _looped(step, carry, sequences, length, reverse)


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
    steps = 1 if length is None else STEPS_IN_A_TURN
    extra = 0 if length is None else length % steps
    length = _length(sequences) if length is None else length
    arrays = [x if x is None or isinstance(x, tf.TensorArray) else _unstacked(x, length) for x in sequences]
    carry = tuple(carry)
    first, after, onward = (length - 1, -1, -1) if reverse else (0, length, 1)

    def run(t, carry):
        return step(carry, *(None if a is None else a.read(t) for a in arrays))

    once = tf.function(lambda: run(tf.constant(0), carry)).get_concrete_function()  # for the shapes; it never runs
    _, out, part = once.structured_outputs

    def advance(t, carry, written):
        carry, out, part = run(t, carry)
        return t + onward, tuple(carry), tuple(a.write(t, y) for a, y in zip(written, (*out, *part), strict=True))

    def turn(*state):
        for _ in range(steps):
            state = advance(*state)
        return state

    written = tuple(_array(y.dtype, length, y.shape) for y in (*out, *part))
    state = tf.convert_to_tensor(first), carry, written
    for _ in range(extra):
        state = advance(*state)
    _, carry, written = tf.while_loop(
        lambda t, *_: tf.not_equal(t, after),
        turn,
        state,
        parallel_iterations=32,  # as Keras's own loop has it
    )
    return carry, tuple(array.stack() for array in written[: len(out)]), written[len(out) :]


def _length(sequences):
    """T as a tensor."""
    x = next((x for x in sequences if x is not None), None)
    if x is None:
        raise ValueError("A scan over no sequences has no length of its own. Received: length=None")
    return x.size() if isinstance(x, tf.TensorArray) else tf.shape(x)[0]


def _unstacked(x, length):
    return _array(x.dtype, length, x.shape[1:]).unstack(x)


def _array(dtype, length, shape):
    return tf.TensorArray(dtype, length, element_shape=shape, clear_after_read=False)
