"""A vision transformer: patches, a class token broadcast to an unknown batch size, stochastic depth."""

import keras
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, integers, numbers

X, Y = numbers(22, 8, 8, 3), integers(4, 22)


class Patches(layers.Layer):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def call(self, images):
        n, height, width, channels = ops.shape(images)
        patches = ops.image.extract_patches(images, size=self.size)
        return ops.reshape(patches, (n, height * width // self.size**2, self.size**2 * channels))


class Encoder(layers.Layer):
    def __init__(self, count, dim):
        super().__init__()
        self.count = count
        self.projection = layers.Dense(dim)
        self.positions = layers.Embedding(count, dim)

    def call(self, patches):
        positions = ops.expand_dims(ops.arange(0, self.count, 1), axis=0)
        return self.projection(patches) + self.positions(positions)


class ClassToken(layers.Layer):
    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="random_normal", name="token")

    def call(self, x):
        n, dim = ops.shape(x)[0], x.shape[-1]
        return ops.concatenate([ops.broadcast_to(self.token, (n, 1, dim)), x], axis=1)


class RawClassToken(layers.Layer):
    """A `tf.Variable` made in `build`, followed by raw operations."""

    def build(self, shape):
        self.token = tf.Variable(tf.fill((1, 1, shape[-1]), 0.1), trainable=True, name="token")
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        token = tf.cast(tf.broadcast_to(self.token * self.scale, [tf.shape(x)[0], 1, x.shape[-1]]), x.dtype)
        return tf.concat([token, x], 1)


class DropPath(layers.Layer):
    def __init__(self, rate, seed, **options):
        super().__init__(**options)
        self.rate, self.seed = rate, keras.random.SeedGenerator(seed)

    def call(self, x, training=False):
        if not training:
            return x
        shape = (ops.shape(x)[0],) + (1,) * (len(x.shape) - 1)
        keep = ops.floor(1 - self.rate + keras.random.uniform(shape, 0, 1, seed=self.seed))
        return (x / (1 - self.rate)) * keep


def mlp(x, units):
    for n in units:
        x = layers.Dropout(0.1, seed=n)(layers.Dense(n, activation=keras.activations.gelu)(x))
    return x


def build(k, token, augment=True):
    images = keras.Input((8, 8, 3))
    x = images
    if augment:
        x = layers.RandomFlip("horizontal", seed=1)(layers.Normalization(mean=0.1, variance=1.5)(x))
    x = token()(Encoder(16, 6)(Patches(2)(x)))
    for depth in range(2):
        h = layers.LayerNormalization(epsilon=1e-6)(x)
        a = layers.MultiHeadAttention(num_heads=2, key_dim=6, dropout=0.1, seed=depth)(h, h)
        x = layers.Add()([DropPath(0.2, 7 + depth)(a), x])
        x = layers.Add()([mlp(layers.LayerNormalization(epsilon=1e-6)(x), [12, 6]), x])
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    return k.Model(images, layers.Dense(4)(layers.Lambda(lambda x: x[:, 0], output_shape=(6,))(x)))


def train(k):
    model = build(k, ClassToken)
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=1e-4, epsilon=1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(), keras.metrics.SparseTopKCategoricalAccuracy(3)],
    )
    return fit(model, batches(X, Y), evaluate=(X, Y))


def train_raw(k):
    model = build(k, RawClassToken, augment=False)
    model.compile(keras.optimizers.SGD(0.05), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return fit(model, X, Y, batch_size=5)


def train_masked_autoencoder(k):
    """Most patches are hidden by a random order (`argsort`, gathers with batch dimensions); a token stands for them."""

    class PatchEncoder(layers.Layer):
        def __init__(self, dim, share=0.75):
            super().__init__()
            self.dim, self.share, self.seed = dim, share, keras.random.SeedGenerator(5)

        def build(self, shape):
            _, self.count, area = shape
            self.token = self.add_weight(shape=(1, area), initializer="random_normal", name="mask_token")
            self.projection, self.position = layers.Dense(self.dim), layers.Embedding(self.count, self.dim)
            self.hidden = int(self.share * self.count)
            self.projection.build(shape)
            self.position.build((1, self.count))

        def call(self, patches):
            n = tf.shape(patches)[0]
            positions = tf.tile(self.position(tf.range(self.count)[tf.newaxis]), [n, 1, 1])
            embedded = self.projection(patches) + positions
            order = tf.argsort(keras.random.uniform((n, self.count), seed=self.seed), axis=-1)
            hidden, kept = order[:, : self.hidden], order[:, self.hidden :]
            seen = tf.gather(embedded, kept, axis=1, batch_dims=1)
            tokens = tf.repeat(tf.repeat(self.token, self.hidden, axis=0)[tf.newaxis], n, axis=0)
            masked = self.projection(tokens) + tf.gather(positions, hidden, axis=1, batch_dims=1)
            return seen, masked, hidden

    class MAE(k.Model):
        def __init__(self):
            super().__init__()
            self.patches, self.encode = Patches(2), PatchEncoder(6)
            self.block, self.norm, self.decoder = (
                layers.MultiHeadAttention(2, 3),
                layers.LayerNormalization(),
                layers.Dense(12),
            )

        def call(self, images):
            patches = self.patches(images)
            seen, masked, hidden = self.encode(patches)
            x = tf.concat([seen + self.block(seen, seen), masked], axis=1)
            out = self.decoder(self.norm(x + self.block(x, x)))
            return tf.gather(patches, hidden, axis=1, batch_dims=1), out[:, -hidden.shape[1] :]

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(keras.losses.mean_squared_error(*y_pred))

    model = MAE()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9))
    return fit(model, batches(X))


def train_mixed_precision(k):
    """Half precision between, single precision at the ends, the loss scaled by the optimizer."""
    keras.config.set_dtype_policy("mixed_float16")
    images = keras.Input((8, 8, 3))
    x = ClassToken()(Encoder(16, 6)(Patches(2)(images)))
    h = layers.LayerNormalization(epsilon=1e-3)(x)
    x = layers.Add()([layers.MultiHeadAttention(2, 6)(h, h), x])
    out = layers.Dense(4, activation="softmax", dtype="float32")(x[:, 0])
    model = k.Model(images, out)
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    return fit(model, batches(X, Y))
