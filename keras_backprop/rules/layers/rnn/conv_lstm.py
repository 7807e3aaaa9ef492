"""ConvLSTM: an LSTM whose products are convolutions, in one, two or three dimensions."""

import keras
import tensorflow as tf

from keras_backprop._keras import ConvLSTMCell
from keras_backprop.convolution_gradient import Convolution, Window
from keras_backprop.rules.layers.rnn.lstm import LSTM
from keras_backprop.rules.layers.rnn.recurrence import recurrence
from keras_backprop.weight_gradients import Contraction, Joined, Repeated


@recurrence(ConvLSTMCell)
class ConvLSTM(LSTM):
    """z = W ∗ x + U ∗ h₋ + b,  z = [zᵢ z_f z_g z_o]        i = σ(zᵢ)   f = σ(z_f)   g = φ(z_g)   o = σ(z_o)

        c = f·c₋ + i·g        h = o·φ(c)

    backward, from dh and dc of the step after:
        dc ← dc + dh·o·φ′(c)
        δ = [dc·g·σ′(zᵢ)  dc·c₋·σ′(z_f)  dc·i·φ′(z_g)  dh·φ(c)·σ′(z_o)]
        dc₋ = dc·f        dh₋ = Uᵀ ∗ δ
    over all steps:  dx = Wᵀ ∗ δ    dW[k] = Σₚ x[p + k]ᵀ·δ[p]    dU[k] = Σₚ h₋[p + k]ᵀ·δ[p]    db = Σ δ
    """

    joint = False

    def __init__(self, cell, x_mask=None, h_mask=None):
        super().__init__(cell, x_mask, h_mask)
        self.axis = -1 - cell.rank if cell.data_format == "channels_first" else -1
        self.over_x = Window(cell.rank, cell.strides, cell.padding, cell.dilation_rate, cell.data_format)
        self.over_h = Window(cell.rank, padding="same", data_format=cell.data_format)

    def project(self, x):
        rows = self.convolved(self.over_x, self.rows(x), self.W, self.all_steps(self.x_mask, x))
        z = tf.reshape(rows, [*keras.ops.shape(x)[:2], *keras.ops.shape(rows)[1:]])
        return z if self.b is None else z + tf.reshape(self.b, [-1] + [1] * (-1 - self.axis))

    def recur(self, h):
        return self.convolved(self.over_h, h, self.U, self.h_mask)

    def recur_back(self, delta):
        return self.adjoint(self.over_h, delta, self.U, self.h_mask)

    def convolved(self, window, x, W, masks):
        if masks is None:
            return window.apply(x, W)
        return tf.concat([window.apply(x * m, w) for m, w in zip(masks, tf.split(W, 4, -1), strict=True)], self.axis)

    def adjoint(self, window, delta, W, masks, like=None):
        """dx of `convolved`; like: a tensor of the shape of x."""
        if masks is None:
            return window.input_gradient(self.like(delta) if like is None else like, W, delta)
        deltas = zip(masks, tf.split(delta, 4, self.axis), tf.split(W, 4, -1), strict=True)
        return tf.add_n([m * window.input_gradient(m if like is None else like, w, d) for m, d, w in deltas])

    def like(self, delta):
        """A state of the shape that goes with δ."""
        return tf.split(delta, 4, self.axis)[0]

    def all_steps(self, masks, x):
        """The masks of one step, for the rows of all steps of x."""
        return None if masks is None else [self.rows(tf.broadcast_to(m, tf.shape(x))) for m in masks]

    def rows(self, x):
        """(T, n, …) -> (T·n, …)"""
        return tf.reshape(x, [-1, *keras.ops.shape(x)[2:]])

    def gradients(self, x, h, derivatives, deltas):
        (delta,) = deltas

        def dx():
            rows = self.adjoint(self.over_x, self.rows(delta), self.W, self.all_steps(self.x_mask, x), self.rows(x))
            return tf.reshape(rows, tf.shape(x))

        return dx, {
            "kernel": self.product(self.over_x, x, delta, self.W, self.x_mask),
            "recurrent_kernel": self.product(self.over_h, h, delta, self.U, self.h_mask),
            "bias": None if self.b is None else Contraction("o->o", self.channels_last(delta), batch=1),
        }

    def channels_last(self, delta):
        """(T, n, …) with the channels at the end."""
        axes = range(len(delta.shape))
        return delta if self.axis == -1 else tf.transpose(delta, [*axes[:2], *axes[3:], 2])

    def product(self, window, x, delta, W, masks):
        """dW, over all steps."""
        if masks is None:
            masks, deltas = [None], [delta]
        else:
            deltas = tf.split(delta, 4, self.axis)
        shape = [*W.shape[:-1], W.shape[-1] // len(masks)]
        parts = [
            Convolution(self.rows(x if m is None else x * m), self.rows(d), shape, window)
            for m, d in zip(masks, deltas, strict=True)
        ]
        return Repeated(parts[0] if len(parts) == 1 else Joined(*parts), steps=tf.shape(x)[0])
