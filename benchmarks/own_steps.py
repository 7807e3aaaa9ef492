"""Models with a `train_step` of their own, as people publish them, small: a DCGAN, a VAE, distillation; for images of 8 × 8."""

import keras
import tensorflow as tf
from keras import layers, ops


def dcgan(Model):
    """A generator and a discriminator that train each other, each with an optimizer."""

    class Gan(Model):
        def __init__(self):
            super().__init__()
            self.discriminator = keras.Sequential(
                [
                    keras.Input((8, 8, 1)),
                    layers.Conv2D(8, 4, strides=2, padding="same"),
                    layers.LeakyReLU(0.2),
                    layers.Flatten(),
                    layers.Dense(1),
                ]
            )
            self.generator = keras.Sequential(
                [
                    keras.Input((8,)),
                    layers.Dense(4 * 4 * 8),
                    layers.Reshape((4, 4, 8)),
                    layers.LeakyReLU(0.2),
                    layers.Conv2DTranspose(1, 4, strides=2, padding="same", activation="sigmoid"),
                ]
            )
            self.seeds = keras.random.SeedGenerator(7)
            self.losses_of = {name: keras.metrics.Mean(name=name) for name in ("generator", "discriminator")}
            self.error = keras.losses.BinaryCrossentropy(from_logits=True)

        def compile(self, **options):
            super().compile(**options)
            self.optimizers = {name: keras.optimizers.Adam(0.0003) for name in ("generator", "discriminator")}

        @property
        def metrics(self):
            return list(self.losses_of.values())

        def _update(self, name, error):
            part = getattr(self, name)
            with tf.GradientTape() as tape:
                loss = error()
            weights = part.trainable_weights
            self.optimizers[name].apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            self.losses_of[name].update_state(loss)

        def train_step(self, data):
            real = ops.reshape(data[0], (-1, 8, 8, 1))
            n = ops.shape(real)[0]
            z = keras.random.normal((n, 8), seed=self.seeds)
            both = ops.concatenate([self.generator(z), real])
            labels = ops.concatenate([ops.ones((n, 1)), ops.zeros((n, 1))])
            self._update("discriminator", lambda: self.error(labels, self.discriminator(both)))
            self._update("generator", lambda: self.error(ops.zeros((n, 1)), self.discriminator(self.generator(z))))
            return {metric.name: metric.result() for metric in self.metrics}

    return compiled(Gan())


def vae(Model):
    """An encoder to a mean and a variance, a draw, a decoder."""

    class Vae(Model):
        def __init__(self):
            super().__init__()
            self.encoder = keras.Sequential([keras.Input((64,)), layers.Dense(32, "relu"), layers.Dense(8)])
            self.decoder = keras.Sequential([keras.Input((4,)), layers.Dense(32, "relu"), layers.Dense(64, "sigmoid")])
            self.seeds = keras.random.SeedGenerator(7)
            self.errors = [keras.metrics.Mean(name=name) for name in ("loss", "reconstruction", "divergence")]

        @property
        def metrics(self):
            return self.errors

        def train_step(self, data):
            x = data[0]
            with tf.GradientTape() as tape:
                mean, log_variance = ops.split(self.encoder(x), 2, axis=-1)
                noise = keras.random.normal(ops.shape(mean), seed=self.seeds)
                y = self.decoder(mean + ops.exp(0.5 * log_variance) * noise)
                reconstruction = ops.mean(ops.sum(ops.square(x - y), -1))
                divergence = -0.5 * ops.mean(ops.sum(1 + log_variance - ops.square(mean) - ops.exp(log_variance), -1))
                loss = reconstruction + divergence
            weights = self.trainable_weights
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            for metric, value in zip(self.errors, (loss, reconstruction, divergence), strict=True):
                metric.update_state(value)
            return {metric.name: metric.result() for metric in self.errors}

    return compiled(Vae())


def distillation(Model):
    """A small network that learns from a large one and from the labels."""

    class Distiller(Model):
        def __init__(self):
            super().__init__()
            self.teacher = keras.Sequential([keras.Input((64,)), layers.Dense(128, "relu"), layers.Dense(10)])
            self.student = keras.Sequential([keras.Input((64,)), layers.Dense(16, "relu"), layers.Dense(10)])
            self.error = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            self.distance = keras.losses.KLDivergence()
            self.mean = keras.metrics.Mean(name="loss")

        @property
        def metrics(self):
            return [self.mean]

        def train_step(self, data):
            x, y = data
            told = ops.softmax(self.teacher(x, training=False) / 3)
            with tf.GradientTape() as tape:
                logits = self.student(x, training=True)
                loss = 0.1 * self.error(y, logits) + 0.9 * 9 * self.distance(told, ops.softmax(logits / 3))
            weights = self.student.trainable_weights
            self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            self.mean.update_state(loss)
            return {"loss": self.mean.result()}

    return compiled(Distiller())


def compiled(model):
    model.compile(optimizer=keras.optimizers.Adam())
    return model
