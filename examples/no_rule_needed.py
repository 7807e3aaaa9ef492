"""A layer written in `keras.ops` needs no rule: its call runs, and the operations in it have theirs."""

import keras
import numpy as np

import keras_backprop


class Gaussian(keras.layers.Layer):
    """y = exp(−(x − c)² · exp(b)): bumps at c, whose sharpness exp(b) is an expression of a weight alone."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.c = self.add_weight(shape=(self.units,), initializer=keras.initializers.RandomUniform(-3, 3), name="c")
        self.b = self.add_weight(shape=(self.units,), initializer="zeros", name="b")

    def call(self, x):
        return keras.ops.exp(-keras.ops.square(x - self.c) * keras.ops.exp(self.b))


keras.utils.set_random_seed(1)
x = np.linspace(-3, 3, 256)[:, None]
y = np.sin(2 * x)
gaussian = Gaussian(24)
model = keras_backprop.BackpropSequential([keras.Input((1,)), gaussian, keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.Adam(0.02), loss="mse")
print(keras_backprop.check_gradients(model, x, y).raise_if_failed())

before = keras.ops.convert_to_numpy(gaussian.b)
history = model.fit(x, y, batch_size=64, epochs=60, verbose=0)
moved = np.abs(keras.ops.convert_to_numpy(gaussian.b) - before).max()
print(f"sin(2x): mean squared error {history.history['loss'][0]:.4f} -> {history.history['loss'][-1]:.4f}")
print(f"The weight inside exp(b) has learned, too: it moved by up to {moved:.3f}")
