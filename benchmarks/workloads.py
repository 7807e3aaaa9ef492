"""The models whose training is measured."""

import dataclasses
import importlib.util
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops


@dataclasses.dataclass(frozen=True)
class Workload:
    """A model and one batch of data for it.

    Attributes:
        name: str.
        make: function without arguments -> `keras.Model`, not compiled.
        x, y: functions of a `numpy.random.Generator` -> the batch.
        loss: str, as `compile` takes it.
        optimizer: function without arguments -> optimizer.
        limit: float, what the ratio to stock Keras is to stay below.
        xla, eager: bool, whether to measure it compiled by XLA, and uncompiled, too.
        needs: str, the package without which it is left out.
    """

    name: str
    make: Callable
    x: Callable
    y: Callable
    loss: str = "sparse_categorical_crossentropy"
    optimizer: Callable = keras.optimizers.Adam
    limit: float = 1.0
    xla: bool = True
    eager: bool = True
    needs: str = "keras"

    def batch(self):
        random = np.random.default_rng(0)
        return self.x(random), self.y(random)


def mlp(*sizes):
    """A chain of Dense layers with relu, softmax at the end."""
    hidden = [layers.Dense(size, activation="relu") for size in sizes[1:-1]]
    return keras.Sequential([keras.Input((sizes[0],)), *hidden, layers.Dense(sizes[-1], activation="softmax")])


def convnet():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )


def recurrent(layer):
    return keras.Sequential([keras.Input((50, 32)), layer(64), layers.Dense(10, activation="softmax")])


def transformer_block(x, heads, width, inner, causal=False):
    h = layers.LayerNormalization(epsilon=1e-5)(x)
    x = layers.Add()([x, layers.MultiHeadAttention(heads, width // heads)(h, h, use_causal_mask=causal)])
    h = layers.LayerNormalization(epsilon=1e-5)(x)
    return layers.Add()([x, layers.Dense(width)(layers.Dense(inner, activation="gelu")(h))])


def encoder(depth=4, length=64, width=128):
    """A Transformer encoder over vectors, with a classifier on the mean."""
    inputs = x = keras.Input((length, width))
    for _ in range(depth):
        x = transformer_block(x, 4, width, 4 * width)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


def decoder(depth=2, length=64, width=128, words=1000):
    """Shaped as GPT-2, small: token and position tables, causal attention, the next token at every position."""
    inputs = keras.Input((length,), dtype="int32")
    table = layers.ReversibleEmbedding(words, width)
    positions = layers.Embedding(length, width)(keras.ops.arange(length))
    x = layers.Add()([table(inputs), keras.ops.expand_dims(positions, 0)])
    for _ in range(depth):
        x = transformer_block(x, 4, width, 4 * width, causal=True)
    logits = table(layers.LayerNormalization()(x), reverse=True)
    return keras.Model(inputs, layers.Softmax()(logits))


class OpsBlock(layers.Layer):
    """A residual block that people write themselves: normalised, two products, gelu; in `keras.ops`."""

    def build(self, shape):
        width = shape[-1]
        self.scale = self.add_weight(shape=(width,), initializer="ones")
        self.shift = self.add_weight(shape=(width,), initializer="zeros")
        self.up, self.down = self.add_weight(shape=(width, 4 * width)), self.add_weight(shape=(4 * width, width))

    def call(self, x):
        mean = ops.mean(x, -1, keepdims=True)
        variance = ops.var(x, -1, keepdims=True)
        h = (x - mean) / ops.sqrt(variance + 1e-5) * self.scale + self.shift
        return x + ops.matmul(ops.gelu(ops.matmul(h, self.up)), self.down)


class TensorFlowBlock(OpsBlock):
    """The same, in raw TensorFlow."""

    def call(self, x):
        mean, variance = tf.nn.moments(x, -1, keepdims=True)
        h = (x - mean) * tf.math.rsqrt(variance + 1e-5) * self.scale + self.shift
        return x + tf.tensordot(tf.nn.gelu(tf.tensordot(h, self.up, 1)), self.down, 1)


def blocks(block, length=32, width=64):
    """Four blocks of a layer of one's own."""
    pool = layers.GlobalAveragePooling1D()
    return keras.Sequential(
        [keras.Input((length, width)), *(block() for _ in range(4)), pool, layers.Dense(10, "softmax")]
    )


def hub_gpt2(words=1000, length=64):
    """keras_hub's GPT-2 as a causal language model, small, with random weights."""
    import keras_hub

    inputs = {"token_ids": keras.Input((length,), dtype="int32"), "padding_mask": keras.Input((length,), dtype="int32")}
    backbone = keras_hub.models.GPT2Backbone(words, 2, 4, 128, 512, dropout=0.0, max_sequence_length=length)
    x = backbone(inputs)
    return keras.Model(inputs, layers.Softmax()(backbone.token_embedding(x, reverse=True)))


def padded(high, n, length):
    def draw(random):
        mask = (np.arange(length) < random.integers(length // 2, length + 1, (n, 1))).astype("int32")
        return {"token_ids": random.integers(1, high, (n, length)).astype("int32") * mask, "padding_mask": mask}

    return draw


def bag_of_words():
    return keras.Sequential(
        [
            keras.Input((40,), dtype="int32"),
            layers.Embedding(50_000, 64),
            layers.GlobalAveragePooling1D(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def application(name):
    return getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=10)


def normal(*shape):
    return lambda random: random.normal(size=shape).astype("float32")


def integers(high, *shape):
    return lambda random: random.integers(0, high, shape).astype("int32")


def momentum():
    return keras.optimizers.SGD(0.01, momentum=0.9)


_ALL = [
    Workload("digits MLP 64-128-64-10, batch 32", lambda: mlp(64, 128, 64, 10), normal(32, 64), integers(10, 32)),
    Workload("MLP 784-512-512-10, batch 128", lambda: mlp(784, 512, 512, 10), normal(128, 784), integers(10, 128)),
    Workload("convnet 28×28, batch 64", convnet, normal(64, 28, 28, 1), integers(10, 64), xla=False),
    Workload(
        "ResNet50 at 64×64, batch 16", lambda: application("ResNet50"), normal(16, 64, 64, 3), integers(10, 16),
        optimizer=momentum, limit=0.85, xla=False,
    ),
    Workload(
        "MobileNetV2 at 64×64, batch 16", lambda: application("MobileNetV2"), normal(16, 64, 64, 3), integers(10, 16),
        optimizer=momentum, limit=0.85, xla=False,
    ),
    Workload("LSTM classifier, 50 steps", lambda: recurrent(layers.LSTM), normal(32, 50, 32), integers(10, 32)),
    Workload("GRU classifier, 50 steps", lambda: recurrent(layers.GRU), normal(32, 50, 32), integers(10, 32)),
    Workload("Transformer encoder, 4 layers", encoder, normal(16, 64, 128), integers(10, 16), limit=0.85),
    Workload("GPT-2-shaped decoder, 2 layers", decoder, integers(1000, 16, 64), integers(1000, 16, 64)),
    Workload("keras_hub GPT-2, 2 layers", hub_gpt2, padded(1000, 16, 64), integers(1000, 16, 64), limit=0.9, needs="keras_hub"),
    Workload(
        "own block in keras.ops, 4 layers", lambda: blocks(OpsBlock), normal(32, 32, 64), integers(10, 32), limit=0.85,
    ),
    Workload("own block in TensorFlow, 4 layers", lambda: blocks(TensorFlowBlock), normal(32, 32, 64), integers(10, 32)),
    Workload("embedding of 50,000 rows", bag_of_words, integers(50_000, 64, 40), integers(10, 64)),
    Workload(
        "MLP of 64 layers of 16", lambda: mlp(*[16] * 64, 10), normal(32, 16), integers(10, 32),
        optimizer=keras.optimizers.SGD,
    ),
]  # fmt: skip

WORKLOADS = [workload for workload in _ALL if importlib.util.find_spec(workload.needs)]
