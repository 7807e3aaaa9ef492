"""Mixing without attention: MLP-Mixer, Fourier transforms, gated MLPs, ConvMixer, pooling, involution, focal modulation."""

import keras
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, integers, numbers

X, Y = numbers(22, 8, 8, 3), integers(4, 22)


class Patches(layers.Layer):
    def __init__(self, size, count, **options):
        super().__init__(**options)
        self.size, self.count = size, count

    def call(self, x):
        patches = ops.image.extract_patches(x, self.size)
        return ops.reshape(patches, [ops.shape(x)[0], self.count, patches.shape[-1]])


class Positions(layers.Layer):
    def __init__(self, length, **options):
        super().__init__(**options)
        self.length = length

    def build(self, shape):
        self.positions = self.add_weight(shape=(self.length, shape[-1]), initializer="glorot_uniform", name="positions")

    def call(self, x, start_index=0):
        shape = ops.shape(x)
        positions = ops.slice(ops.convert_to_tensor(self.positions), (start_index, 0), (shape[1], shape[2]))
        return ops.broadcast_to(positions, shape)


def _train(k, blocks, dim=6, optimizer=None):
    images = keras.Input((8, 8, 3))
    x = layers.Dense(dim)(Patches(2, 16)(images))
    x = x + Positions(16)(x)
    x = layers.Dropout(0.2, seed=1)(layers.GlobalAveragePooling1D()(blocks(x)))
    model = k.Model(images, layers.Dense(4)(x))
    model.compile(
        optimizer or keras.optimizers.AdamW(2e-3, weight_decay=1e-4, epsilon=1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="acc")],
    )
    callbacks = [keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1)]
    return fit(model, batches(X, Y), validation_data=(X, Y), callbacks=callbacks)


class Mixer(layers.Layer):
    def __init__(self, patches, dim):
        super().__init__()
        self.tokens = keras.Sequential(
            [layers.Dense(patches, "gelu"), layers.Dense(patches), layers.Dropout(0.1, seed=1)]
        )
        self.channels = keras.Sequential([layers.Dense(dim, "gelu"), layers.Dense(dim), layers.Dropout(0.1, seed=2)])
        self.normalize = layers.LayerNormalization(epsilon=1e-6)

    def build(self, input_shape):
        return super().build(input_shape)

    def call(self, inputs):
        x = ops.transpose(self.normalize(inputs), axes=(0, 2, 1))
        x = ops.transpose(self.tokens(x), axes=(0, 2, 1)) + inputs
        return x + self.channels(self.normalize(x))


class Fourier(layers.Layer):
    def __init__(self, dim):
        super().__init__()
        self.ffn = keras.Sequential(
            [layers.Dense(dim, activation="gelu"), layers.Dropout(0.1, seed=1), layers.Dense(dim)]
        )
        self.first, self.second = layers.LayerNormalization(epsilon=1e-6), layers.LayerNormalization(epsilon=1e-6)

    def call(self, inputs):
        real, _ = ops.fft2((inputs, ops.zeros_like(inputs)))
        x = self.first(real + inputs)
        return self.second(self.ffn(x) + x)


class RawFourier(layers.Layer):
    def call(self, x):
        real = tf.math.real(tf.signal.fft2d(tf.cast(x, "complex64")))
        inverse = tf.signal.irfft(tf.signal.rfft(x) * tf.complex(0.5, 0.1), fft_length=[x.shape[-1]])
        return real + inverse


class Gated(layers.Layer):
    def __init__(self, patches, dim):
        super().__init__()
        self.first = keras.Sequential([layers.Dense(2 * dim, activation="gelu"), layers.Dropout(0.1, seed=1)])
        self.second, self.spatial = layers.Dense(dim), layers.Dense(patches, bias_initializer="ones")
        self.normalize, self.normalize2 = (
            layers.LayerNormalization(epsilon=1e-6),
            layers.LayerNormalization(epsilon=1e-6),
        )

    def call(self, inputs):
        u, v = tf.split(self.first(self.normalize(inputs)), num_or_size_splits=2, axis=2)
        v = ops.transpose(self.spatial(ops.transpose(self.normalize2(v), (0, 2, 1))), (0, 2, 1))
        return inputs + self.second(u * v)


def train(k):
    return _train(k, keras.Sequential([Mixer(16, 6) for _ in range(2)]))


def train_fourier(k):
    return _train(k, keras.Sequential([Fourier(6), Fourier(6)]), optimizer=keras.optimizers.SGD(1e-2))


def train_raw_fourier(k):
    return _train(k, lambda x: layers.LayerNormalization()(x + RawFourier()(x)), optimizer=keras.optimizers.SGD(1e-2))


def train_gated(k):
    return _train(k, keras.Sequential([Gated(16, 6) for _ in range(2)]))


class Involution(layers.Layer):
    def __init__(self, channel, group, size, reduction, **options):
        super().__init__(**options)
        self.channel, self.group, self.size, self.reduction = channel, group, size, reduction

    def build(self, shape):
        _, self.height, self.width, channels = shape
        self.generate = keras.Sequential(
            [
                layers.Conv2D(channels // self.reduction, 1),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.Conv2D(self.size * self.size * self.group, 1),
            ]
        )
        self.shape = (self.height, self.width, self.size**2, 1, self.group)

    def call(self, x):
        kernel = ops.reshape(self.generate(x), (-1, *self.shape))
        patches = ops.image.extract_patches(
            x, size=(self.size, self.size), strides=(1, 1), dilation_rate=(1, 1), padding="same"
        )
        patches = ops.reshape(
            patches, (-1, self.height, self.width, self.size**2, self.channel // self.group, self.group)
        )
        x = ops.sum(ops.multiply(kernel, patches), axis=3)
        return ops.reshape(x, (-1, self.height, self.width, self.channel)), kernel


class Focal(layers.Layer):
    """Contexts of several sizes, gated and summed, modulate a query."""

    def __init__(self, dim, levels=2):
        super().__init__()
        self.dim, self.levels = dim, levels
        self.initial, self.final = layers.Dense(2 * dim + levels + 1), layers.Conv2D(dim, 1)
        self.focals = [
            keras.Sequential(
                [
                    layers.ZeroPadding2D(1 + i),
                    layers.Conv2D(dim, 3 + 2 * i, activation="gelu", groups=dim, use_bias=False),
                ]
            )
            for i in range(levels)
        ]

    def call(self, x, training=None):
        query, context, gates = ops.split(self.initial(x), [self.dim, 2 * self.dim], axis=-1)
        total = ops.zeros_like(context)
        for i, focal in enumerate(self.focals):
            context = focal(context)
            total = total + context * gates[..., i : i + 1]
        everywhere = keras.activations.gelu(ops.mean(context, axis=(1, 2), keepdims=True))
        self.modulator = self.final(total + everywhere * gates[..., self.levels :])
        return query * self.modulator


def train_pictures(k):
    """ConvMixer, involution with two outputs of which one is dropped, and focal modulation in one network."""
    images = keras.Input((8, 8, 3))
    x = layers.Rescaling(0.5)(images)
    x, _ = Involution(3, 1, 3, 1)(x)
    x = layers.BatchNormalization()(layers.Activation("gelu")(layers.Conv2D(4, 2, strides=2)(x)))
    h = layers.BatchNormalization()(layers.Activation("gelu")(layers.DepthwiseConv2D(3, padding="same")(x)))
    x = layers.Conv2D(4, 1)(layers.Add()([h, x]))
    x = x + Focal(4)(x)
    x = layers.AveragePooling2D(3, 1, padding="same")(x) - x
    model = k.Model(images, layers.Dense(4, "softmax")(layers.GlobalAvgPool2D()(x)))
    model.compile(
        keras.optimizers.Adam(1e-3, epsilon=1e-3), keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"]
    )
    return fit(model, batches(X, Y), evaluate=(X, Y))
