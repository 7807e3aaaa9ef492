"""SimpleRNN."""

from keras import layers

from keras_backprop.rules.layers.rnn.gates import derivative, times, times_transposed
from keras_backprop.rules.layers.rnn.recurrence import Recurrence, recurrence


@recurrence(layers.SimpleRNNCell)
class SimpleRNN(Recurrence):
    """z = x·W + h₋·U + b        h = φ(z)

    backward, from dh of the step after:  δ = dh·φ′(z)        dh₋ = δ·Uᵀ
    over all steps:  dx = δ·Wᵀ    dW = Σ xᵀ·δ    dU = Σ h₋ᵀ·δ    db = Σ δ
    """

    @classmethod
    def masks(cls, cell, training, x, h):
        """This cell draws its masks in any case, and uses them in training."""
        masks = cell.get_dropout_mask(x), cell.get_recurrent_dropout_mask(h)
        return masks if training else (None, None)

    def step(self, xW, states):
        z = xW + times(states[0], self.U, self.h_mask)
        h = self.cell.activation(z)
        return (h,), (z,)

    def derivatives(self, xW, kept, before, after):
        return (derivative(self.cell.activation, kept[0], after[0]),)

    def back(self, derivatives, d):
        delta = d[0] * derivatives[0]
        return (delta,), (times_transposed(delta, self.U, self.h_mask),)
