"""LSTM."""

import tensorflow as tf
from keras import layers

from keras_backprop.rules.layers.rnn.through_time import (
    Recurrence,
    recurrence,
    times,
    times_derivative,
    times_transposed,
)


@recurrence(layers.LSTMCell)
class LSTM(Recurrence):
    """z = x·W + h₋·U + b,  z = [zᵢ z_f z_g z_o]        i = σ(zᵢ)   f = σ(z_f)   g = φ(z_g)   o = σ(z_o)

        c = f·c₋ + i·g        h = o·φ(c)

    backward, from dh and dc of the step after:
        dc ← dc + dh·o·φ′(c)
        δ = [dc·g·σ′(zᵢ)  dc·c₋·σ′(z_f)  dc·i·φ′(z_g)  dh·φ(c)·σ′(z_o)]
        dc₋ = dc·f        dh₋ = δ·Uᵀ
    over all steps:  dx = δ·Wᵀ    dW = Σ xᵀ·δ    dU = Σ h₋ᵀ·δ    db = Σ δ
    """

    gates = 4
    axis = -1

    def activated(self, z):
        """[i f g o] of one step or of all."""
        σ, φ = self.cell.recurrent_activation, self.cell.activation
        zi, zf, zg, zo = tf.split(z, 4, self.axis)
        return (zi, zf, zg, zo), (σ(zi), σ(zf), φ(zg), σ(zo))

    def recur(self, h):
        return times(h, self.U, self.h_mask)

    def recur_back(self, delta):
        return times_transposed(delta, self.U, self.h_mask)

    def step(self, xW, states):
        h, c = states
        z = xW + self.recur(h)
        _, (i, f, g, o) = self.activated(z)
        c = f * c + i * g
        h = o * self.cell.activation(c)
        return h, (h, c), (z,)

    def derivatives(self, xW, kept, before, after):
        σ, φ = self.cell.recurrent_activation, self.cell.activation
        (zi, zf, zg, zo), (i, f, g, o) = self.activated(kept[0])
        c = f * before[1] + i * g
        a = φ(c)
        of_z = [
            times_derivative(σ, zi, i, g),
            times_derivative(σ, zf, f, before[1]),
            times_derivative(φ, zg, g, i),
            times_derivative(σ, zo, o, a),
        ]
        return tf.concat(of_z, self.axis), times_derivative(φ, c, a, o), f

    def back(self, derivatives, d):
        of_z, of_c, f = derivatives
        dh, dc = d
        dc = dc + dh * of_c
        delta = tf.concat([dc, dc, dc, dh], self.axis) * of_z
        return (delta,), (self.recur_back(delta), dc * f)
