"""A layer of one's own with a rule of its own, checked before it is trusted."""

import keras
import numpy as np

import keras_backprop
from keras_backprop import Contraction, Gradients


class Swish(keras.layers.Layer):
    """y = x·s with s = σ(β·x), and β learned for every feature."""

    def build(self, input_shape):
        self.beta = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="beta")

    def call(self, x):
        return x * keras.ops.sigmoid(self.beta * x)

    def backward(self, call, dy):
        """dx = dy·(s + β·x·s(1 − s))        dβ = Σ dy·x²·s(1 − s)"""
        x, beta = call.input, keras.ops.convert_to_tensor(self.beta)
        s = keras.ops.sigmoid(beta * x)
        slope = s * (1 - s)
        return Gradients(dy * (s + beta * x * slope), beta=Contraction("i->i", dy * x**2 * slope))


# Against the tape and against central differences. A wrong rule would be named here, and raise.
print(keras_backprop.check_layer(Swish(), keras.random.normal((8, 3), seed=1)).raise_if_failed())

keras.utils.set_random_seed(1)
x = np.linspace(-3, 3, 256)[:, None]
y = np.sin(2 * x)
layers = [keras.Input((1,)), keras.layers.Dense(32), Swish(), keras.layers.Dense(32), Swish(), keras.layers.Dense(1)]
model = keras_backprop.BackpropSequential(layers)
model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
history = model.fit(x, y, batch_size=64, epochs=60, verbose=0)
print(f"sin(2x): mean squared error {history.history['loss'][0]:.4f} -> {history.history['loss'][-1]:.4f}")
