"""Questions about stories: memory networks with dot products of embeddings; a memory that is written by a loop."""

import keras
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, integers, numbers

STORY, QUESTION, ANSWER = integers(9, 23, 7), integers(9, 23, 3, seed=1), integers(9, 23, seed=2)
STORY[::2, 5:] = 0


def train(k):
    story, question = keras.Input((7,)), keras.Input((3,))
    m = keras.Sequential([layers.Embedding(9, 4), layers.Dropout(0.3, seed=1)])(story)
    c = keras.Sequential([layers.Embedding(9, 3), layers.Dropout(0.3, seed=2)])(story)
    q = keras.Sequential([layers.Embedding(9, 4, mask_zero=False), layers.Dropout(0.3, seed=3)])(question)
    match = layers.Activation("softmax")(layers.dot([m, q], axes=(2, 2)))
    response = layers.Permute((2, 1))(layers.add([match, c]))
    x = layers.LSTM(6)(layers.concatenate([response, q]))
    model = k.Model([story, question], layers.Activation("softmax")(layers.Dense(9)(layers.Dropout(0.3, seed=4)(x))))
    model.compile(optimizer="rmsprop", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return fit(model, [STORY, QUESTION], ANSWER, batch_size=6, validation_data=([STORY, QUESTION], ANSWER))


def train_hops(k):
    """Weights shared between hops, positions as fixed weights, masks by hand."""

    class Hops(k.Model):
        def __init__(self, hops=3):
            super().__init__()
            self.words = [layers.Embedding(9, 4, mask_zero=True) for _ in range(hops + 1)]
            self.question = layers.Embedding(9, 4, mask_zero=True)
            self.mix = layers.Dense(4, use_bias=False)

        def call(self, inputs, training=None, mask=None):
            story, question = inputs
            there = ops.cast(self.words[0].compute_mask(story), "float32")
            u = ops.mean(self.question(question), axis=1)
            for a, c in zip(self.words, self.words[1:], strict=False):
                p = ops.softmax(ops.einsum("nsd,nd->ns", a(story), u) + (1 - there) * -1e9)
                u = self.mix(u) + ops.einsum("ns,nsd->nd", p, c(story))
            return ops.matmul(u, ops.transpose(self.words[-1].embeddings))

    model = Hops()
    model.compile(
        keras.optimizers.Adam(1e-2, epsilon=1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return fit(model, batches((STORY, QUESTION), ANSWER))


def train_written(k):
    """A memory that a `tf.while_loop` reads and writes, with weights read inside; `tf.TensorArray`; a cond."""

    class Memory(layers.Layer):
        def build(self, shape):
            self.key = self.add_weight(shape=(shape[-1], 3), name="key")
            self.value = self.add_weight(shape=(shape[-1], 4), name="value")
            self.start = self.add_weight(shape=(3, 4), initializer="glorot_uniform", name="start")

        def call(self, x):
            n, steps = tf.shape(x)[0], tf.shape(x)[1]
            memory = tf.tile(self.start[None], [n, 1, 1])
            reads = tf.TensorArray(x.dtype, steps)

            def body(t, memory, reads):
                now = x[:, t]
                address = tf.nn.softmax(now @ tf.convert_to_tensor(self.key))
                read = tf.einsum("nk,nkd->nd", address, memory)
                new = tf.tanh(now @ tf.convert_to_tensor(self.value)) - 0.5 * read
                memory = tf.cond(
                    t % 2 == 0, lambda: memory + address[:, :, None] * new[:, None, :], lambda: memory * 0.9
                )
                return t + 1, memory, reads.write(t, read)

            _, memory, reads = tf.while_loop(lambda t, *_: t < steps, body, (0, memory, reads))
            return tf.transpose(reads.stack(), [1, 0, 2]), memory

    class Model(k.Model):
        def __init__(self):
            super().__init__()
            self.memory, self.out = Memory(), layers.Dense(2)

        def call(self, x):
            reads, memory = self.memory(x)
            return self.out(reads[:, -1] + tf.reduce_mean(memory, axis=1))

    model = Model()
    model.compile("sgd", "mse")
    return fit(model, batches(numbers(23, 5, 3), numbers(23, 2, seed=4)))
