"""GRU, with the reset gate after or before the recurrent product."""

import tensorflow as tf
from keras import layers

from keras_backprop.rules.layers.rnn.gates import product, times, times_derivative, times_transposed
from keras_backprop.rules.layers.rnn.recurrence import Recurrence, recurrence
from keras_backprop.rules.layers.rnn.scan import stacked
from keras_backprop.weight_gradients import Contraction, Joined


@recurrence(layers.GRUCell)
class GRU(Recurrence):
    """xz, xr, xg = x·W + b        r, u the reset and update gate, g the candidate

    reset_after:      hz, hr, hg = h₋·U + b′        u = σ(xz + hz)   r = σ(xr + hr)   g = φ(xg + r·hg)
    not reset_after:  hz, hr = h₋·U₁₂, hg = (r·h₋)·U₃                                 g = φ(xg + hg)
    h = u·h₋ + (1 − u)·g

    backward, from dh of the step after:
        δz = dh·(h₋ − g)·σ′        δg = dh·(1 − u)·φ′
        reset_after:      δr = δg·hg·σ′                   dh₋ = dh·u + [δz δr δg·r]·Uᵀ
        not reset_after:  q = δg·U₃ᵀ   δr = q·h₋·σ′       dh₋ = dh·u + [δz δr]·U₁₂ᵀ + q·r
    over all steps, δ = [δz δr δg]:  dx = δ·Wᵀ    dW = Σ xᵀ·δ    db = Σ δ
        reset_after:      dU = Σ h₋ᵀ·[δz δr δg·r]    db′ = Σ [δz δr δg·r]
        not reset_after:  dU₁₂ = Σ h₋ᵀ·[δz δr]       dU₃ = Σ (r·h₋)ᵀ·δg
    """

    gates = 3

    def __init__(self, cell, x_mask=None, h_mask=None):
        super().__init__(cell, x_mask, h_mask)
        self.functions = cell.recurrent_activation, cell.activation
        self.recurrent_bias = None
        if cell.reset_after and self.b is not None:
            self.b, self.recurrent_bias = tf.unstack(self.b)
        width = 2 * cell.units
        self.U12, self.U3 = (None, None) if cell.reset_after else (self.U[:, :width], self.U[:, width:])
        masks = self.h_mask
        self.mask12, self.mask3 = (masks[:2], masks[2]) if isinstance(masks, list) else (masks, masks)

    def project(self, x):  # in the loop, where XLA is faster at it
        return x if self.x_mask is None else super().project(x)

    def step(self, xW, states):
        h, (σ, φ) = states[0], self.functions
        xW = super().project(xW) if self.x_mask is None else xW
        xz, xr, xg = tf.split(xW, 3, -1)
        if self.cell.reset_after:
            hU = times(h, self.U, self.h_mask)
            hz, hr, hg = tf.split(hU if self.recurrent_bias is None else hU + self.recurrent_bias, 3, -1)
        else:
            hz, hr = tf.split(times(h, self.U12, self.mask12), 2, -1)
        zu, zr = xz + hz, xr + hr
        u, r = σ(zu), σ(zr)
        if self.cell.reset_after:
            zg = xg + r * hg
        else:
            hg = times(r * h, self.U3, self.mask3)
            zg = xg + hg
        g = φ(zg)
        h = u * h + (1 - u) * g
        return (h,), (zu, zr, zg, u, r, g, hg)

    def derivatives(self, xW, kept, before, after):
        (σ, φ), h = self.functions, before[0]
        zu, zr, zg, u, r, g, hg = kept
        of_u, of_g = times_derivative(σ, zu, u, h - g), times_derivative(φ, zg, g, 1 - u)
        if self.cell.reset_after:
            return tf.concat([of_u, times_derivative(σ, zr, r, of_g * hg), of_g * r], -1), u, of_g
        return of_u, of_g, times_derivative(σ, zr, r, h), u, r

    def back(self, derivatives, d):
        dh = d[0]
        if self.cell.reset_after:
            of_h, u, _ = derivatives
            delta = tf.concat([dh, dh, dh], -1) * of_h
            return (delta, dh), (dh * u + times_transposed(delta, self.U, self.h_mask),)
        of_u, of_g, of_r, u, r = derivatives
        delta_g = dh * of_g
        q = times_transposed(delta_g, self.U3, self.mask3)
        delta = tf.concat([dh * of_u, q * of_r], -1)
        return (delta, delta_g), (dh * u + times_transposed(delta, self.U12, self.mask12) + q * r,)

    def gradients(self, x, h, derivatives, deltas):
        if self.cell.reset_after:
            delta_h, dh = deltas
            delta = tf.concat([delta_h[..., : 2 * self.cell.units], dh * stacked(derivatives[2])], -1)
            of_U = product(h, delta_h, self.h_mask)
        else:
            delta12, delta3 = deltas
            delta = tf.concat([delta12, delta3], -1)
            of_U = Joined(product(h, delta12, self.mask12), product(stacked(derivatives[4]) * h, delta3, self.mask3))
        of_b = Contraction("o->o", delta, batch=1)
        if self.recurrent_bias is not None:
            of_b = Joined(of_b, Contraction("o->o", delta_h, batch=1), axis=0, stacked=True)
        return lambda: times_transposed(delta, self.W, self.x_mask), {
            "kernel": product(x, delta, self.x_mask),
            "recurrent_kernel": of_U,
            "bias": None if self.b is None else of_b,
        }
