"""Radiance fields: positions as sines and cosines, a deep network, volumes rendered along rays by cumulated products."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, numbers

SAMPLES, L = 6, 2
RAYS, DEPTHS = numbers(13, 4, SAMPLES, 3), np.sort(abs(numbers(13, 4, SAMPLES)), axis=-1)
IMAGES = 1 / (1 + numbers(13, 4, 3) ** 2)


def encode(x):
    positions = [x]
    for i in range(L):
        for function in (ops.sin, ops.cos):
            positions.append(function(2.0**i * x))
    return ops.concatenate(positions, axis=-1)


def render(prediction, depths):
    rgb, density = ops.sigmoid(prediction[..., :-1]), ops.relu(prediction[..., -1])
    delta = depths[..., 1:] - depths[..., :-1]
    delta = ops.concatenate([delta, ops.broadcast_to([1e10], (*ops.shape(depths)[:-1], 1))], axis=-1)
    alpha = 1.0 - ops.exp(-density * delta)
    transmittance = tf.math.cumprod(1.0 - alpha + 1e-10, axis=-1, exclusive=True)
    weights = alpha * transmittance
    return ops.sum(weights[..., None] * rgb, axis=-2), ops.sum(weights * depths, axis=-1)


def network(width=8):
    inputs = keras.Input((None, 3 * (1 + 2 * L)))
    x = inputs
    for i in range(3):
        x = layers.Dense(width, activation="relu")(x)
        if i == 1:
            x = layers.concatenate([x, inputs], axis=-1)
    return keras.Model(inputs, layers.Dense(4)(x))


def train(k):
    """In `call` and `compute_loss`, with PSNR as a metric."""

    class NeRF(k.Model):
        def __init__(self):
            super().__init__()
            self.network, self.psnr = network(), keras.metrics.Mean(name="psnr")

        def call(self, inputs):
            rays, depths = inputs
            shape = ops.shape(rays)
            flat = encode(ops.reshape(rays, (shape[0], -1, 3)))
            return render(ops.reshape(self.network(flat), (shape[0], shape[1], shape[2], 4)), depths)[0]

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            loss = super().compute_loss(x, y, y_pred, sample_weight, training)
            self.psnr.update_state(tf.image.psnr(y[:, None], y_pred[:, None], max_val=1.0))
            return loss

    model = NeRF()
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-3), keras.losses.MeanSquaredError())
    return fit(model, batches((RAYS, DEPTHS), IMAGES))


def train_step(k):
    """As a `train_step` with a tape."""

    class NeRF(k.Model):
        def __init__(self, network):
            super().__init__()
            self.network = network
            self.tracker = keras.metrics.Mean(name="loss")

        def train_step(self, inputs):
            (rays, depths), images = inputs
            with tf.GradientTape() as tape:
                flat = encode(ops.reshape(rays, (-1, 4 * SAMPLES, 3)))
                rgb, _ = render(ops.reshape(self.network(flat), (-1, 4, SAMPLES, 4)), depths)
                loss = self.loss(images, rgb)
            gradients = tape.gradient(loss, self.network.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.network.trainable_variables, strict=True))
            self.tracker.update_state(loss)
            return {"loss": self.tracker.result()}

        @property
        def metrics(self):
            return [self.tracker]

    model = NeRF(network())
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-3), loss=keras.losses.mean_squared_error)
    return fit(model, batches((RAYS, DEPTHS), IMAGES))
