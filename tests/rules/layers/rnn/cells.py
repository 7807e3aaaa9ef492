"""Cells as people write them."""

import keras
from keras import layers, ops


class Minimal(layers.Layer):
    """One state, which is also the output; weights of its own."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.recurrent_kernel = self.add_weight(shape=(self.units, self.units), name="recurrent_kernel")
        self.scale = self.add_weight(shape=(self.units,), name="scale")

    def call(self, inputs, states):
        output = ops.tanh(ops.matmul(inputs, self.kernel) + ops.matmul(states[0], self.recurrent_kernel))
        output = output * ops.exp(self.scale)
        return output, [output]


class TwoStates(layers.Layer):
    """An output that is no state; made of layers; a state of another size that nothing but itself depends on."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.state_size, self.output_size = [units, 2], units + 1
        self.mix, self.out = layers.Dense(units, activation="tanh"), layers.Dense(units + 1)
        self.count = layers.Dense(2, use_bias=False)

    def build(self, input_shape):
        self.mix.build((None, input_shape[-1] + self.state_size[0]))
        self.out.build((None, self.state_size[0]))
        self.count.build((None, input_shape[-1]))

    def call(self, inputs, states, training=False):
        a, b = states
        a = self.mix(ops.concatenate([inputs, a], axis=-1))
        return self.out(a), [a, b + self.count(inputs)]


class WithDropout(Minimal):
    """Draws random numbers at every step."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.dropout = layers.Dropout(0.4, seed=4)

    def call(self, inputs, states, training=False):
        output, states = super().call(self.dropout(inputs, training=training), states)
        return output, states


class Doubled(layers.LSTMCell):
    """A built-in cell with another call: its rule must not be the built-in one's."""

    def call(self, inputs, states, training=False):
        h, states = super().call(2 * inputs, states, training=training)
        return h, states


class Plain:
    """A cell that is no layer and has no weights."""

    state_size = 2

    @property
    def compute_dtype(self):
        return keras.config.floatx()

    def __call__(self, inputs, states):
        y = ops.sin(inputs[:, :2] + states[0])
        return y, [y]

    call = __call__


__all__ = ["Doubled", "Minimal", "Plain", "TwoStates", "WithDropout"]
