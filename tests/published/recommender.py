"""Recommenders: dot products of embeddings with biases, two towers with the batch as negatives, sequences of ratings."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, integers, numbers

USERS, ITEMS = 9, 12
PAIRS = np.stack([integers(USERS, 33), integers(ITEMS, 33, seed=1)], axis=1)
RATINGS = abs(numbers(33)) / 4


def train(k):
    """A subclassed model on pairs of integers; regularised embeddings; `tensordot` of the whole batch."""

    class Recommender(k.Model):
        def __init__(self, size=4, **options):
            super().__init__(**options)

            def embedding(n, size):
                return layers.Embedding(n, size, embeddings_initializer="he_normal", embeddings_regularizer="l2")

            self.user, self.user_bias = embedding(USERS, size), layers.Embedding(USERS, 1)
            self.item, self.item_bias = embedding(ITEMS, size), layers.Embedding(ITEMS, 1)

        def call(self, inputs):
            user, item = self.user(inputs[:, 0]), self.item(inputs[:, 1])
            dot = ops.tensordot(user, item, 2)
            return ops.nn.sigmoid(dot + self.user_bias(inputs[:, 0]) + self.item_bias(inputs[:, 1]))

    model = Recommender()
    model.compile(keras.optimizers.Adam(1e-2, epsilon=1e-3), keras.losses.BinaryCrossentropy())
    return fit(model, PAIRS, RATINGS, batch_size=8, validation_data=(PAIRS, RATINGS))


def train_two_towers(k):
    """Scores of every query with every candidate of the batch; sampling corrected; weights; retrieval metrics."""

    class TwoTowers(k.Model):
        def __init__(self):
            super().__init__()
            self.queries = keras.Sequential([layers.Embedding(USERS + 1, 6), layers.Dense(4, "relu")])
            self.candidates = keras.Sequential([layers.Embedding(ITEMS + 1, 6), layers.Dense(4)])
            self.popularity = ops.convert_to_tensor(np.bincount(PAIRS[:, 1], minlength=ITEMS) / 33.0 + 0.01)
            self.top = keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top")
            self.loss_fn = keras.losses.CategoricalCrossentropy(from_logits=True, reduction="sum")

        def call(self, features, training=None):
            return self.queries(features["user"]), self.candidates(features["item"])

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            q, c = y_pred
            scores = ops.matmul(q, ops.transpose(c))
            n, m = ops.shape(scores)[0], ops.shape(scores)[1]
            scores = scores - ops.log(ops.cast(ops.take(self.popularity, x["item"]), scores.dtype))
            self.top.update_state(ops.arange(n), scores)
            return self.loss_fn(ops.eye(n, m), scores, sample_weight=y)

    model = TwoTowers()
    model.compile(keras.optimizers.Adagrad(0.1))
    x = {"user": PAIRS[:, 0], "item": PAIRS[:, 1]}
    return fit(model, batches(x, RATINGS, size=8))


def train_ranking(k):
    """Pairs of a liked and another item, in a `train_step`-less ranking loss; shared towers; strings looked up inside."""
    names = np.array([f"user {i}" for i in range(USERS)])
    user, liked, other = (
        keras.Input((1,), dtype="string"),
        keras.Input((), dtype="int32"),
        keras.Input((), dtype="int32"),
    )
    lookup = layers.StringLookup(vocabulary=list(names[:-2]), mask_token=None)
    embedding = layers.Embedding(ITEMS, 4, name="items")
    u = layers.Flatten()(layers.Embedding(lookup.vocabulary_size(), 4, name="users")(lookup(user)))
    scores = [layers.Dot(axes=1, normalize=True)([u, embedding(item)]) for item in (liked, other)]
    model = k.Model([user, liked, other], layers.Subtract()(scores))
    model.compile("ftrl", lambda y, d: -ops.mean(ops.log_sigmoid(d) * y))
    data = (names[PAIRS[:, :1]], PAIRS[:, 1].astype("int32"), integers(ITEMS, 33, seed=7).astype("int32"))
    return fit(model, tf.data.Dataset.from_tensor_slices((data, np.ones((33, 1), "float32"))).batch(8))


def train_behaviour_sequence(k):
    """A transformer over past items with their ratings as factors; side features; the position is an embedding added by `+`."""
    past, rated = keras.Input((4,), dtype="int32", name="past"), keras.Input((4,), name="rated")
    target, age = keras.Input((), dtype="int32", name="target"), keras.Input((1,), name="age")
    items = layers.Embedding(ITEMS + 1, 6, name="item")
    x = items(past) + layers.Embedding(4, 6)(ops.arange(4))
    x = layers.Multiply()([x, ops.expand_dims(rated, -1)])
    t = ops.expand_dims(items(target), 1)
    x = layers.Concatenate(axis=1)([x, t])
    a = layers.Dropout(0.1, seed=3)(layers.MultiHeadAttention(2, 3, dropout=0.1, seed=4)(x, x))
    x1 = layers.LayerNormalization()(layers.Add()([x, a]))
    x = layers.LayerNormalization()(layers.Add()([layers.Dense(6)(layers.LeakyReLU()(x1)), x1]))
    h = layers.Concatenate()([layers.Flatten()(x), layers.Normalization(mean=0.5, variance=2.0)(age)])
    model = k.Model({"past": past, "rated": rated, "target": target, "age": age}, layers.Dense(1)(h))
    model.compile(
        keras.optimizers.Adagrad(0.01), keras.losses.MeanSquaredError(), metrics=[keras.metrics.MeanAbsoluteError()]
    )
    x = {
        "past": integers(ITEMS, 33, 4).astype("int32"),
        "rated": numbers(33, 4),
        "target": PAIRS[:, 1].astype("int32"),
        "age": numbers(33, 1, seed=2),
    }
    return fit(model, batches(x, RATINGS, size=8))
