"""Text: `TextVectorization` in tf.data, convolutions, transformer blocks, language models, word vectors, masked words."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, integers

WORDS = np.array(["the", "a", "cat", "dog", "saw", "liked", "ran", "small", "big", "and"])
TEXTS = np.array([" ".join(WORDS[integers(10, 3 + i % 4, seed=i)]) for i in range(23)])
Y = integers(2, 23)


def vectorized(length, size=5):
    vectorize = layers.TextVectorization(12, output_mode="int", output_sequence_length=length)
    vectorize.adapt(TEXTS)
    data = tf.data.Dataset.from_tensor_slices((TEXTS, Y)).batch(size)
    return data.map(lambda x, y: (vectorize(tf.expand_dims(x, -1)), y)).prefetch(1)


def train(k):
    inputs = keras.Input((None,), dtype="int64")
    x = layers.Dropout(0.5, seed=1)(layers.Embedding(12, 6)(inputs))
    x = layers.Conv1D(6, 3, padding="valid", activation="relu", strides=2)(x)
    x = layers.Dense(4, activation="relu")(layers.GlobalMaxPooling1D()(x))
    model = k.Model(inputs, layers.Dense(1, activation="sigmoid", name="predictions")(layers.Dropout(0.5, seed=2)(x)))
    model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
    return fit(model, vectorized(7), validation_data=vectorized(7))


def train_from_strings(k):
    """The strings themselves are the input; bidirectional LSTMs under a mask."""
    vectorize = layers.TextVectorization(12)
    vectorize.adapt(TEXTS)
    inputs = keras.Input((1,), dtype="string")
    x = layers.Embedding(12, 5, mask_zero=True)(vectorize(inputs))
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
    x = layers.Bidirectional(layers.LSTM(3), merge_mode="ave")(x)
    model = k.Model(inputs, layers.Dense(2)(x))
    model.compile("rmsprop", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return fit(model, tf.data.Dataset.from_tensor_slices((TEXTS[:, None], Y)).batch(5))


class Block(layers.Layer):
    def __init__(self, dim, heads, causal=False, rate=0.1):
        super().__init__()
        self.att, self.causal = layers.MultiHeadAttention(heads, dim), causal
        self.ffn = keras.Sequential([layers.Dense(2 * dim, activation="relu"), layers.Dense(dim)])
        self.norms = [layers.LayerNormalization(epsilon=1e-6), layers.LayerNormalization(epsilon=1e-6)]
        self.drops = [layers.Dropout(rate, seed=1), layers.Dropout(rate, seed=2)]

    def call(self, x, training=None):
        mask = None
        if self.causal:
            n, length = ops.shape(x)[0], ops.shape(x)[1]
            i, j = ops.arange(length)[:, None], ops.arange(length)
            mask = ops.broadcast_to(ops.reshape(i >= j - length + length, [1, length, length]), (n, length, length))
        a = self.drops[0](self.att(x, x, attention_mask=mask), training=training)
        x = self.norms[0](x + a)
        return self.norms[1](x + self.drops[1](self.ffn(x), training=training))


class TokenAndPosition(layers.Layer):
    def __init__(self, length, vocabulary, dim):
        super().__init__()
        self.token, self.position = layers.Embedding(vocabulary, dim), layers.Embedding(length, dim)

    def call(self, x):
        positions = self.position(ops.arange(0, ops.shape(x)[-1], 1))
        return self.token(x) + positions


def train_transformer(k):
    inputs = keras.Input((6,))
    x = layers.GlobalAveragePooling1D()(Block(6, 2)(TokenAndPosition(6, 12, 6)(inputs)))
    x = layers.Dropout(0.1, seed=4)(layers.Dense(5, activation="relu")(layers.Dropout(0.1, seed=3)(x)))
    model = k.Model(inputs, layers.Dense(2, activation="softmax")(x))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return fit(model, vectorized(6))


def train_language_model(k):
    """A small GPT with two outputs of which one has no loss; length unknown."""
    inputs = keras.Input((None,), dtype="int32")
    x = Block(6, 2, causal=True)(TokenAndPosition(8, 12, 6)(inputs))
    model = k.Model(inputs, [layers.Dense(12)(x), x])
    model.compile(
        keras.optimizers.Adam(1e-2, epsilon=1e-3),
        loss=[keras.losses.SparseCategoricalCrossentropy(from_logits=True), None],
    )
    return fit(model, vectorized(7).map(lambda x, y: (x[:, :-1], x[:, 1:])))


def train_word_vectors(k):
    """Skip-grams: dot products by einsum of a word with its context, labels of one and zeros."""

    class Word2Vec(k.Model):
        def __init__(self):
            super().__init__()
            self.target, self.context = layers.Embedding(12, 4, name="target"), layers.Embedding(12, 4)

        def call(self, pair):
            target, context = pair
            if len(target.shape) == 2:
                target = tf.squeeze(target, axis=1)
            return tf.einsum("be,bce->bc", self.target(target), self.context(context))

    model = Word2Vec()
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    y = np.eye(4, dtype="float32")[np.zeros(23, "int32")]
    return fit(model, batches((integers(12, 23, 1), integers(12, 23, 4)), y))


def train_masked_words(k):
    """Words are hidden and predicted where `sample_weight` says so; the step is the user's, metrics by hand."""
    loss_fn = keras.losses.SparseCategoricalCrossentropy(reduction=None)
    tracker = keras.metrics.Mean(name="loss")

    class Masked(k.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
            loss = loss_fn(y, y_pred, sample_weight)
            tracker.update_state(loss, sample_weight=sample_weight)
            return keras.ops.sum(loss)

        def compute_metrics(self, x, y, y_pred, sample_weight):
            return {"loss": tracker.result()}

        @property
        def metrics(self):
            return [tracker]

    inputs = keras.Input((6,), dtype="int64")
    x = Block(6, 2)(layers.Embedding(12, 6)(inputs) + TokenAndPosition(6, 12, 6)(inputs))
    model = Masked(inputs, layers.Dense(12, activation="softmax", name="cls")(x))
    model.compile(keras.optimizers.SGD(0.05))
    x = integers(12, 23, 6)
    return fit(model, batches(np.where(integers(4, 23, 6) == 0, 11, x), x, (integers(4, 23, 6) == 0).astype("float32")))
