"""Transfer learning: a frozen base with batch normalisation in inference mode, then fine-tuning; adapters; partial freezing."""

import keras
import tensorflow as tf
from keras import layers, ops

from tests.equality import compare
from tests.published import batches, fit, integers, numbers

X, Y = numbers(23, 8, 8, 3), integers(3, 23)


def base():
    x = inputs = keras.Input((8, 8, 3))
    for i, filters in enumerate((4, 5)):
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv_{i}")(x)
        x = layers.BatchNormalization(name=f"bn_{i}")(x)
        x = layers.Activation("swish", name=f"act_{i}")(x)
    model = keras.Model(inputs, x, name="base")
    for w in model.weights:
        w.assign(w + 0.1 * abs(numbers(*w.shape, seed=len(w.shape))))
    return model


def train(k):
    below = base()
    below.trainable = False
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(scale=1 / 2, offset=-0.1)(
        layers.RandomRotation(0.1, seed=1)(layers.RandomFlip("horizontal", seed=2)(inputs))
    )
    x = below(x, training=False)
    x = layers.Dropout(0.2, seed=3)(layers.GlobalAveragePooling2D()(x))
    model = k.Model(inputs, layers.Dense(3)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2, epsilon=1e-3), loss, metrics=["accuracy"])
    first = fit(model, batches(X, Y), epochs=3)
    below.trainable = True
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-3), loss, metrics=["accuracy"])
    return {"first": first, "second": fit(model, batches(X, Y), epochs=3)}


def train_top_layers(k):
    """The last layers are set free, but for those that normalise; both phases from arrays; a learning rate that changes."""
    below = base()
    for layer in below.layers:
        layer.trainable = layer.name == "conv_1"
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalMaxPooling2D()(below(inputs))
    model = k.Model(
        inputs, layers.Dense(3, activation="softmax", kernel_regularizer="l2")(layers.BatchNormalization()(x))
    )
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
    first = fit(
        model, X, Y, batch_size=5, callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch: 0.05 / (1 + epoch))]
    )
    below.get_layer("bn_1").trainable = True
    model.compile("sgd", "sparse_categorical_crossentropy")
    return {"first": first, "second": fit(model, X, Y, batch_size=5)}


def train_low_rank(k):
    """Low-rank adapters beside frozen kernels, as a layer that holds another one; Keras's own LoRA as well."""

    class LowRank(layers.Layer):
        def __init__(self, original, rank=2, alpha=4, **options):
            super().__init__(**options)
            self.original, self.scale = original, alpha / rank
            original.trainable = False
            self.a = layers.Dense(
                rank, use_bias=False, kernel_initializer=keras.initializers.VarianceScaling(2.0, seed=1)
            )
            self.b = layers.EinsumDense("...r,ro->...o", output_shape=(original.units,), kernel_initializer="zeros")
            self.a.build((None, 4, original.units))
            self.b.build((None, 4, rank))

        def call(self, inputs):
            return self.original(inputs) + self.b(self.a(inputs)) * self.scale

    inputs = keras.Input((4, 6))
    dense = layers.Dense(6, "gelu")
    dense.build((None, 4, 6))
    own = layers.Dense(6)
    own.build((None, 4, 6))
    own.enable_lora(2)
    x = inputs + LowRank(dense)(inputs)
    x = own(layers.LayerNormalization()(x))
    model = k.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    model.compile(
        keras.optimizers.AdamW(1e-2, epsilon=1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    return fit(model, batches(numbers(23, 4, 6), Y))


def train_mixed(k):
    """Pictures are mixed in pairs in tf.data; outputs of layers inside the frozen base are tapped; half precision."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    below = base()
    below.trainable = False
    taps = keras.Model(below.input, [below.get_layer(f"act_{i}").output for i in range(2)])

    class Tuned(k.Model):
        def __init__(self):
            super().__init__()
            self.taps, self.pool = taps, layers.GlobalAveragePooling2D()
            self.head = layers.Dense(3, dtype="float32", activation="softmax")

        def call(self, x, training=False):
            return self.head(ops.concatenate([self.pool(t) for t in self.taps(x, training=False)], axis=-1))

    def mix(x, y):
        y = tf.one_hot(y, 3)
        share = tf.reshape(tf.linspace(0.1, 0.9, tf.shape(x)[0]), (-1, 1))
        return x * share[:, :, None, None] + x[::-1] * (1 - share[:, :, None, None]), y * share + y[::-1] * (1 - share)

    model = Tuned()
    model.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
    return {**fit(model, batches(X, Y).map(mix)), "base": compare.observe(below)}
