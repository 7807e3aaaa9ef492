"""Sequence to sequence with recurrent layers: states handed on, teacher forcing, masks, attention."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, integers

SOURCE, TARGET = integers(9, 21, 6), integers(7, 21, 5, seed=1)
SOURCE[::2, 4:] = 0
TARGET[::3, 3:] = 0
ONE_HOT = np.eye(9, dtype="float32")[SOURCE], np.eye(7, dtype="float32")[TARGET]


def train(k):
    """Characters as one-hot vectors, shapes with free lengths, a generator."""
    e_in, d_in = keras.Input((None, 9)), keras.Input((None, 7))
    _, *states = layers.LSTM(6, return_state=True)(e_in)
    h, _, _ = layers.LSTM(6, return_sequences=True, return_state=True)(d_in, initial_state=states)
    model = k.Model([e_in, d_in], layers.Dense(7, activation="softmax")(h))
    model.compile("rmsprop", "categorical_crossentropy", metrics=["accuracy"])

    def generator():
        while True:
            for i in range(0, 21, 6):
                source, target = (one[i : i + 6] for one in ONE_HOT)
                yield (source[:, : 4 + i % 3], target[:, :-1]), target[:, 1:]

    return fit(model, generator(), steps_per_epoch=4)


def train_with_attention(k):
    """Embeddings with masks, a bidirectional encoder, additive attention; the loss ignores padding; dict of inputs."""
    source, target = (
        keras.Input((None,), dtype="int32", name="source"),
        keras.Input((None,), dtype="int32", name="target"),
    )
    context, *states = layers.Bidirectional(
        layers.GRU(4, return_sequences=True, return_state=True, dropout=0.1, seed=3)
    )(layers.Embedding(9, 5, mask_zero=True)(source))
    h = layers.GRU(8, return_sequences=True)(
        layers.Embedding(7, 5, mask_zero=True)(target), initial_state=layers.Concatenate()(states)
    )
    a, scores = layers.AdditiveAttention(name="attention")([h, context], return_attention_scores=True)
    logits = layers.Dense(7)(layers.LayerNormalization()(layers.Concatenate()([h, a])))
    model = k.Model({"source": source, "target": target}, logits)

    def masked(y, logits):
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(y, "int32"), logits)
        mask = tf.cast(y != 0, loss.dtype)
        return tf.reduce_sum(loss * mask) / tf.reduce_sum(mask)

    model.compile(keras.optimizers.Adam(1e-2, epsilon=1e-3, clipnorm=1.0), masked)
    return fit(model, batches({"source": SOURCE, "target": TARGET[:, :-1]}, TARGET[:, 1:]))


def train_subclassed(k):
    """Encoder and decoder are layers, the states go by hand; the loop over time is Python's."""

    class Encoder(layers.Layer):
        def __init__(self):
            super().__init__()
            self.embedding, self.rnn = layers.Embedding(9, 4, mask_zero=True), layers.LSTM(5, return_state=True)

        def call(self, x):
            return self.rnn(self.embedding(x))[1:]

    class Decoder(layers.Layer):
        def __init__(self):
            super().__init__()
            self.embedding, self.cell, self.out = layers.Embedding(7, 4), layers.LSTMCell(5), layers.Dense(7)

        def call(self, x, states):
            outputs = []
            for step in ops.unstack(self.embedding(x), axis=1):
                y, states = self.cell(step, states)
                outputs.append(self.out(y))
            return ops.stack(outputs, axis=1)

    class Model(k.Model):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = Encoder(), Decoder()

        def call(self, inputs):
            source, target = inputs
            return self.decoder(target, list(self.encoder(source)))

    model = Model()
    model.compile(
        keras.optimizers.SGD(0.3), keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    )
    return fit(model, (SOURCE, TARGET[:, :4]), TARGET[:, 1:], batch_size=6)
