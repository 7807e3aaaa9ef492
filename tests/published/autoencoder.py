"""Autoencoders: convolutional with noise, of series, with tied weights and a sparse code."""

import keras
import numpy as np
from keras import layers, ops

from tests.equality import compare
from tests.published import fit, numbers

CLEAN = 1 / (1 + numbers(23, 8, 8, 1) ** 2)


class Noisy(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        clean = CLEAN[6 * index : 6 * index + 6]
        return np.clip(clean + 0.4 * numbers(*clean.shape, seed=index), 0, 1), clean


def train(k):
    x = keras.Input((8, 8, 1))
    h = layers.MaxPooling2D(2, padding="same")(layers.Conv2D(4, 3, activation="relu", padding="same")(x))
    h = layers.Conv2DTranspose(4, 3, strides=2, activation="relu", padding="same")(h)
    model = k.Model(x, layers.Conv2D(1, 3, activation="sigmoid", padding="same")(h))
    model.compile("adam", "binary_crossentropy")
    first = fit(model, CLEAN, CLEAN, batch_size=6, epochs=2)
    return {"first": first, "second": fit(model, Noisy(), epochs=3)}


def train_series(k):
    """Anomalies in series: strided convolutions there and back."""
    x = numbers(23, 16, 1)
    model = k.Sequential(
        [
            keras.Input((16, 1)),
            layers.Conv1D(5, 7, padding="same", strides=2, activation="relu"),
            layers.Dropout(0.2, seed=1),
            layers.Conv1D(4, 7, padding="same", strides=2, activation="relu"),
            layers.Conv1DTranspose(4, 7, padding="same", strides=2, activation="relu"),
            layers.Dropout(0.2, seed=2),
            layers.Conv1DTranspose(5, 7, padding="same", strides=2, activation="relu"),
            layers.Conv1DTranspose(1, 7, padding="same"),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-3), "mse")
    callbacks = [keras.callbacks.EarlyStopping("val_loss", patience=5, mode="min")]
    return fit(model, x, x, batch_size=6, validation_split=0.1, callbacks=callbacks)


def train_tied(k):
    """The decoder is the encoder's kernel transposed; a sparse code by an activity regulariser; ema of the weights."""

    class Transposed(layers.Layer):
        def __init__(self, dense, **options):
            super().__init__(**options)
            self.dense = dense

        def build(self, shape):
            self.biases = self.add_weight(name="bias", shape=(self.dense.kernel.shape[0],), initializer="zeros")

        def call(self, x):
            return keras.activations.sigmoid(ops.matmul(x, ops.transpose(self.dense.kernel)) + self.biases)

    encoder = layers.Dense(6, "relu", activity_regularizer=keras.regularizers.L1(1e-3), kernel_constraint="unit_norm")
    inputs = keras.Input((64,))
    model = k.Model(inputs, Transposed(encoder)(encoder(inputs)))
    model.compile(keras.optimizers.SGD(0.5, use_ema=True, ema_overwrite_frequency=4), "binary_crossentropy")
    x = CLEAN.reshape(23, 64)
    return fit(model, x, x, batch_size=6)


def train_recurrent(k):
    """A sequence is repeated from its code; one model inside another; trained by `train_on_batch`."""
    encoder = keras.Sequential([keras.Input((None, 2)), layers.Masking(), layers.LSTM(4)], name="encoder")
    decoder = keras.Sequential(
        [
            keras.Input((4,)),
            layers.RepeatVector(5),
            layers.LSTM(4, return_sequences=True),
            layers.TimeDistributed(layers.Dense(2)),
        ],
        name="decoder",
    )
    x = keras.Input((5, 2))
    model = k.Model(x, decoder(encoder(x)))
    model.compile("rmsprop", "mae", jit_compile=False)
    data = numbers(23, 5, 2)
    data[::3, 3:] = 0
    logs = [model.train_on_batch(data[i : i + 6], data[i : i + 6]) for i in (0, 6, 12, 18, 0, 6)]
    return compare.observe(model, logs=logs)
