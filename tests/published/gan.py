"""A generative adversarial network on small pictures, with a `train_step` that alternates two optimizers."""

import keras
import tensorflow as tf
from keras import layers, ops

import keras_backprop
from tests.equality import compare
from tests.published import batches, fit, numbers

LATENT = 6
PICTURES = numbers(23, 8, 8, 1)


def discriminator(k):
    return k.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2D(6, 3, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.GlobalMaxPooling2D(),
            layers.Dense(1),
        ],
        name="discriminator",
    )


def generator(k):
    return k.Sequential(
        [
            keras.Input((LATENT,)),
            layers.Dense(2 * 2 * 4),
            layers.BatchNormalization(),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Reshape((2, 2, 4)),
            layers.Conv2DTranspose(5, 4, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.Conv2DTranspose(4, 4, strides=2, padding="same"),
            layers.Conv2D(1, 5, padding="same", activation="tanh"),
        ],
        name="generator",
    )


def train(k):
    """With the tapes kept: an own `train_step` is the user's, whatever the class."""

    class GAN(k.Model):
        def __init__(self, discriminator, generator):
            super().__init__()
            self.discriminator, self.generator = discriminator, generator
            self.seed = keras.random.SeedGenerator(3)
            self.d_tracker, self.g_tracker = keras.metrics.Mean(name="d_loss"), keras.metrics.Mean(name="g_loss")
            self.built = True

        def compile(self, d_optimizer, g_optimizer, loss):
            super().compile()
            self.d_optimizer, self.g_optimizer, self.criterion = d_optimizer, g_optimizer, loss

        @property
        def metrics(self):
            return [self.d_tracker, self.g_tracker]

        def train_step(self, real):
            if isinstance(real, tuple):
                real = real[0]
            n = ops.shape(real)[0]
            fake = self.generator(keras.random.normal((n, LATENT), seed=self.seed))
            both = ops.concatenate([fake, real], axis=0)
            labels = ops.concatenate([ops.ones((n, 1)), ops.zeros((n, 1))], axis=0)
            labels += 0.05 * keras.random.uniform(ops.shape(labels), seed=self.seed)
            with tf.GradientTape() as tape:
                d_loss = self.criterion(labels, self.discriminator(both))
            weights = self.discriminator.trainable_weights
            self.d_optimizer.apply(tape.gradient(d_loss, weights), weights)
            z = keras.random.normal((n, LATENT), seed=self.seed)
            with tf.GradientTape() as tape:
                g_loss = self.criterion(ops.zeros((n, 1)), self.discriminator(self.generator(z, training=True)))
            weights = self.generator.trainable_weights
            self.g_optimizer.apply(tape.gradient(g_loss, weights), weights)
            self.d_tracker.update_state(d_loss)
            self.g_tracker.update_state(g_loss)
            return {m.name: m.result() for m in self.metrics}

    gan = GAN(discriminator(k), generator(k))
    gan.compile(
        keras.optimizers.Adam(1e-3, epsilon=1e-3),
        keras.optimizers.Adam(1e-3, epsilon=1e-3),
        keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return fit(gan, batches(PICTURES))


def train_on_batches(k):
    """Two compiled models that share layers, `train_on_batch` in turn; the discriminator is frozen inside the second."""
    d, g = discriminator(k), generator(k)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    d.compile(keras.optimizers.SGD(0.05), loss, metrics=["accuracy"])
    frozen = discriminator(k)
    frozen.set_weights(d.get_weights())
    frozen.trainable = False
    z = keras.Input((LATENT,))
    both = k.Model(z, frozen(g(z)))
    both.compile(keras.optimizers.SGD(0.05, momentum=0.5), loss)
    logs = []
    for step in range(10):
        real = PICTURES[(2 * step) % 12 :][: 7 - step % 3]
        noise = numbers(len(real), LATENT, seed=step)
        fake = g.predict_on_batch(noise)
        logs.append(d.train_on_batch(real, 0 * noise[:, :1]))
        logs.append(d.train_on_batch(fake, 0 * noise[:, :1] + 1))
        frozen.set_weights(d.get_weights())
        logs.append(both.train_on_batch(noise, 0 * noise[:, :1]))
    return {"logs": logs, "d": compare.observe(d), "both": compare.observe(both)}


def train_with_backward(k):
    """A loop of one's own: where stock opens a tape, ours asks for the backward pass as a value."""
    ours = k.Model is not keras.Model
    d, g = discriminator(k), generator(k)
    z = keras.Input((LATENT,))
    both = k.Model(z, d(g(z)))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    d.compile(keras.optimizers.SGD(0.05), loss)
    both.compile(keras.optimizers.SGD(0.05, momentum=0.5), loss)
    d.optimizer.build(d.trainable_weights)
    both.optimizer.build(g.trainable_weights)

    def gradients(model, weights, x, y):
        if ours:
            result = keras_backprop.backward(model, x, y)
            return result.loss, [result.gradient(w) for w in weights]
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        return loss, tape.gradient(loss, weights)

    @tf.function(reduce_retracing=True)
    def step(real, noise):
        n = ops.shape(real)[0]
        x = ops.concatenate([real, g(noise, training=True)], axis=0)
        y = ops.concatenate([ops.zeros((n, 1)), ops.ones((n, 1))], axis=0)
        d_loss, d_gradients = gradients(d, d.trainable_weights, x, y)
        d.optimizer.apply(d_gradients, d.trainable_weights)
        g_loss, g_gradients = gradients(both, g.trainable_weights, noise, ops.zeros((n, 1)))
        both.optimizer.apply(g_gradients, g.trainable_weights)
        return d_loss, g_loss

    logs = [step(PICTURES[i : i + 4 + i % 3], numbers(4 + i % 3, LATENT, seed=i)) for i in range(10)]
    return {"logs": [[float(x) for x in pair] for pair in logs], "both": compare.observe(both)}
