"""LSTM."""

import tensorflow as tf
from keras import layers

from keras_backprop.rules.layers.rnn.gates import times, times_derivative, times_transposed
from keras_backprop.rules.layers.rnn.recurrence import Recurrence, recurrence


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
    joint = True  # [x h₋]·[W; U] is one product, in the loop

    def __init__(self, cell, x_mask=None, h_mask=None):
        super().__init__(cell, x_mask, h_mask)
        self.joint = self.joint and x_mask is None and h_mask is None
        self.functions = cell.recurrent_activation, cell.activation
        self.WU = tf.concat([self.W, self.U], 0) if self.joint else None

    def project(self, x):
        return x if self.joint else super().project(x)

    def recur(self, h):
        return times(h, self.U, self.h_mask)

    def recur_back(self, delta):
        return times_transposed(delta, self.U, self.h_mask)

    def step(self, xW, states):
        h, c = states
        if self.joint:
            z = tf.matmul(tf.concat([xW, h], -1), self.WU)
            z = z if self.b is None else tf.nn.bias_add(z, self.b)
        else:
            z = xW + self.recur(h)
        σ, φ = self.functions
        zi, zf, zg, zo = tf.split(z, 4, self.axis)
        i, f, g, o = σ(zi), σ(zf), φ(zg), σ(zo)
        c = f * c + i * g
        a = φ(c)
        return (o * a, c), (zi, zf, zg, zo, i, f, g, o, a)

    def derivatives(self, xW, kept, before, after):
        σ, φ = self.functions
        zi, zf, zg, zo, i, f, g, o, a = kept
        of_z = [
            times_derivative(σ, zi, i, g),
            times_derivative(σ, zf, f, before[1]),
            times_derivative(φ, zg, g, i),
            times_derivative(σ, zo, o, a),
        ]
        return tf.concat(of_z, self.axis), times_derivative(φ, after[1], a, o), f

    def back(self, derivatives, d):
        of_z, of_c, f = derivatives
        dh, dc = d
        dc = dc + dh * of_c
        delta = tf.concat([dc, dc, dc, dh], self.axis) * of_z
        return (delta,), (self.recur_back(delta), dc * f)
