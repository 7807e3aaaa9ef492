"""Physics-informed networks: derivatives by the user's own tape, in `call`, in `compute_loss` and in a `train_step`."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from tests.published import batches, fit, numbers

T = np.linspace(0, 1, 22, dtype="float32")[:, None]


def network():
    return keras.Sequential([layers.Dense(8, "tanh"), layers.Dense(8, "tanh"), layers.Dense(1)])


def train(k):
    """u″ + u = 0 with boundary values, in `compute_loss`, by two tapes."""

    class Oscillator(k.Model):
        def __init__(self):
            super().__init__()
            self.u = network()
            self.residual = keras.metrics.Mean(name="residual")

        def call(self, t):
            return self.u(t)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    u = self.u(x)
                du = inner.gradient(u, x)
            ddu = outer.gradient(du, x)
            equation = tf.reduce_mean(tf.square(ddu + u))
            self.residual.update_state(equation)
            start = tf.zeros((1, 1))
            return equation + tf.reduce_mean(tf.square(self.u(start) - 1.0)) + super().compute_loss(x, y, y_pred)

    model = Oscillator()
    model.compile(keras.optimizers.Adam(1e-2, epsilon=1e-3), "mse")
    return fit(model, batches(T, np.cos(T)))


def train_in_call(k):
    """The derivative is an output of the model; a persistent tape and a parameter of the equation that is learned."""

    class Equation(k.Model):
        def __init__(self):
            super().__init__()
            self.u = network()
            self.decay = self.add_weight(shape=(), initializer="ones", name="decay")

        def call(self, t):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(t)
                u = self.u(t)
                v = tf.reduce_sum(u * u)
            du, dv = tape.gradient(u, t), tape.gradient(v, t)
            del tape
            return {"u": u, "residual": du + self.decay * u, "energy": dv}

    model = Equation()
    model.compile(
        "sgd", {"u": "mse", "residual": "mse", "energy": "mae"}, loss_weights={"u": 1.0, "residual": 0.5, "energy": 0.1}
    )
    zeros = np.zeros_like(T)
    return fit(model, T, {"u": np.exp(-T), "residual": zeros, "energy": zeros}, batch_size=6)


def train_heat(k):
    """A layer that returns a function's derivatives in two variables; jacobians of a batch; run eagerly."""

    class Derivatives(layers.Layer):
        def __init__(self, u):
            super().__init__()
            self.u = u

        def call(self, tx):
            t, x = tf.unstack(tx, axis=1)
            with tf.GradientTape(persistent=True) as second:
                second.watch(x)
                with tf.GradientTape(persistent=True) as first:
                    first.watch([t, x])
                    u = self.u(tf.stack([t, x], axis=1))
                u_t, u_x = first.gradient(u, t), first.gradient(u, x)
            return u, tf.expand_dims(u_t - 0.1 * second.gradient(u_x, x), 1)

    inputs = keras.Input((2,))
    u = keras.Sequential([keras.Input((2,)), layers.Dense(7, "tanh"), layers.Dense(1)])
    model = k.Model(inputs, Derivatives(u)(inputs))
    model.compile(keras.optimizers.SGD(0.05), ["mse", "mse"], run_eagerly=True)
    return fit(model, batches(numbers(22, 2), (numbers(22, 1, seed=1), np.zeros((22, 1), "float32"))), epochs=3)


def train_by_hand(k):
    """Derivatives of the network written as products: a tf.function method, `tf.Variable`s of one's own as coefficients."""

    class Layer(layers.Layer):
        def __init__(self, units):
            super().__init__()
            self.units = units

        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1], self.units), name="w")
            self.c = self.add_weight(shape=(self.units,), initializer="zeros", name="c")

        @tf.function
        def call(self, t):
            h = tf.tanh(t @ self.w + self.c)
            return h, (1 - h**2) * self.w[0]

    class Model(k.Model):
        def __init__(self):
            super().__init__()
            self.layer, self.out = Layer(6), layers.Dense(1)

        def call(self, t):
            h, dh = self.layer(t)
            u = self.out(h)
            self.add_loss(tf.reduce_mean((dh @ self.out.kernel + u) ** 2))
            return u

    model = Model()
    model.compile("sgd", "mse")
    return fit(model, batches(T, np.exp(-T)))
