"""A transformer written by hand: positions, masks through `compute_mask` and `mask=` arguments, causal masks."""

import contextlib

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, integers

SOURCE, TARGET = integers(9, 21, 6), integers(8, 21, 6, seed=1)
SOURCE[::2, 4:] = 0
TARGET[::3, 3:] = 0


class PositionalEmbedding(layers.Layer):
    def __init__(self, length, vocabulary, dim, **options):
        super().__init__(**options)
        self.tokens, self.positions = layers.Embedding(vocabulary, dim), layers.Embedding(length, dim)
        self.supports_masking = True

    def call(self, inputs):
        return self.tokens(inputs) + self.positions(ops.arange(0, ops.shape(inputs)[-1], 1))

    def compute_mask(self, inputs, mask=None):
        return ops.not_equal(inputs, 0)


class Encoder(layers.Layer):
    def __init__(self, dim, heads, **options):
        super().__init__(**options)
        self.attention = layers.MultiHeadAttention(heads, dim)
        self.dense = keras.Sequential([layers.Dense(2 * dim, activation="relu"), layers.Dense(dim)])
        self.norms = [layers.LayerNormalization(), layers.LayerNormalization()]
        self.supports_masking = True

    def call(self, inputs, mask=None):
        padding = ops.cast(mask[:, None, :], "int32") if mask is not None else None
        a = self.attention(query=inputs, value=inputs, key=inputs, attention_mask=padding)
        x = self.norms[0](inputs + a)
        return self.norms[1](x + self.dense(x))


class Decoder(layers.Layer):
    def __init__(self, dim, heads, **options):
        super().__init__(**options)
        self.own, self.cross = (
            layers.MultiHeadAttention(heads, dim),
            layers.MultiHeadAttention(heads, dim, dropout=0.1, seed=3),
        )
        self.dense = keras.Sequential([layers.Dense(2 * dim, activation="relu"), layers.Dense(dim)])
        self.norms = [layers.LayerNormalization() for _ in range(3)]
        self.supports_masking = True

    def call(self, inputs, mask=None):
        x, encoded = inputs
        causal = self.causal(x)
        padding = source_padding = None
        if mask is not None:
            own, source = mask
            padding = ops.minimum(ops.cast(own[:, None, :], "int32"), causal) if own is not None else causal
            source_padding = source[:, None, :] if source is not None else None
        h = self.norms[0](x + self.own(query=x, value=x, key=x, attention_mask=padding))
        c, scores = self.cross(
            query=h, value=encoded, key=encoded, attention_mask=source_padding, return_attention_scores=True
        )
        h = self.norms[1](h + c)
        return self.norms[2](h + self.dense(h))

    def causal(self, x):
        shape = ops.shape(x)
        n, length = shape[0], shape[1]
        i, j = ops.arange(length)[:, None], ops.arange(length)
        mask = ops.reshape(ops.cast(i >= j, dtype="int32"), (1, length, length))
        return ops.broadcast_to(mask, (n, length, length))


def build(k, length=None):
    source, target = (
        keras.Input((length,), dtype="int64", name="source"),
        keras.Input((length,), dtype="int64", name="target"),
    )
    encoded = Encoder(6, 2)(PositionalEmbedding(6, 9, 6)(source))
    encoder = k.Model(source, encoded, name="encoder")
    x = Decoder(6, 2)([PositionalEmbedding(6, 8, 6)(target), encoder(source)])
    x = layers.Dropout(0.3, seed=5)(x)
    return k.Model({"source": source, "target": target}, layers.Dense(8, activation="softmax")(x))


def train(k):
    """Masks travel with the tensors; Keras's loss sees them; the last batch is uneven."""
    model = build(k)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(ignore_class=0),
        metrics=["accuracy"],
    )
    data = batches({"source": SOURCE, "target": TARGET[:, :-1]}, TARGET[:, 1:], size=6)
    return fit(model, data, validation_data=data)


def train_scheduled(k):
    """Fixed sines as positions, a learning rate of one's own, attention by raw TensorFlow, a masked loss and accuracy."""

    class Schedule(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            step = ops.cast(step, "float32") + 1.0
            return ops.rsqrt(ops.cast(6.0, "float32")) * ops.minimum(ops.rsqrt(step), step * 10**-1.5)

    def sines(length, depth):
        angles = np.arange(length)[:, None] / 10000 ** (np.arange(depth // 2)[None] / (depth / 2))
        return tf.constant(np.concatenate([np.sin(angles), np.cos(angles)], axis=-1), tf.float32)

    class Positions(layers.Layer):
        def __init__(self, vocabulary, dim):
            super().__init__()
            self.dim, self.embedding, self.table = (
                dim,
                layers.Embedding(vocabulary, dim, mask_zero=True),
                sines(16, dim),
            )

        def compute_mask(self, *args, **kwargs):
            return self.embedding.compute_mask(*args, **kwargs)

        def call(self, x):
            length = tf.shape(x)[1]
            x = self.embedding(x)
            x *= tf.math.sqrt(tf.cast(self.dim, tf.float32))
            return x + self.table[tf.newaxis, :length, :]

    class Attention(layers.Layer):
        def __init__(self, dim, heads):
            super().__init__()
            self.heads, self.depth = heads, dim // heads
            self.q, self.k, self.v, self.out = (layers.Dense(dim) for _ in range(4))

        def split(self, x):
            return tf.transpose(tf.reshape(x, (tf.shape(x)[0], -1, self.heads, self.depth)), [0, 2, 1, 3])

        def call(self, x, causal=True):
            q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
            logits = tf.matmul(q, k, transpose_b=True) / tf.math.sqrt(tf.cast(self.depth, tf.float32))
            if causal:
                length = tf.shape(x)[1]
                logits += (1 - tf.linalg.band_part(tf.ones((length, length)), -1, 0)) * -1e9
            h = tf.transpose(tf.matmul(tf.nn.softmax(logits, axis=-1), v), [0, 2, 1, 3])
            return self.out(tf.reshape(h, tf.shape(x)))

    class Language(k.Model):
        def __init__(self):
            super().__init__()
            self.positions, self.attention = Positions(8, 6), Attention(6, 2)
            self.add, self.norm, self.out = layers.Add(), layers.LayerNormalization(), layers.Dense(8)

        def call(self, x, training=False):
            x = self.positions(x)
            logits = self.out(self.norm(self.add([x, self.attention(x)])))
            with contextlib.suppress(AttributeError):
                del logits._keras_mask
            return logits

    def masked_loss(label, pred):
        mask = label != 0
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")(label, pred)
        mask = tf.cast(mask, dtype=loss.dtype)
        return tf.reduce_sum(loss * mask) / tf.reduce_sum(mask)

    def masked_accuracy(label, pred):
        match = tf.cast(label, "int64") == tf.argmax(pred, axis=2)
        mask = label != 0
        return tf.reduce_sum(tf.cast(match & mask, tf.float32)) / tf.reduce_sum(tf.cast(mask, tf.float32))

    model = Language()
    model.compile(keras.optimizers.Adam(Schedule(), beta_2=0.98, epsilon=1e-3), masked_loss, metrics=[masked_accuracy])
    return fit(model, batches(TARGET[:, :-1], TARGET[:, 1:], size=6))
