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

import dataclasses
import functools
import inspect
from typing import Any

import keras
import tensorflow as tf

from keras_backprop.registry import backward_rule, composition, forward_rule, rule_for
from keras_backprop.rule import Call, Gradients
from keras_backprop.rules.layers.rnn.scan import scan
from keras_backprop.scopes import rule_of
from keras_backprop.weight_gradients import Contraction, Joined


class Recurrence:
    """One step of a cell and its backward step. A subclass is the mathematics of one cell class.

    Attributes:
        W, U, b: the cell's kernel, recurrent kernel and bias in its compute dtype; b may be None.
        x_mask, h_mask: what dropout multiplies the input and the state with at every step: None, a tensor, or a list of
            one tensor for each gate.
    """

    output_is_state = True
    restores_output = False  # the loop need not write h down: `restored` computes it for all steps at once

    def __init__(self, cell, x_mask=None, h_mask=None):
        self.cell, self.x_mask, self.h_mask = cell, x_mask, h_mask
        self.W, self.U = weight(cell, "kernel"), weight(cell, "recurrent_kernel")
        self.b = weight(cell, "bias") if cell.use_bias else None

    @classmethod
    def masks(cls, cell, training, x, h):
        """The masks that the cell uses; drawn as Keras draws them, where the recurrent layer has not drawn them yet."""
        return (
            cell.get_dropout_mask(x) if training and 0 < cell.dropout < 1 else None,
            cell.get_recurrent_dropout_mask(h) if training and 0 < cell.recurrent_dropout < 1 else None,
        )

    @staticmethod
    def applies(cell):
        """The activations are elementwise and have rules; cells with others are followed."""
        return is_elementwise(cell.activation) and is_elementwise(
            getattr(cell, "recurrent_activation", cell.activation)
        )

    def project(self, x):
        """What the states play no part in, for all steps: `(T, n, …)`."""
        z = times(x, self.W, self.x_mask)
        return z if self.b is None else z + self.b

    def step(self, xW, states):
        """(output, states, what else the backward pass needs). The output is the first state, if `output_is_state`."""
        raise NotImplementedError

    def zero_output(self, xW, states):
        """What comes before the first output where the first step is masked."""
        return tf.zeros_like(states[0])

    def zero_totals(self):
        """Where `back` adds up weight gradients that are no products: it takes and returns them as further values."""
        return ()

    def restored(self, kept, others):
        """h of all steps, `(T, n, …)`, from what `step` kept and the states but the first."""
        raise NotImplementedError

    def derivatives(self, xW, kept, before, after):
        """The local derivatives of all steps, a tuple of tensors `(T, n, …)`.

        Args:
            xW: what `project` returned.
            kept: what `step` kept.
            before, after: tuples of the states before and after each step.
        """
        raise NotImplementedError

    def back(self, derivatives, d):
        """(δ, gradients of the states before): two tuples.

        d: the gradients of the states after the step; before them that of the output, if it is no state.
        """
        raise NotImplementedError

    def gradients(self, x, before, derivatives, deltas, totals):
        """dx as a function without arguments, and a dict of the weight gradients."""
        (delta,) = deltas
        return lambda: times_transposed(delta, self.W, self.x_mask), {
            "kernel": product(x, delta, self.x_mask),
            "recurrent_kernel": product(before[0], delta, self.h_mask),
            "bias": None if self.b is None else Contraction("o->o", delta, batch=1),
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Loop:
    """How a recurrence runs: the options of the recurrent layer. `single` for a cell called alone on one step."""

    recurrence: Any
    cell: Any
    training: Any = False
    go_backwards: bool = False
    return_sequences: bool = False
    zero_output_for_mask: bool = False
    unroll: bool = False
    single: bool = False


def through_time(sequences, initial_state, mask, loop):
    """The signature of the link: `loop.cell` over the time axis. mask: `(T, n, 1)`, in the order of the steps."""


def recurrence(*cells):
    """Register the decorated `Recurrence` for cell classes: called alone, and as the step of a recurrent layer."""

    def register(kind):
        def forward(op, sequences, initial_state, mask, loop):
            return run_forward(loop, sequences, initial_state, mask)

        def backward(call, dy):
            return run_backward(call, dy)

        def alone(record, cell, inputs, states, training=False):
            return run_alone(record, kind, cell, inputs, states, training)

        backward.__name__ = backward.__qualname__ = kind.__name__.lower()
        alone.__name__ = f"{backward.__name__}_cell"
        backward.__doc__ = alone.__doc__ = kind.__doc__
        forward_rule(kind)(forward)
        backward_rule(kind)(backward)
        composition(*cells, applies=kind.applies)(alone)
        alone.recurrence = kind
        return kind

    return register


def recurrence_of(cell):
    """The `Recurrence` class registered for a cell; None for a cell that must be followed."""
    rule = rule_for(cell)
    return None if rule is None else getattr(rule.composition, "recurrence", None)


def run_alone(record, kind, cell, inputs, states, training):
    """A cell on one step: a sequence of length 1."""
    loop = Loop(kind, cell, training, single=True)
    flat = keras.tree.flatten(states)
    h, *new = record.run_as(cell, through_time, kind, cell.path, inputs, flat, None, loop)
    return h, new if keras.tree.is_nested(states) else new[0]


def run_forward(loop, sequences, initial_state, mask):
    x = tf.cast(sequences, loop.cell.compute_dtype)
    x = x[None] if loop.single else time_first(x, loop.go_backwards)
    initial_state = tuple(initial_state)
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
    y = batch_first(ys) if loop.return_sequences else ys[-1]
    return (y, *last), {"x": x, "xW": xW, "initial": initial_state, "states": after, "kept": kept, "masks": masks}


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
    call.saved["deltas"] = deltas  # for whoever wants to see the error at every time step: (T, n, …)
    dx, weights = f.gradients(x, before, derivatives, deltas, totals)
    prefix = "" if call.op is loop.cell else "cell."
    back = (lambda: dx()[0]) if loop.single else (lambda: batch_first(dx(), loop.go_backwards))
    return Gradients(
        back,
        *ds,
        *([] if mask is None else [None]),
        **{name if "/" in name else prefix + name: part for name, part in weights.items()},
    )


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


def weight(cell, name):
    return tf.cast(tf.convert_to_tensor(getattr(cell, name)), cell.compute_dtype)


def is_elementwise(function):
    rule = _rule(function)
    return rule is not None and (rule.derivative is not None or rule.given)


def derivative(function, z, y):
    """The local derivative dy/dz of y = function(z), from the function's own rule."""
    rule, call = _rule(function), _call(function, z, y)
    return rule.backward(call, tf.ones_like(y)).inputs[0] if rule.derivative is None else rule.derivative(call)


def times_derivative(function, z, y, dy):
    """dy·(dy/dz), by the fused kernel of the function where it has one."""
    return _rule(function).backward(_call(function, z, y), dy).inputs[0]


def needs_only_output(*functions):
    """Whether `times_derivative` of the functions asks for y only: z need not be kept then."""
    return all(_rule(function).needs == "y" for function in functions)


def _rule(function):
    return rule_of(function, function, getattr(function, "__name__", ""))


def _call(function, z, y):
    return Call(function, (z,), (y,), {} if isinstance(function, keras.Operation) else _defaults(function))


@functools.cache
def _defaults(function):
    parameters = inspect.signature(function).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty}


# A product whose left factor dropout may thin out differently for each gate: x·W, or [(x∘m₁)·W₁, (x∘m₂)·W₂, …].


def times(x, W, mask=None):
    if mask is None:
        return _matmul(x, W)
    if not isinstance(mask, list):
        return _matmul(x * mask, W)
    return tf.concat([_matmul(x * m, w) for m, w in zip(mask, tf.split(W, len(mask), 1), strict=True)], -1)


def times_transposed(delta, W, mask=None):
    """The adjoint of `times`: dx."""
    if mask is None:
        return _matmul(delta, W, transpose_b=True)
    if not isinstance(mask, list):
        return _matmul(delta, W, transpose_b=True) * mask
    deltas, Ws = tf.split(delta, len(mask), -1), tf.split(W, len(mask), 1)
    return tf.add_n([m * _matmul(d, w, transpose_b=True) for m, d, w in zip(mask, deltas, Ws, strict=True)])


def product(x, delta, mask=None):
    """The gradient of `times` by W, over all time steps: an unsummed product."""
    if mask is None:
        return Contraction("i,o->io", x, delta, batch=1)
    if not isinstance(mask, list):
        return Contraction("i,o->io", x * mask, delta, batch=1)
    deltas = tf.split(delta, len(mask), -1)
    return Joined(*(Contraction("i,o->io", x * m, d, batch=1) for m, d in zip(mask, deltas, strict=True)))


def _matmul(x, W, transpose_b=False):
    """x·W over the last axis of x; all rows of a sequence in one product."""
    if len(x.shape) == 2:
        return tf.matmul(x, W, transpose_b=transpose_b)
    rows = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), W, transpose_b=transpose_b)
    sizes = x.shape[:-1].as_list()
    sizes = [s if s is not None else tf.shape(x)[i] for i, s in enumerate(sizes)] if sizes.count(None) > 1 else sizes
    return tf.reshape(rows, [-1 if s is None else s for s in sizes] + [rows.shape[-1]])
