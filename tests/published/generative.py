"""Other generative models: vector quantisation, normalising flows, autoregressive pictures, energies."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, numbers

X = numbers(23, 8, 8, 1)


def train(k):
    """Vector quantisation: the nearest code, straight-through gradients, losses added by the layer."""

    class Quantizer(layers.Layer):
        def __init__(self, count, dim, beta=0.25):
            super().__init__()
            self.count, self.dim, self.beta = count, dim, beta
            init = keras.initializers.RandomUniform(seed=2)
            self.codes = self.add_weight(initializer=init, shape=(dim, count), trainable=True, name="codes")

        def call(self, x):
            flat = ops.reshape(x, [-1, self.dim])
            similarity = ops.matmul(flat, self.codes)
            distances = ops.sum(flat**2, axis=1, keepdims=True) + ops.sum(self.codes.value**2, axis=0) - 2 * similarity
            encodings = ops.one_hot(ops.argmin(distances, axis=1), self.count)
            quantized = ops.reshape(ops.matmul(encodings, ops.transpose(self.codes)), ops.shape(x))
            commitment = ops.mean((ops.stop_gradient(quantized) - x) ** 2)
            self.add_loss(self.beta * commitment + ops.mean((quantized - ops.stop_gradient(x)) ** 2))
            return x + ops.stop_gradient(quantized - x)

    encoder = keras.Sequential(
        [layers.Conv2D(4, 3, activation="relu", strides=2, padding="same"), layers.Conv2D(3, 1, padding="same")]
    )
    decoder = keras.Sequential(
        [
            layers.Conv2DTranspose(4, 3, activation="relu", strides=2, padding="same"),
            layers.Conv2DTranspose(1, 3, padding="same"),
        ]
    )
    inputs = keras.Input((8, 8, 1))
    model = k.Model(inputs, decoder(Quantizer(6, 3)(encoder(inputs))))
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-3), "mse")
    return fit(model, batches(X, X))


def train_flow(k):
    """Coupling layers that can be inverted, with log-determinants; the loss is a density."""

    def coupling():
        inputs = keras.Input((2,))
        parts = []
        for activation in ("tanh", "linear"):
            x = inputs
            for _ in range(2):
                x = layers.Dense(5, activation="relu", kernel_regularizer=keras.regularizers.l2(0.01))(x)
            parts.append(layers.Dense(2, activation=activation, kernel_regularizer=keras.regularizers.l2(0.01))(x))
        return keras.Model(inputs, parts)

    class RealNVP(k.Model):
        def __init__(self, count=4):
            super().__init__()
            self.count = count
            self.masks = keras.ops.array([[0, 1], [1, 0]] * (count // 2), dtype="float32")
            self.couplings = [coupling() for _ in range(count)]

        def call(self, x):
            total, direction = 0, -1
            for i in range(self.count)[::direction]:
                masked = x * self.masks[i]
                rest = 1 - self.masks[i]
                s, t = self.couplings[i](masked)
                s, t = s * rest, t * rest
                gate = (direction - 1) / 2
                x = rest * (x * ops.exp(direction * s) + direction * t * ops.exp(gate * s)) + masked
                total += gate * ops.sum(s, axis=1)
            return x, total

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            z, log_det = y_pred
            log_p = -0.5 * ops.sum(z**2, axis=-1) - np.log(2 * np.pi)
            return -ops.mean(log_p + log_det) + sum(self.losses)

    model = RealNVP()
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-3))
    return fit(model, batches(numbers(23, 2)), evaluate=(numbers(23, 2),))


def train_pixels(k):
    """Pictures pixel by pixel: convolutions whose kernels are masked by an assignment before each call."""

    class Masked(layers.Layer):
        def __init__(self, kind, **options):
            super().__init__()
            self.kind, self.conv = kind, layers.Conv2D(**options)

        def build(self, shape):
            self.conv.build(shape)
            height, width, *_ = ops.shape(self.conv.kernel)
            mask = np.zeros(ops.shape(self.conv.kernel), "float32")
            mask[: height // 2] = 1.0
            mask[height // 2, : width // 2] = 1.0
            if self.kind == "B":
                mask[height // 2, width // 2] = 1.0
            self.mask = mask

        def call(self, x):
            self.conv.kernel.assign(self.conv.kernel * self.mask)
            return self.conv(x)

    class Residual(layers.Layer):
        def __init__(self, filters):
            super().__init__()
            self.one, self.two = (
                layers.Conv2D(filters, 1, activation="relu"),
                layers.Conv2D(filters, 1, activation="relu"),
            )
            self.masked = Masked("B", filters=filters // 2, kernel_size=3, activation="relu", padding="same")

        def call(self, x):
            return layers.add([x, self.two(self.masked(self.one(x)))])

    inputs = keras.Input((8, 8, 1))
    x = Masked("A", filters=4, kernel_size=5, activation="relu", padding="same")(inputs)
    x = Residual(4)(x)
    model = k.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(x))
    model.compile(keras.optimizers.Adam(5e-4, epsilon=1e-3), "binary_crossentropy")
    pixels = (X > 0.3).astype("float32")
    return fit(model, batches(pixels, pixels))


def train_energy(k):
    """An energy whose gradient is the answer: the score of noisy data by the user's tape in `call`."""

    class Score(k.Model):
        def __init__(self):
            super().__init__()
            self.energy = keras.Sequential([layers.Dense(8, "softplus"), layers.Dense(8, "softplus"), layers.Dense(1)])
            self.seed = keras.random.SeedGenerator(4)

        def call(self, x, training=None):
            noise = keras.random.normal(ops.shape(x), seed=self.seed)
            with tf.GradientTape() as tape:
                y = x + 0.3 * noise
                tape.watch(y)
                e = tf.reduce_sum(self.energy(y))
            self.add_loss(1e-3 * ops.square(e))
            return ops.concatenate([tape.gradient(e, y) - noise / 0.3], axis=-1)

    model = Score()
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-3), "mse")
    return fit(model, batches(numbers(23, 3), np.zeros((23, 3), "float32")))
