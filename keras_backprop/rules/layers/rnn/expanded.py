"""Cells without mathematics of their own here: people's cells, and built-in ones with an activation that is not elementwise."""

import keras
import tensorflow as tf

from keras_backprop.registry import backward_rule, forward_rule
from keras_backprop.rules.layers.rnn.through_time import Recurrence, run_backward, run_forward
from keras_backprop.weight_gradients import Contraction, Total


class Expanded(Recurrence):
    """y, s = cell(x, s₋)        (dx, ds₋) and the weight gradients: the rules of what the cell is made of, step by step

    What those rules need is kept at every step. A weight gradient that is a product stays one, over all steps; others are
    added up on the way back.
    """

    output_is_state = False

    def __init__(self, record, cell, nested, training):
        self.cell = cell
        self.nested = nested if keras.tree.is_nested(nested) else [nested]  # cells are given a list of states
        layer = isinstance(cell, keras.layers.Layer)
        self.kwargs = {"training": training} if layer and cell._call_has_training_arg else {}
        self.weights = cell.trainable_variables if layer else []
        self.recorded = record.step(self._run, self.weights)
        self.products, self.totals = {}, set()

    def _run(self, record, x, *states):
        states = keras.tree.pack_sequence_as(self.nested, states)
        output, states = record.run(self.cell, x, states, **self.kwargs)
        return output, states

    def __call__(self, cell):
        return self

    def masks(self, cell, training, x, h):
        return ()

    def project(self, x):
        return x

    def zero_output(self, x, states):
        """Keras runs the first step once before the loop; what it draws then counts."""
        return tf.zeros_like(self.step(x[0], states)[0])

    def zero_totals(self):
        return tuple(tf.zeros(W.shape, self.cell.compute_dtype) for W in self.weights)

    def step(self, x, states):
        (output, states), kept = self.recorded.forward(x, *states)
        return output, tuple(keras.tree.flatten(states)), kept

    def derivatives(self, x, kept, before, after):
        return kept

    def back(self, kept, d, *totals):
        (dx, *ds), parts = self.recorded.backward(kept, d)
        dx = tf.zeros_like(self.recorded.input(kept, 0)) if dx is None else dx
        ds = [tf.zeros_like(g) if new is None else new for g, new in zip(d[1:], ds, strict=True)]
        deltas, totals = [dx], list(totals)
        for position, W in enumerate(self.weights):
            of_W = parts.get(id(W), ())
            if len(of_W) == 1 and type(of_W[0]) is Contraction and not of_W[0].explicit and not of_W[0].batch:
                self.products[position] = (of_W[0], len(deltas))
                deltas += of_W[0].factors
            elif of_W:
                self.totals.add(position)
                for part in of_W:
                    totals[position] += tf.cast(tf.convert_to_tensor(part.total()), totals[position].dtype)
        return tuple(deltas), tuple(ds), *totals

    def gradients(self, x, before, kept, deltas, totals):
        parts = {}
        for position, (part, first) in self.products.items():
            factors = deltas[first : first + len(part.factors)]
            equation = f"{','.join(part.letters)}->{part.result}"
            parts[self.weights[position].path] = Contraction(equation, *factors, batch=1)
        for position in self.totals:
            reason = (
                f"the weight is used in operations inside '{self.cell.path}', which give the sum over the batch only"
            )
            parts[self.weights[position].path] = Total(totals[position], reason)
        return lambda: deltas[0], parts


@forward_rule(Expanded)
def expanded_forward(op, sequences, initial_state, mask, loop):
    return run_forward(loop, sequences, initial_state, mask)


@backward_rule(Expanded)
def expanded(call, dy):
    return run_backward(call, dy)


expanded.__doc__ = Expanded.__doc__
