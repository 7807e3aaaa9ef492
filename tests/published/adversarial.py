"""Adversaries inside one model: reversed gradients, examples perturbed along the gradient, training robust to them."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, integers, numbers

X, Y, DOMAIN = numbers(23, 6), integers(3, 23), integers(2, 23, 1).astype("float32")


def train(k):
    """Domains that cannot be told apart: the gradient is turned round by `tf.custom_gradient`, its factor is a variable."""

    class Reverse(layers.Layer):
        def __init__(self):
            super().__init__()
            self.factor = self.add_weight(shape=(), initializer="zeros", trainable=False, name="factor")

        def call(self, x):
            @tf.custom_gradient
            def reverse(x):
                def backward(dy):
                    return -self.factor.value * dy

                return x, backward

            return reverse(x)

    class Anneal(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            reverse.factor.assign(2.0 / (1.0 + np.exp(-float(epoch))) - 0.9)

    reverse = Reverse()
    inputs = keras.Input((6,))
    features = layers.Dense(5, "relu")(inputs)
    label = layers.Dense(3, "softmax", name="label")(features)
    domain = layers.Dense(1, "sigmoid", name="domain")(layers.Dense(4, "relu")(reverse(features)))
    model = k.Model(inputs, [label, domain])
    model.compile(
        "adam", ["sparse_categorical_crossentropy", "binary_crossentropy"], metrics=[["accuracy"], ["accuracy"]]
    )
    weight = [abs(numbers(23, seed=2)), np.ones(23, "float32")]
    return fit(model, X, [Y, DOMAIN], sample_weight=weight, batch_size=5, callbacks=[Anneal()])


def train_perturbed(k):
    """The neighbour of every example that the loss dislikes most, by the user's tape in `compute_loss`."""

    class Robust(k.Model):
        def __init__(self, base):
            super().__init__()
            self.base = base

        def call(self, x, training=None):
            return self.base(x, training=training)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            plain = super().compute_loss(x, y, y_pred, sample_weight, training)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(x)
                inner = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, self.base(x, training=False)))
            near = tf.stop_gradient(x + 0.1 * tf.math.l2_normalize(tape.gradient(inner, x), axis=-1))
            y_near = self.base(near, training=training)
            return plain + 0.3 * ops.mean(keras.losses.sparse_categorical_crossentropy(y, y_near))

    base = keras.Sequential(
        [layers.Dense(6, "relu"), layers.Dropout(0.2, seed=1), layers.BatchNormalization(), layers.Dense(3, "softmax")]
    )
    model = Robust(base)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return fit(model, batches(X, Y))


def train_style(k):
    """Gram matrices of the features of a frozen network: what is trained is a picture and a transforming network."""

    class Picture(layers.Layer):
        def build(self, shape):
            self.picture = self.add_weight(shape=(1, *shape[1:]), initializer="random_normal", name="picture")

        def call(self, x):
            return 0.5 * x + self.picture

    inputs = keras.Input((8, 8, 3))
    a = layers.Conv2D(4, 3, activation="relu", name="a")(inputs)
    b = layers.Conv2D(5, 3, strides=2, activation="relu", name="b")(a)
    features = keras.Model(inputs, {"a": a, "b": b})
    features.trainable = False

    def gram(f):
        f = ops.transpose(f, (0, 3, 1, 2))
        f = ops.reshape(f, (ops.shape(f)[0], ops.shape(f)[1], -1))
        return ops.matmul(f, ops.transpose(f, (0, 2, 1)))

    class Style(k.Model):
        def __init__(self):
            super().__init__()
            self.picture, self.net = (
                Picture(),
                keras.Sequential(
                    [layers.Conv2D(4, 3, padding="same", activation="relu"), layers.Conv2D(3, 3, padding="same")]
                ),
            )
            self.style = gram(features(numbers(1, 8, 8, 3, seed=9))["a"])

        def call(self, x):
            return self.picture(x) + self.net(x)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            made, given = features(y_pred), features(x)
            style = ops.sum(ops.square(self.style - gram(made["a"]))) / (4.0 * 9 * 64**2)
            rows = ops.square(y_pred[:, :-1, :-1] - y_pred[:, 1:, :-1]) + ops.square(
                y_pred[:, :-1, :-1] - y_pred[:, :-1, 1:]
            )
            return (
                1e-2 * style
                + ops.sum(ops.square(made["b"] - given["b"])) * 1e-2
                + 1e-3 * ops.sum(ops.power(rows + 1e-6, 1.25))
            )

    model = Style()
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.02, 5, 0.9)))
    return fit(model, batches(numbers(13, 8, 8, 3)))
