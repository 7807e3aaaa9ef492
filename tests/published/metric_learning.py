"""Metric learning: pairs of anchors and positives for each class, similarity of all with all, own steps and losses."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, integers, numbers

ANCHORS, POSITIVES = numbers(23, 6, 6, 2), numbers(23, 6, 6, 2, seed=1)


def body():
    inputs = keras.Input((6, 6, 2))
    x = inputs
    for filters in (3, 4):
        x = layers.BatchNormalization()(layers.Conv2D(filters, 3, activation="relu")(x))
    x = layers.Dense(4, activation=None)(layers.GlobalAveragePooling2D()(x))
    return inputs, layers.UnitNormalization()(x)


def train(k):
    """Stock with a tape, ours with it as well; targets are made in the step."""

    class Embedding(k.Model):
        def train_step(self, data):
            if isinstance(data, tuple):
                data = data[0]
            anchors, positives = data[0], data[1]
            with tf.GradientTape() as tape:
                a, p = self(anchors, training=True), self(positives, training=True)
                similarities = keras.ops.einsum("ae,pe->ap", a, p) / 0.2
                labels = keras.ops.arange(keras.ops.shape(a)[0])
                loss = self.compute_loss(y=labels, y_pred=similarities)
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply(gradients, self.trainable_variables)
            for metric in self.metrics:
                if metric.name == "loss":
                    metric.update_state(loss)
                else:
                    metric.update_state(labels, similarities)
            return {m.name: m.result() for m in self.metrics}

    model = Embedding(*body())
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
    )
    return fit(model, batches((ANCHORS, POSITIVES)).map(lambda a, p: ((a, p),)))


def train_compute_loss(k):
    """The targets are made in `compute_loss`, which calls the compiled loss."""
    inputs, outputs = body()
    encoder = keras.Model(inputs, outputs)

    class Pairs(k.Model):
        def __init__(self):
            super().__init__()
            self.encoder = encoder

        def call(self, x):
            a, p = (self.encoder(one) for one in x)
            return keras.ops.einsum("ae,pe->ap", a, p) / 0.2

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return super().compute_loss(x, ops.arange(ops.shape(y_pred)[0]), y_pred, sample_weight)

    model = Pairs()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return fit(model, batches((ANCHORS, POSITIVES)).map(lambda a, p: ((a, p),)))


def train_margins(k):
    """Angular margins on normalised weights; hardest triplets of the batch; both outputs with losses and weights."""

    class Angular(layers.Layer):
        def __init__(self, classes, margin=0.2, scale=4.0):
            super().__init__()
            self.classes, self.margin, self.scale = classes, margin, scale

        def build(self, shapes):
            self.w = self.add_weight(
                shape=(shapes[0][-1], self.classes), regularizer=keras.regularizers.L2(1e-3), name="w"
            )

        def call(self, inputs):
            x, y = inputs
            cosine = tf.matmul(tf.nn.l2_normalize(x, axis=1), tf.nn.l2_normalize(self.w, axis=0))
            angle = tf.acos(tf.clip_by_value(cosine, -1.0 + 1e-5, 1.0 - 1e-5))
            return self.scale * tf.where(tf.cast(y, "bool"), tf.cos(angle + self.margin), cosine)

    def hardest(y, e):
        y = ops.reshape(y, (-1, 1))
        d = ops.sum((e[:, None] - e[None]) ** 2, axis=-1)
        same = ops.cast(ops.equal(y, ops.transpose(y)), e.dtype)
        far, near = ops.max(d * same, axis=1), ops.min(d + 1e6 * same, axis=1)
        return ops.softplus(far - near)

    x, label = keras.Input((6, 6, 2)), keras.Input((3,))
    encoder = keras.Model(*body(), name="encoder")
    e = encoder(x)
    model = k.Model([x, label], {"angular": Angular(3)([e, label]), "embedding": e})
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        {"angular": keras.losses.CategoricalCrossentropy(from_logits=True), "embedding": hardest},
        loss_weights={"angular": 1.0, "embedding": 0.5},
    )
    y = integers(3, 23)
    one_hot = np.eye(3, dtype="float32")[y]
    return fit(model, batches((ANCHORS, one_hot), {"angular": one_hot, "embedding": y}, size=8))
