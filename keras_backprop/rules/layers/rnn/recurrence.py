"""What a recurrent cell must say of one step, so that the loop over time can run it and go back through it.

The mathematics of a step stands in each cell's file; the loop is in `through_time.py`.
"""

import dataclasses
from typing import Any

import keras

from keras_backprop.registry import backward_rule, composition, forward_rule, rule_for
from keras_backprop.rules.layers.rnn.gates import is_elementwise, product, times, times_transposed, weight
from keras_backprop.rules.layers.rnn.through_time import run_backward, run_forward
from keras_backprop.weight_gradients import Contraction


class Recurrence:
    """One step of a cell and its backward step. A subclass is the mathematics of one cell class.

    Attributes:
        W, U, b: the cell's kernel, recurrent kernel and bias in its compute dtype; b may be None.
        x_mask, h_mask: what dropout multiplies the input and the state with at every step: None, a tensor, or a list of
            one tensor for each gate.
    """

    def __init__(self, cell, x_mask=None, h_mask=None):
        self.cell, self.x_mask, self.h_mask = cell, x_mask, h_mask
        self.W, self.U = weight(cell, "kernel"), weight(cell, "recurrent_kernel")
        self.b = weight(cell, "bias") if cell.use_bias and cell.bias is not None else None

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
        """(states, what else `derivatives` needs): two tuples. The output is the first state."""
        raise NotImplementedError

    def derivatives(self, xW, kept, before, after):
        """The local derivatives of a step, a tuple of tensors.

        Args:
            xW: what `project` returned, of this step.
            kept: what `step` kept.
            before, after: tuples of the states before and after the step.
        """
        raise NotImplementedError

    def back(self, derivatives, d):
        """(δ, gradients of the states before): two tuples. d: the gradients of the states after the step."""
        raise NotImplementedError

    def gradients(self, x, h, derivatives, deltas):
        """dx as a function without arguments, and a dict of the weight gradients.

        Args:
            x, h: the input and the state before each step, `(T, n, …)`.
            derivatives: those of all steps, in parts (`scan.stacked`).
            deltas: tuple of δ, `(T, n, …)`.
        """
        (delta,) = deltas
        return lambda: times_transposed(delta, self.W, self.x_mask), {
            "kernel": product(x, delta, self.x_mask),
            "recurrent_kernel": product(h, delta, self.h_mask),
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
    """`loop.cell` over the time axis: (output, *states). mask: `(T, n, 1)`, in the order of the steps; or None."""
    outputs, _ = run_forward(loop, sequences, initial_state, mask)
    return outputs


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
        backward_rule(kind, broadcasts=True)(backward)
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
