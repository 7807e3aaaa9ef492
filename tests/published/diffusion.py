"""Denoising diffusion: noise of random strength is added, a small U-Net predicts it, an average of its weights follows."""

import math

import keras
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, numbers

X = numbers(22, 8, 8, 2)


@keras.saving.register_keras_serializable()
def sinusoidal(x):
    frequencies = ops.exp(ops.linspace(ops.log(1.0), ops.log(1000.0), 3))
    angles = ops.cast(2.0 * math.pi * frequencies, "float32")
    return ops.concatenate([ops.sin(angles * x), ops.cos(angles * x)], axis=3)


def residual(width):
    def apply(x):
        skip = x if x.shape[3] == width else layers.Conv2D(width, 1)(x)
        x = layers.BatchNormalization(center=False, scale=False)(x)
        x = layers.Conv2D(width, 3, padding="same", activation="swish")(x)
        return layers.Add()([layers.Conv2D(width, 3, padding="same")(x), skip])

    return apply


def unet(name):
    noisy, variance = keras.Input((8, 8, 2)), keras.Input((1, 1, 1))
    e = layers.UpSampling2D(8, interpolation="nearest")(layers.Lambda(sinusoidal, output_shape=(1, 1, 6))(variance))
    x = layers.Concatenate()([layers.Conv2D(4, 1)(noisy), e])
    first = residual(4)(x)
    x = residual(6)(layers.AveragePooling2D(2)(first))
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    x = residual(4)(layers.Concatenate()([x, first]))
    return keras.Model([noisy, variance], layers.Conv2D(2, 1, kernel_initializer="zeros")(x), name=name)


def schedule(times):
    start, end = ops.cast(ops.arccos(0.95), "float32"), ops.cast(ops.arccos(0.02), "float32")
    angles = start + times * (end - start)
    return ops.sin(angles), ops.cos(angles)


def train(k):
    """A `train_step` around a compiled loss, tapes kept."""

    class Diffusion(k.Model):
        def __init__(self):
            super().__init__()
            self.normalizer, self.network = layers.Normalization(), unet("network")
            self.average = keras.models.clone_model(self.network)
            self.seed = keras.random.SeedGenerator(2)

        def compile(self, **options):
            super().compile(**options)
            self.noise_tracker, self.image_tracker = (
                keras.metrics.Mean(name="n_loss"),
                keras.metrics.Mean(name="i_loss"),
            )

        @property
        def metrics(self):
            return [self.noise_tracker, self.image_tracker]

        def train_step(self, images):
            images = self.normalizer(images, training=True)
            noises = keras.random.normal(ops.shape(images), seed=self.seed)
            n = ops.shape(images)[0]
            noise_rate, signal_rate = schedule(keras.random.uniform((n, 1, 1, 1), 0.0, 1.0, seed=self.seed))
            noisy = signal_rate * images + noise_rate * noises
            with tf.GradientTape() as tape:
                predicted = self.network([noisy, noise_rate**2], training=True)
                n_loss = self.loss(noises, predicted)
                i_loss = self.loss(images, (noisy - noise_rate * predicted) / signal_rate)
            gradients = tape.gradient(n_loss, self.network.trainable_weights)
            self.optimizer.apply_gradients(zip(gradients, self.network.trainable_weights, strict=True))
            self.noise_tracker.update_state(n_loss)
            self.image_tracker.update_state(i_loss)
            for weight, average in zip(self.network.weights, self.average.weights, strict=True):
                average.assign(0.9 * average + 0.1 * weight)
            return {m.name: m.result() for m in self.metrics}

    model = Diffusion()
    model.normalizer.adapt(X)
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-3, weight_decay=1e-3, epsilon=1e-3), loss=keras.losses.mean_absolute_error
    )
    return fit(model, batches(X))


def train_by_call(k):
    """The noise is drawn in `call`; `super().train_step` does the step, the average is moved after it."""

    class Diffusion(k.Model):
        def __init__(self):
            super().__init__()
            self.network, self.average = unet("network"), unet("average")
            self.average.trainable = False
            self.average.set_weights(self.network.get_weights())
            self.seed = keras.random.SeedGenerator(2)

        def call(self, images, training=None):
            noises = keras.random.normal(ops.shape(images), dtype=images.dtype, seed=self.seed)
            rates = schedule(keras.random.uniform((ops.shape(images)[0], 1, 1, 1), seed=self.seed))
            network = self.network if training else self.average
            return noises, network([rates[1] * images + rates[0] * noises, rates[0] ** 2], training=training)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            noises, predicted = y_pred
            return ops.mean(ops.abs(noises - predicted))

        def train_step(self, data):
            logs = super().train_step(data)
            for weight, average in zip(self.network.weights, self.average.weights, strict=True):
                average.assign(0.9 * average + 0.1 * weight)
            return logs

    model = Diffusion()
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-3))
    return fit(model, batches(X), evaluate=(X,))
