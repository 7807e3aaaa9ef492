"""Backpropagation through time: what all recurrent layers share. The mathematics of one step stands in each cell's file.

Forward, for t = 1 … T (all sequences are time first inside):

    X·W + b      for all steps in one product, before the loop; LSTM and GRU take their product in it
    sₜ = f(xₜ·W + b, sₜ₋₁)        the states; the first of them, hₜ, is the output
    where masked: sₜ = sₜ₋₁, and the output is the one before (or 0)

Backward, for t = T … 1:

    the local derivatives of all steps at once, before the loop: they do not depend on the error
    (δₜ, dsₜ₋₁) = backward step(dsₜ + dyₜ)        only this has to wait for the step after it
    dX, dW, dU, db from the δₜ of all steps at once, after the loop: one product each
"""

import tensorflow as tf

from keras_backprop.rule import Gradients
from keras_backprop.rules.layers.rnn.scan import scan


def run_forward(loop, sequences, initial_state, mask):
    x = tf.cast(sequences, loop.cell.compute_dtype)
    x = x[None] if loop.single else time_first(x, loop.go_backwards)
    initial_state = tuple(_of_each_example(state, x) for state in initial_state)
    masks = loop.recurrence.masks(loop.cell, loop.training, x[0], initial_state[0])
    f = loop.recurrence(loop.cell, *masks)
    xW = f.project(x)
    restores = f.restores_output and mask is None

    def step(carry, xW, m):
        y, before = carry
        output, after, kept = f.step(xW, before)
        if m is None:
            written = after[1:] if restores else after
            return (y, after), (*kept, *written, *(() if f.output_is_state else (output,)))
        y = where(m, output, tf.zeros_like(output) if loop.zero_output_for_mask or y is None else y)
        after = tuple(where(m, a, b) for a, b in zip(after, before, strict=True))
        return (y, after), (*kept, *after, y)

    zero = None if loop.unroll else f.zero_output(xW, initial_state)
    (_, last), out = scan(step, (() if mask is None else zero, initial_state), (xW, mask), unroll=loop.unroll)
    states = len(initial_state) - restores
    end = len(out) if mask is None and f.output_is_state else -1
    after, kept = out[:end][-states:], out[:end][:-states]
    if restores:
        after = f.restored(kept, after), *after
    ys = after[0] if end != -1 else out[-1]
    y = batch_first(ys) if loop.return_sequences else _apart(ys[-1])
    return (y, *map(_apart, last)), {
        "x": x,
        "xW": xW,
        "initial": initial_state,
        "states": after,
        "kept": kept,
        "masks": masks,
    }


def run_backward(call, dy):
    loop, mask, saved = call["loop"], call["mask"], call.saved
    f = loop.recurrence(loop.cell, *saved["masks"])
    x, after, initial = saved["x"], saved["states"], saved["initial"]
    before = tuple(tf.concat([first[None], s[:-1]], 0) for first, s in zip(initial, after, strict=True))
    derivatives = f.derivatives(saved["xW"], saved["kept"], before, after)
    dy, *ds = dy
    dys = time_first(dy) if loop.return_sequences else None
    held = ()  # the gradient of an output that later, masked steps repeat
    if mask is not None or not (loop.return_sequences or f.output_is_state):
        held = (tf.zeros_like(dys[0]) if loop.return_sequences else dy,)
    elif not loop.return_sequences:
        ds[0] = ds[0] + dy

    def step(carry, dy, m, *derivatives):
        held, d, totals = carry
        of_output = [*held, *(() if dy is None else (dy,))]
        of_output = sum(of_output[1:], of_output[0]) if of_output else None
        past = ()
        if m is not None:
            (of_output, *through), past = split_by_mask(m, (of_output, *d))
            d, held = through, (tf.zeros_like(of_output) if loop.zero_output_for_mask else past[0],)
        elif held:
            held = (tf.zeros_like(of_output),)
        if not f.output_is_state:
            d = (of_output, *d)
        elif of_output is not None:
            d = (d[0] + of_output, *d[1:])
        deltas, d, *totals = f.back(derivatives, tuple(d), *totals)
        d = d if m is None else map(tf.add, d, past[1:])
        return (held, tuple(d), tuple(totals)), deltas

    carry = held, tuple(ds), f.zero_totals()
    carry, deltas = scan(step, carry, (dys, mask, *derivatives), reverse=True, unroll=loop.unroll)
    _, ds, totals = carry
    dx, weights = f.gradients(x, before, derivatives, deltas, totals)
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
    return tf.broadcast_to(state, [tf.shape(x)[1], *state.shape[1:]]) if shared else state


def _apart(y):
    """A step's output, for use outside of the recurrence.

    Where two such outputs are concatenated, TensorFlow's graph optimizer moves their activation behind the concatenation; of an
    unrolled recurrence it does so for the stack of all steps as well, whose parts then differ in shape. `EnsureShape` stops it.
    """
    return tf.ensure_shape(y, y.shape)


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
