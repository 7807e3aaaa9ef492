"""Windows that shift: attention inside windows with a table of relative positions, patches that merge."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, integers, numbers

X, Y = numbers(18, 16, 16, 3), keras.utils.to_categorical(integers(3, 18), 3)


def partition(x, size):
    _, height, width, channels = x.shape
    x = ops.reshape(x, (-1, height // size, size, width // size, size, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, size, size, channels))


def reverse(windows, size, height, width, channels):
    x = ops.reshape(windows, (-1, height // size, width // size, size, size, channels))
    return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height, width, channels))


class WindowAttention(layers.Layer):
    def __init__(self, dim, window, heads, **options):
        super().__init__(**options)
        self.dim, self.window, self.heads, self.scale = dim, window, heads, (dim // heads) ** -0.5
        self.qkv, self.projection = layers.Dense(3 * dim), layers.Dense(dim)
        self.dropout = layers.Dropout(0.1, seed=1)
        grid = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij")).reshape(2, -1)
        relative = (grid[:, :, None] - grid[:, None, :]).transpose(1, 2, 0) + window - 1
        self.index = keras.Variable(
            relative[..., 0] * (2 * window - 1) + relative[..., 1], dtype="int32", trainable=False
        )

    def build(self, shape):
        self.table = self.add_weight(shape=((2 * self.window - 1) ** 2, self.heads), initializer="zeros", name="table")
        self.qkv.build(shape)
        self.projection.build(shape)

    def call(self, x, mask=None):
        _, size, channels = x.shape
        qkv = ops.reshape(self.qkv(x), (-1, size, 3, self.heads, channels // self.heads))
        qkv = ops.transpose(qkv, (2, 0, 3, 1, 4))
        q, k, v = qkv[0], qkv[1], qkv[2]
        a = (q * self.scale) @ ops.transpose(k, (0, 1, 3, 2))
        n = self.window**2
        bias = ops.reshape(ops.take(self.table, ops.reshape(self.index, (-1,)), axis=0), (n, n, -1))
        a = a + ops.expand_dims(ops.transpose(bias, (2, 0, 1)), axis=0)
        if mask is not None:
            windows = mask.shape[0]
            mask = ops.cast(ops.expand_dims(ops.expand_dims(mask, axis=1), axis=0), "float32")
            a = ops.reshape(a, (-1, windows, self.heads, size, size)) + mask
            a = ops.reshape(a, (-1, self.heads, size, size))
        x = ops.transpose(self.dropout(keras.activations.softmax(a, axis=-1)) @ v, (0, 2, 1, 3))
        return self.projection(ops.reshape(x, (-1, size, channels)))


class Swin(layers.Layer):
    def __init__(self, dim, patches, heads, window, shift, **options):
        super().__init__(**options)
        self.dim, self.patches, self.window, self.shift = dim, patches, window, shift
        self.norms = [layers.LayerNormalization(epsilon=1e-5), layers.LayerNormalization(epsilon=1e-5)]
        self.attention = WindowAttention(dim, window, heads)
        self.drop = layers.Dropout(0.1, noise_shape=(None, 1, 1), seed=3)
        self.mlp = keras.Sequential(
            [layers.Dense(8), layers.Activation("gelu"), layers.Dropout(0.1, seed=2), layers.Dense(dim)]
        )

    def build(self, shape):
        self.mask = None
        if self.shift:
            height, width = self.patches
            slices = (slice(0, -self.window), slice(-self.window, -self.shift), slice(-self.shift, None))
            regions, count = np.zeros((1, height, width, 1)), 0
            for h in slices:
                for w in slices:
                    regions[:, h, w, :] = count
                    count += 1
            windows = ops.reshape(partition(ops.convert_to_tensor(regions), self.window), [-1, self.window**2])
            difference = ops.expand_dims(windows, axis=1) - ops.expand_dims(windows, axis=2)
            mask = ops.where(difference != 0, -100.0, difference)
            self.mask = keras.Variable(ops.where(mask == 0, 0.0, mask), trainable=False, name="mask")

    def call(self, x, training=False):
        height, width = self.patches
        _, count, channels = x.shape
        skip = x
        x = ops.reshape(self.norms[0](x), (-1, height, width, channels))
        if self.shift:
            x = ops.roll(x, shift=[-self.shift, -self.shift], axis=[1, 2])
        windows = ops.reshape(partition(x, self.window), (-1, self.window**2, channels))
        windows = self.attention(windows, mask=self.mask)
        x = reverse(
            ops.reshape(windows, (-1, self.window, self.window, channels)), self.window, height, width, channels
        )
        if self.shift:
            x = ops.roll(x, shift=[self.shift, self.shift], axis=[1, 2])
        x = skip + self.drop(ops.reshape(x, (-1, height * width, channels)), training=training)
        return x + self.drop(self.mlp(self.norms[1](x)))


class Merge(layers.Layer):
    def __init__(self, patches, dim):
        super().__init__()
        self.patches, self.linear = patches, layers.Dense(2 * dim, use_bias=False)

    def call(self, x):
        height, width = self.patches
        x = ops.reshape(x, (-1, height, width, x.shape[-1]))
        parts = [x[:, i::2, j::2, :] for j in (0, 1) for i in (0, 1)]
        x = ops.reshape(ops.concatenate(parts, axis=-1), (-1, height // 2 * (width // 2), 4 * x.shape[-1]))
        return self.linear(x)


class Embed(layers.Layer):
    def __init__(self, count, dim):
        super().__init__()
        self.count, self.projection, self.position = count, layers.Dense(dim), layers.Embedding(count, dim)

    def call(self, patch):
        return self.projection(patch) + self.position(ops.arange(start=0, stop=self.count))


def train(k):
    """Patches are cut by TensorFlow, in `call` of a layer; label smoothing; decoupled weight decay."""

    class Cut(layers.Layer):
        def call(self, images):
            patches = tf.image.extract_patches(images, (1, 2, 2, 1), (1, 2, 2, 1), (1, 1, 1, 1), "VALID")
            return tf.reshape(patches, (tf.shape(images)[0], 64, 12))

    images = keras.Input((16, 16, 3))
    x = Embed(64, 4)(Cut()(images))
    x = Swin(4, (8, 8), 2, 4, 0)(x)
    x = Swin(4, (8, 8), 2, 4, 2)(x)
    x = layers.GlobalAveragePooling1D()(Merge((8, 8), 4)(x))
    model = k.Model(images, layers.Dense(3, activation="softmax")(x))
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=1e-4, epsilon=1e-3),
        keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics=["accuracy"],
    )
    return fit(model, batches(X, Y), validation_data=(X, Y))


def train_tokens(k):
    """Pooling of tokens by a convolution over a reshaped sequence, and attention that weighs the sequence itself."""
    images = keras.Input((16, 16, 3))
    x = layers.ZeroPadding2D(1)(images)
    x = layers.MaxPool2D(3, 2, "same")(layers.Conv2D(4, 3, 2, "valid", use_bias=False, activation="relu")(x))
    x = layers.Lambda(lambda t: ops.reshape(t, (-1, t.shape[1] * t.shape[2], t.shape[3])))(x)
    x = x + layers.Embedding(x.shape[1], 4)(ops.arange(x.shape[1]))
    h = layers.LayerNormalization(epsilon=1e-5)(x)
    x = x + layers.Dropout(0.2, noise_shape=(None, 1, 1), seed=5)(layers.MultiHeadAttention(2, 2)(h, h))
    weights = ops.softmax(layers.Dense(1)(x), axis=1)
    x = ops.squeeze(ops.matmul(ops.transpose(weights, (0, 2, 1)), x), -2)
    model = k.Model(images, layers.Dense(3)(x))
    model.compile(keras.optimizers.SGD(0.05), keras.losses.CategoricalCrossentropy(from_logits=True))
    return fit(model, X, Y, batch_size=5)
