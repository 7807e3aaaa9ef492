"""The worked example in plain Keras code: one input, one hidden unit, one output unit, trained until the error is 0.001."""

import keras
import numpy as np

import keras_backprop
from keras_backprop.callbacks import StopAtError
from keras_backprop.layers import BackpropDense
from keras_backprop.losses import HalfMeanSquaredError

keras.config.set_floatx("float64")  # as exact as NumPy
keras.config.set_dtype_policy("float64")

x, T = np.array([[0.1]]), np.array([[0.25]])
model = keras_backprop.BackpropSequential(
    [
        keras.Input((1,)),
        BackpropDense(1, activation="sigmoid", name="hidden"),  # z₁ = x·w₁ + b₁, a₁ = σ(z₁)
        BackpropDense(1, activation="sigmoid", name="output"),  # z₂ = a₁·w₂ + b₂, a₂ = σ(z₂)
    ]
)
model.set_weights([np.array(value) for value in ([[0.15]], [0.40], [[0.45]], [0.65])])
model.compile(optimizer=keras.optimizers.SGD(0.4), loss=HalfMeanSquaredError())

print(keras_backprop.explain(model, x, T))  # the chain of the first iteration, factor by factor

stop = StopAtError(epsilon=0.001)
history = model.fit(x, T, epochs=1000, callbacks=[stop], verbose=0)
print(f"\nStopped after {stop.stopped_epoch} of 1000 epochs with the error {stop.error:.8f}")
