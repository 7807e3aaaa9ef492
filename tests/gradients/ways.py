"""The ways on which a step can run, for what has to work on all of them."""

import functools

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropModel

X = np.random.default_rng(0).normal(size=(24, 5)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 24)

WAYS = {
    "compiled loop": {},
    "Keras's loop": {"epochs_per_execution": None},
    "eager": {"run_eagerly": True},
    "XLA": {"jit_compile": True},
    "steps per execution": {"epochs_per_execution": None, "steps_per_execution": 2},
    "two devices": {"strategy": True},
    "mixed precision": {"mixed": True},
}


@functools.cache
def two_devices():
    """Once: TensorFlow confuses the all-reduces of two such strategies."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def trained(optimizer, way, epochs=3, gradients=None, callbacks=(), **compile_arguments):
    """A small network, trained on a way. Returns the model and its initial weights."""
    options = dict(WAYS[way])
    strategy = options.pop("strategy", False)
    dtype = "mixed_float16" if options.pop("mixed", False) else None
    with (two_devices() if strategy else tf.distribute.get_strategy()).scope():
        keras.utils.set_random_seed(4)
        inputs = keras.Input((5,))
        h = layers.Dense(6, "tanh", name="hidden", dtype=dtype)(inputs)
        h = layers.Dense(4, "relu", name="second", kernel_regularizer="l2", dtype=dtype)(h)
        model = BackpropModel(inputs, layers.Dense(3, "softmax", name="out")(h))
        model.compile(
            optimizer(), "sparse_categorical_crossentropy", gradients=gradients, **options, **compile_arguments
        )
    before = model.get_weights()
    model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model, before
