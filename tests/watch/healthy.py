"""Trainings in which nothing is wrong, among them some in which values that are no numbers arise and are masked on purpose."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from keras_backprop import BackpropModel, BackpropSequential
from tests.watch.faulty import Does

N = 64


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(N, *shape)).astype("float32")


def classes(count, seed=1):
    return np.random.default_rng(seed).integers(0, count, N)


def stack(*parts, loss="mse", optimizer="adam", shape=(8,), **arguments):
    keras.utils.set_random_seed(4)
    model = BackpropSequential([keras.Input(shape), *parts], name="net")
    model.compile(optimizer, loss, **arguments)
    return model


def relu_classifier():
    parts = layers.Dense(32, "relu"), layers.Dense(32, "relu"), layers.Dense(5, "softmax")
    return stack(*parts, loss="sparse_categorical_crossentropy"), numbers(8), classes(5)


def tanh_regression():
    return stack(layers.Dense(16, "tanh"), layers.Dropout(0.2), layers.Dense(1)), numbers(8), numbers(1)


def sgd_with_momentum():
    return stack(layers.Dense(16, "gelu"), layers.Dense(2), optimizer=keras.optimizers.SGD(0.01, momentum=0.9)), numbers(8), numbers(2)  # fmt: skip


def logistic_regression_from_zeros():
    part = layers.Dense(1, "sigmoid", kernel_initializer="zeros")
    return stack(part, loss="binary_crossentropy"), numbers(8), classes(2)[:, None].astype("float32")


def logits():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return stack(layers.Dense(16, "relu"), layers.Dense(4), loss=loss), numbers(8), classes(4)


def convolutions():
    parts = [
        layers.Conv2D(8, 3, use_bias=False), layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D(),
        layers.Conv2D(16, 3, activation="relu"), layers.GlobalAveragePooling2D(), layers.Dense(3, "softmax"),
    ]  # fmt: skip
    return stack(*parts, loss="categorical_crossentropy", shape=(12, 12, 3)), numbers(12, 12, 3), np.eye(3, dtype="float32")[classes(3)]  # fmt: skip


def pixels_that_are_rescaled():
    parts = (
        layers.Rescaling(1 / 255),
        layers.Conv2D(4, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(3, "softmax"),
    )
    x = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 1)).astype("float32")
    return stack(*parts, loss="sparse_categorical_crossentropy", shape=(8, 8, 1)), x, classes(3)


def residual_tower():
    keras.utils.set_random_seed(0)
    inputs = hidden = keras.Input((16,))
    for _ in range(20):
        hidden = hidden + layers.Dense(16)(layers.Dense(16, "relu")(layers.LayerNormalization()(hidden)))
    model = BackpropModel(inputs, layers.Dense(1)(hidden), name="net")
    model.compile("adam", "mse")
    return model, numbers(16), numbers(1)


def lstm():
    return stack(layers.LSTM(12), layers.Dense(1), shape=(20, 3)), numbers(20, 3), numbers(1)


def words():
    parts = layers.Embedding(50, 8, mask_zero=True), layers.GRU(8), layers.Dense(1, "sigmoid")
    x = np.random.default_rng(0).integers(1, 50, (N, 9))
    x[:, 6:] = 0
    return stack(*parts, loss="binary_crossentropy", shape=(9,)), x, classes(2)[:, None].astype("float32")


def transformer():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((10,), dtype="int32")
    hidden = layers.Embedding(40, 16)(inputs)
    for _ in range(2):
        normed = layers.LayerNormalization()(hidden)
        hidden = hidden + layers.MultiHeadAttention(2, 8)(normed, normed)
        hidden = hidden + layers.Dense(16)(layers.Dense(32, "gelu")(layers.LayerNormalization()(hidden)))
    outputs = layers.Dense(40)(hidden)
    model = BackpropModel(inputs, outputs, name="net")
    model.compile(keras.optimizers.AdamW(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x = np.random.default_rng(0).integers(0, 40, (N, 11))
    return model, x[:, :-1], x[:, 1:]


def autoencoder():
    parts = layers.Dense(12, "relu"), layers.Dense(16, "sigmoid")
    x = np.random.default_rng(0).uniform(size=(N, 16)).astype("float32")
    return stack(*parts, loss="binary_crossentropy", shape=(16,)), x, x


def mixed_precision():
    part = layers.Dense(32, "relu", dtype="mixed_float16"), layers.Dense(1, dtype="float32")
    return stack(*part, optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())), numbers(8), numbers(1)


def missing_values_filled():
    x = numbers(8)
    x[::3, 2] = np.nan
    fill = Does(lambda x: ops.where(ops.isnan(x), 0.0, x), name="fill")
    return stack(fill, layers.Dense(16, "tanh"), layers.Dense(1)), x, numbers(1)


def missing_targets_masked():
    def loss(y, p):
        known = ~ops.isnan(y)
        return ops.sum(ops.where(known, ops.square(ops.where(known, y, 0.0) - p), 0.0), -1)

    y = numbers(2)
    y[::5, 1] = np.nan
    return stack(layers.Dense(16, "tanh"), layers.Dense(2), loss=loss), numbers(8), y


def logarithm_made_safe():
    """log 0 is computed, of data, and replaced."""
    part = Does(lambda x: ops.where(x > 0, ops.log(ops.maximum(x, 0.0)), -1.0), name="log")
    return stack(part, layers.Dense(16, "tanh"), layers.Dense(1)), numbers(8), numbers(1)


def masked_attention():
    """Masked with −∞, and every row sees something."""

    class Attends(layers.Layer):
        def call(self, x):
            scores = ops.matmul(x, ops.transpose(x, (0, 2, 1))) / 3.0
            seen = ops.tril(ops.ones((6, 6))) > 0
            return ops.matmul(ops.softmax(ops.where(seen, scores, -np.inf)), x)

    return stack(layers.Dense(8), Attends(), layers.Dense(1), shape=(6, 4)), numbers(6, 4), numbers(6, 1)


def maximum_of_nothing():
    """A pooling over a set that may be empty starts from −∞, and the empty ones are replaced."""

    def pool(x):
        top = ops.max(ops.where(ops.abs(x) > 3.0, x, -np.inf), -1, keepdims=True)
        return ops.concatenate([x, ops.where(ops.isfinite(top), top, 0.0)], -1)

    return stack(Does(pool, name="pool"), layers.Dense(16, "tanh"), layers.Dense(1)), numbers(8), numbers(1)


def gradients_that_are_cleaned():
    """The model makes NaN of a gradient, and what the optimizer is given has none: that is what the user wants."""

    def cleaned(result):
        return [tf.where(tf.math.is_finite(g), g, tf.zeros_like(g)) for g in result.gradients]

    class Weighted(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1],), initializer="ones", name="w")

        def call(self, x):
            return ops.where(x > 0, ops.log(x * self.w), 0.0)

    x = np.abs(numbers(8))
    x[5] = 0.0
    return stack(Weighted(), layers.Dense(16, "tanh"), layers.Dense(1), gradients=cleaned), x, numbers(1)


def two_outputs():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    hidden = layers.Dense(16, "relu")(inputs)
    outputs = {"a": layers.Dense(1, name="a")(hidden), "b": layers.Dense(3, "softmax", name="b")(hidden)}
    model = BackpropModel(inputs, outputs, name="net")
    model.compile("adam", {"a": "mse", "b": "sparse_categorical_crossentropy"})
    return model, numbers(8), {"a": numbers(1), "b": classes(3)}


def fine_tuning():
    """A base that has been trained, frozen, and a new head."""
    base = stack(layers.Dense(16, "relu"), layers.Dense(8, "relu"), layers.Dense(1))
    base.fit(numbers(8), numbers(1), epochs=60, verbose=0)
    base.pop()
    base.trainable = False
    model = BackpropSequential([keras.Input((8,)), base, layers.Dense(2, name="head")], name="net")
    model.compile("adam", "mse")
    return model, numbers(8), numbers(2)


def weight_decay():
    parts = layers.Dense(16, "relu"), layers.Dense(1)
    return stack(*parts, optimizer=keras.optimizers.AdamW(1e-3, weight_decay=0.01)), numbers(8), numbers(1)


def zeros_at_the_end_of_a_branch():
    """A residual branch and the second factor of LoRA, which begin with zeros as they are meant to."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    hidden = layers.Dense(8, "tanh")(inputs)
    hidden = layers.Dense(8, "tanh", lora_rank=2)(hidden)
    branch = layers.Dense(8, kernel_initializer="zeros")(layers.Dense(8, "relu")(hidden))
    model = BackpropModel(inputs, layers.Dense(1)(layers.Add()([hidden, branch])), name="net")
    model.compile("adam", "mse")
    return model, numbers(8), numbers(1)


def zeros_behind_zeros():
    """A head that begins with zeros, and before it a residual branch that does."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    hidden = layers.Dense(8, "tanh")(inputs)
    branch = layers.Dense(8, kernel_initializer="zeros")(layers.Dense(8, "relu")(hidden))
    head = layers.Dense(1, kernel_initializer="zeros")
    model = BackpropModel(inputs, head(layers.Add()([hidden, branch])), name="net")
    model.compile("adam", "mse")
    return model, numbers(8), numbers(1)


def quantiles_behind_activation_layers():
    def pinball(y, quantiles):  # one target, three numbers
        error, share = y - quantiles, ops.array([0.1, 0.5, 0.9])
        return ops.mean(ops.maximum(share * error, (share - 1) * error), -1)

    parts = [
        layers.Dense(16),
        layers.Activation("sigmoid"),
        layers.Dense(16),
        layers.Activation("tanh"),
        layers.Dense(3),
    ]
    return stack(*parts, layers.Activation("softplus"), loss=pinball), numbers(8), numbers(1)


HEALTHY = [
    relu_classifier, tanh_regression, sgd_with_momentum, logistic_regression_from_zeros, logits, convolutions,
    pixels_that_are_rescaled, residual_tower, lstm, words, transformer, autoencoder, mixed_precision, missing_values_filled,
    missing_targets_masked, logarithm_made_safe, masked_attention, maximum_of_nothing, gradients_that_are_cleaned, two_outputs,
    fine_tuning, weight_decay, zeros_at_the_end_of_a_branch, zeros_behind_zeros,
    quantiles_behind_activation_layers,
]  # fmt: skip


def application(name):
    """A network of `keras.applications`, not trained, for small pictures."""

    def build():
        keras.utils.set_random_seed(0)
        network = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=5)
        model = BackpropModel.from_keras(network)
        model.compile("adam", "sparse_categorical_crossentropy")
        x = np.random.default_rng(0).normal(size=(16, 64, 64, 3)).astype("float32")
        if "Efficient" in name:  # it rescales pixels itself
            x = np.random.default_rng(0).uniform(0, 255, (16, 64, 64, 3)).astype("float32")
        return model, x, classes(5)[:16]

    build.__name__ = name
    return build


def backbone():
    """A small BERT of keras_hub with a head."""
    import keras_hub

    keras.utils.set_random_seed(0)
    bert = keras_hub.models.BertBackbone(
        vocabulary_size=50, num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32, max_sequence_length=12
    )
    outputs = layers.Dense(2)(bert.output["pooled_output"])
    model = BackpropModel(bert.input, outputs, name="net")
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    tokens = np.random.default_rng(0).integers(1, 50, (16, 12))
    x = {"token_ids": tokens, "segment_ids": np.zeros_like(tokens), "padding_mask": np.ones_like(tokens)}
    return model, x, classes(2)[:16]


LARGE = [
    application("MobileNetV2"),
    application("ResNet50"),
    application("EfficientNetB0"),
    application("DenseNet121"),
    backbone,
]
