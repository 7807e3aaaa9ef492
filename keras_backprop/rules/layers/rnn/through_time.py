"""Backpropagation through time: what all recurrent layers share. The mathematics of one step stands in each cell's file.

Forward, for t = 1 … T (all sequences are time first inside):

    X·W + b      for all steps in one product, before the loop; LSTM and GRU take their product in it
    sₜ = f(xₜ·W + b, sₜ₋₁)        the states; the first of them, hₜ, is the output
    the local derivatives of the step, while what they are made of is at hand: they do not depend on the error
    where masked: sₜ = sₜ₋₁, and the output is the one before (or 0)

Backward, for t = T … 1:

    (δₜ, dsₜ₋₁) = backward step(dsₜ + dyₜ)        only this has to wait for the step after it
    dX, dW, dU, db from the δₜ of all steps at once, after the loop: one product each
"""

import tensorflow as tf

from keras_backprop import _tensorflow
from keras_backprop.rule import Gradients
from keras_backprop.rules.layers.rnn.scan import scan


def run_forward(loop, sequences, initial_state, mask):
    x = tf.cast(sequences, loop.cell.compute_dtype)
    x = x[None] if loop.single else time_first(x, loop.go_backwards)
    initial_state = tuple(_of_each_example(state, x) for state in initial_state)
    masks = loop.recurrence.masks(loop.cell, loop.training, x[0], initial_state[0])
    # Stock Keras reads the weights inside its loop, if it has one, so that their updates wait for a batch. Read before, they
    # would not: where data of unknown length end, a step begins without a batch, and would empty gathered gradients.
    with tf.control_dependencies([] if loop.unroll or loop.single else [x]):
        f = loop.recurrence(loop.cell, *masks)
    xW = f.project(x)

    def step(carry, xW, m):
        y, before = carry
        after, kept = f.step(xW, before)
        derivatives = f.derivatives(xW, kept, before, after)
        if m is None:
            return (y, after), after[:1], derivatives
        y = where(m, after[0], tf.zeros_like(after[0]) if loop.zero_output_for_mask or y is None else y)
        after = tuple(where(m, a, b) for a, b in zip(after, before, strict=True))
        return (y, after), (after[0], y), derivatives

    zero = None if loop.unroll else tf.zeros_like(initial_state[0])  # what is put out before the first step that counts
    carry = () if mask is None else zero, initial_state
    (_, last), (h, *masked), derivatives = scan(step, carry, (xW, mask), x.shape[0], unroll=loop.unroll)
    ys = masked[0] if masked else h
    y = batch_first(ys) if loop.return_sequences else _apart(ys[-1])
    saved = {
        "x": x,
        "before": tf.concat([initial_state[0][None], h[:-1]], 0),
        "derivatives": derivatives,
        "masks": masks,
    }
    return (y, *map(_apart, last)), saved


def run_backward(call, dy):
    loop, mask, saved = call["loop"], call["mask"], call.saved
    f = loop.recurrence(loop.cell, *saved["masks"])
    derivatives = saved["derivatives"]
    dy, *ds = dy
    dys = time_first(dy) if loop.return_sequences else None
    held = ()  # the gradient of an output that later, masked steps repeat
    if mask is not None:
        held = (tf.zeros_like(dys[0]) if loop.return_sequences else dy,)
    elif not loop.return_sequences:
        ds[0] = ds[0] + dy

    def step(carry, dy, m, *derivatives):
        held, d = carry
        of_output = [*held, *(() if dy is None else (dy,))]
        of_output = sum(of_output[1:], of_output[0]) if of_output else None
        past = ()
        if m is not None:
            (of_output, *through), past = split_by_mask(m, (of_output, *d))
            d, held = through, (tf.zeros_like(of_output) if loop.zero_output_for_mask else past[0],)
        if of_output is not None:
            d = (d[0] + of_output, *d[1:])
        deltas, d = f.back(derivatives, tuple(d))
        d = d if m is None else map(tf.add, d, past[1:])
        return (held, tuple(d)), deltas, ()

    sequences, length = (dys, mask, *derivatives), saved["x"].shape[0]
    (_, ds), deltas, _ = scan(step, (held, tuple(ds)), sequences, length, reverse=True, unroll=loop.unroll)
    dx, weights = f.gradients(saved["x"], saved["before"], derivatives, deltas)
    prefix = "" if call.op is loop.cell else "cell."
    back = (lambda: dx()[0]) if loop.single else (lambda: batch_first(dx(), loop.go_backwards))
    return Gradients(
        back,
        *ds,
        *([] if mask is None else [None]),
        **{name if "/" in name else prefix + name: part for name, part in weights.items()},
    ).with_deltas(deltas)


def _of_each_example(state, x):
    """An initial state that all examples share has a batch of 1."""
    shared = state.shape[0] == 1 and x.shape[1] != 1
    return tf.broadcast_to(state, tf.concat([tf.shape(x)[1:2], tf.shape(state)[1:]], 0)) if shared else state


def _apart(y):
    """A step's output, for use outside of the recurrence.

    Where two such outputs are concatenated, TensorFlow's graph optimizer moves their activation behind the concatenation; of an
    unrolled recurrence it does so for the stack of all steps as well, whose parts then differ in shape. `EnsureShape` stops it.
    In forward mode TensorFlow cannot differentiate that.
    """
    return y if _tensorflow.has_tangents([y]) else tf.ensure_shape(y, y.shape)


def time_first(x, reverse=False):
    """(n, T, …) -> (T, n, …)"""
    x = tf.transpose(x, [1, 0, *range(2, len(x.shape))])
    return tf.reverse(x, [0]) if reverse else x


def batch_first(x, reverse=False):
    """(T, n, …) -> (n, T, …)"""
    x = tf.reverse(x, [0]) if reverse else x
    return tf.transpose(x, [1, 0, *range(2, len(x.shape))])


def where(mask, a, b):
    """a where the mask of shape (n, 1) is True, else b."""
    return tf.where(tf.reshape(mask, [-1] + [1] * (len(a.shape) - 1)), a, b)


def split_by_mask(mask, tensors):
    """The tensors where the mask is True, and where it is False; 0 elsewhere."""
    zeros = [tf.zeros_like(x) for x in tensors]
    return (
        [where(mask, x, zero) for x, zero in zip(tensors, zeros, strict=True)],
        [where(mask, zero, x) for x, zero in zip(tensors, zeros, strict=True)],
    )
