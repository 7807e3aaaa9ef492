"""Supervised contrastive learning, then a classifier on the frozen encoder."""

import keras
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, integers, numbers

X, Y = numbers(26, 10), integers(3, 26)


class SupervisedContrastive(keras.losses.Loss):
    def __init__(self, temperature=0.5, name=None):
        super().__init__(name=name)
        self.temperature = temperature

    def __call__(self, labels, features, sample_weight=None):
        features = tf.math.l2_normalize(features, axis=1)
        logits = tf.matmul(features, tf.transpose(features)) / self.temperature
        labels = tf.reshape(tf.cast(labels, "int32"), (-1, 1))
        same = tf.cast(tf.equal(labels, tf.transpose(labels)), "float32")
        same /= tf.reduce_sum(same, axis=1, keepdims=True)
        return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=same, logits=logits))


def encoder(k):
    x = keras.Input((10,))
    h = layers.Dropout(0.2, seed=1)(layers.BatchNormalization()(layers.Dense(8, "relu")(x)))
    return k.Model(x, h, name="encoder")


def train(k):
    base = encoder(k)
    projected = k.Sequential([keras.Input((10,)), base, layers.Dense(5, "relu")])
    projected.compile(keras.optimizers.SGD(0.05, momentum=0.9), SupervisedContrastive())
    first = fit(projected, batches(X, Y, size=7))
    for layer in base.layers:
        layer.trainable = False
    x = keras.Input((10,))
    h = layers.Dropout(0.3, seed=2)(base(x))
    classifier = k.Model(x, layers.Dense(3, "softmax")(layers.Dense(6, "relu")(h)))
    classifier.compile(
        keras.optimizers.Adam(1e-2, epsilon=1e-3), keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"]
    )
    return {"first": first, "second": fit(classifier, X, Y, batch_size=7, evaluate=(X, Y))}


def train_by_parts(k):
    """In `keras.ops`, with the diagonal taken out and logs of sums."""

    class Model(k.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            z = ops.normalize(y_pred, axis=-1, order=2)
            s = ops.matmul(z, ops.transpose(z))
            n = ops.shape(s)[0]
            other = 1.0 - ops.eye(n, dtype=s.dtype)
            same = ops.cast(ops.equal(y[:, None], y[None, :]), s.dtype) * other
            log_p = s - ops.log(ops.sum(ops.exp(s) * other, axis=1, keepdims=True))
            mean = ops.sum(same * log_p, axis=1) / ops.maximum(ops.sum(same, axis=1), 1)
            return -ops.mean(mean) + sum(self.losses)

    x = keras.Input((10,))
    model = Model(x, layers.Dense(4, kernel_regularizer="l2")(layers.Dense(6, "tanh")(x)))
    model.compile("adam")
    return fit(model, batches(X, Y, size=7))
