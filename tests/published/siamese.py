"""A siamese network on triplets: one encoder for three inputs, a margin between two distances."""

import keras
import tensorflow as tf
from keras import layers, ops

from tests.equality import compare
from tests.published import fit, numbers

A, P, N = numbers(21, 6, 6, 1), numbers(21, 6, 6, 1, seed=1), numbers(21, 6, 6, 1, seed=2)


def encoder(k):
    x = keras.Input((6, 6, 1))
    h = layers.BatchNormalization()(layers.Conv2D(3, 3, activation="relu")(x))
    h = layers.Dense(6, activation="relu")(layers.Flatten()(h))
    return k.Model(x, layers.Dense(4)(h), name="encoder")


class Distances(layers.Layer):
    def call(self, anchor, positive, negative):
        return ops.sum(tf.square(anchor - positive), -1), tf.reduce_sum(tf.square(anchor - negative), -1)


def functional(k):
    shared = encoder(k)
    inputs = [keras.Input((6, 6, 1), name=name) for name in ("anchor", "positive", "negative")]
    return keras.Model(inputs, Distances()(*map(shared, inputs)), name="siamese")


def triplets():
    for i in range(0, 21, 5):
        yield ((A[i : i + 5], P[i : i + 5], N[i : i + 5]),)


def train(k):
    """A model around a functional one, `compute_loss` and a metric of its own, fed by a generator through tf.data."""

    class Siamese(k.Model):
        def __init__(self, network, margin=0.5):
            super().__init__()
            self.network, self.margin = network, margin
            self.tracker = keras.metrics.Mean(name="mean_distance")

        def call(self, inputs):
            return self.network(inputs)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            near, far = y_pred
            self.tracker.update_state(near)
            return tf.reduce_mean(tf.maximum(near - far + self.margin, 0.0))

        @property
        def metrics(self):
            return [*super().metrics, self.tracker]

    model = Siamese(functional(k))
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-3), weighted_metrics=[])
    signature = (((tf.TensorSpec((None, 6, 6, 1)),) * 3,),)
    data = tf.data.Dataset.from_generator(triplets, output_signature=signature[0])
    return fit(model, data)


def train_pairs(k):
    """Two inputs, the distance by a Lambda layer, a contrastive loss as a closure; `sample_weight`; a sigmoid on a norm."""

    def contrastive(margin):
        def loss(y_true, y_pred):
            y_true = ops.cast(y_true, y_pred.dtype)
            return ops.mean((1 - y_true) * ops.square(y_pred) + y_true * ops.square(ops.maximum(margin - y_pred, 0)))

        return loss

    def distance(vectors):
        x, y = vectors
        return ops.sqrt(ops.maximum(ops.sum(ops.square(x - y), axis=1, keepdims=True), keras.config.epsilon()))

    shared = encoder(k)
    left, right = keras.Input((6, 6, 1)), keras.Input((6, 6, 1))
    merged = layers.Lambda(distance, output_shape=(1,))([shared(left), shared(right)])
    model = k.Model([left, right], layers.Dense(1, "sigmoid")(layers.BatchNormalization()(merged)))
    model.compile("rmsprop", contrastive(1), metrics=["accuracy"])
    labels = (numbers(21, 1, seed=3) > 0).astype("int32")
    seen = fit(model, [A, P], labels, sample_weight=abs(numbers(21, seed=4)), batch_size=5, evaluate=([A, P], labels))
    return {**seen, "encoder": compare.observe(shared)}
