"""A variational autoencoder: a `Sampling` layer with a seed generator, the divergence by `add_loss` and in a `train_step`."""

import keras
import tensorflow as tf
from keras import layers, ops

import keras_backprop
from tests.published import batches, fit, numbers

X = 1 / (1 + numbers(23, 8, 8, 1) ** 2)
LATENT = 2


class Sampling(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.seed = keras.random.SeedGenerator(17)

    def call(self, inputs):
        mean, log_var = inputs
        noise = keras.random.normal((ops.shape(mean)[0], ops.shape(mean)[1]), seed=self.seed)
        return mean + ops.exp(0.5 * log_var) * noise


class Divergence(layers.Layer):
    """Passes its inputs on and adds the divergence to the loss."""

    def __init__(self, rate, **options):
        super().__init__(**options)
        self.rate = rate

    def call(self, inputs):
        mean, log_var = inputs
        self.add_loss(self.rate * ops.mean(ops.sum(-0.5 * (1 + log_var - mean**2 - ops.exp(log_var)), axis=1)))
        return mean, log_var


def encoder(k):
    x = keras.Input((8, 8, 1))
    h = layers.Conv2D(4, 3, activation="relu", strides=2, padding="same")(x)
    h = layers.Dense(6, activation="relu")(layers.Flatten()(h))
    mean, log_var = layers.Dense(LATENT, name="mean")(h), layers.Dense(LATENT, name="log_var")(h)
    return k.Model(x, [mean, log_var, Sampling()([mean, log_var])], name="encoder")


def decoder(k):
    z = keras.Input((LATENT,))
    h = layers.Reshape((4, 4, 3))(layers.Dense(48, activation="relu")(z))
    h = layers.Conv2DTranspose(4, 3, activation="relu", strides=2, padding="same")(h)
    return k.Model(z, layers.Conv2DTranspose(1, 3, activation="sigmoid", padding="same")(h), name="decoder")


def train(k):
    """The losses as `add_loss` of layers and of the model; nothing is compiled."""

    class VAE(k.Model):
        def __init__(self):
            super().__init__()
            self.hidden, self.mean, self.log_var = layers.Dense(9, "relu"), layers.Dense(LATENT), layers.Dense(LATENT)
            self.divergence, self.sampling = Divergence(0.1), Sampling()
            self.decoder = decoder(k)

        def call(self, x, training=None):
            h = self.hidden(ops.reshape(x, (-1, 64)))
            mean, log_var = self.divergence([self.mean(h), self.log_var(h)])
            y = self.decoder(self.sampling([mean, log_var]))
            self.add_loss(ops.mean(ops.sum(keras.losses.binary_crossentropy(x, y), axis=(1, 2))))
            return y

    vae = VAE()
    vae.compile(keras.optimizers.Adam(2e-3, epsilon=1e-3))
    return fit(vae, batches(X), evaluate=(X,))


def train_step(k):
    """A `train_step`: stock with a tape over all; ours with the tape as well, for it is the user's."""

    class VAE(k.Model):
        def __init__(self, encoder, decoder):
            super().__init__()
            self.encoder, self.decoder = encoder, decoder
            self.total, self.rebuilt = keras.metrics.Mean(name="loss"), keras.metrics.Mean(name="rebuilt")

        @property
        def metrics(self):
            return [self.total, self.rebuilt]

        def train_step(self, data):
            with tf.GradientTape() as tape:
                mean, log_var, z = self.encoder(data)
                rebuilt = ops.mean(ops.sum(keras.losses.binary_crossentropy(data, self.decoder(z)), axis=(1, 2)))
                divergence = -0.5 * (1 + log_var - ops.square(mean) - ops.exp(log_var))
                total = rebuilt + ops.mean(ops.sum(divergence, axis=1))
            gradients = tape.gradient(total, self.trainable_weights)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
            self.total.update_state(total)
            self.rebuilt.update_state(rebuilt)
            return {"loss": self.total.result(), "rebuilt": self.rebuilt.result()}

    vae = VAE(encoder(k), decoder(k))
    vae.compile(keras.optimizers.Adam(2e-3, epsilon=1e-3))
    return fit(vae, batches(X))


def train_with_backward(k):
    """The same with `backward` in the place of the tape, over a `compute_loss`."""
    ours = k.Model is not keras.Model

    class VAE(k.Model):
        def __init__(self, encoder, decoder):
            super().__init__()
            self.encoder, self.decoder = encoder, decoder

        def call(self, x):
            mean, log_var, z = self.encoder(x)
            return {"mean": mean, "log_var": log_var, "picture": self.decoder(z)}

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            mean, log_var = y_pred["mean"], y_pred["log_var"]
            rebuilt = ops.mean(ops.sum(keras.losses.binary_crossentropy(x, y_pred["picture"]), axis=(1, 2)))
            return rebuilt + ops.mean(ops.sum(-0.5 * (1 + log_var - mean**2 - ops.exp(log_var)), axis=1))

        def train_step(self, data):
            if ours:
                result = keras_backprop.backward(self, data)
                loss, gradients = result.loss, result.gradients
            else:
                with tf.GradientTape() as tape:
                    loss = self.compute_loss(x=data, y_pred=self(data, training=True))
                gradients = tape.gradient(loss, self.trainable_weights)
            self.optimizer.apply(gradients, self.trainable_weights)
            return {"elbo": loss}

    vae = VAE(encoder(k), decoder(k))
    vae.compile(keras.optimizers.SGD(2e-3))
    return fit(vae, batches(X))
