"""Reading text from pictures: convolutions, bidirectional LSTMs, connectionist temporal classification."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, integers, numbers

PICTURES, LABELS = numbers(13, 12, 4, 1), 1 + integers(4, 13, 3)


def body(inputs, classes):
    x = layers.Conv2D(4, 3, activation="relu", kernel_initializer="he_normal", padding="same", name="conv")(inputs)
    x = layers.MaxPooling2D((2, 2), name="pool")(x)
    x = layers.Dense(6, activation="relu")(layers.Reshape((6, 8))(x))
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True, dropout=0.25, seed=1))(
        layers.Dropout(0.2, seed=2)(x)
    )
    return layers.Dense(classes, activation="softmax", name="softmax")(x)


class Loss(layers.Layer):
    """Passes the predictions on and adds the loss, with the labels as an input of the model."""

    def call(self, y_true, y_pred):
        n, steps, length = (ops.cast(ops.shape(a)[i], "int64") for a, i in ((y_true, 0), (y_pred, 1), (y_true, 1)))
        ones = ops.ones((n,), "int64")
        self.add_loss(ops.mean(ops.ctc_loss(y_true, ops.log(y_pred + 1e-7), length * ones, steps * ones, mask_index=0)))
        return y_pred


class RawLoss(layers.Layer):
    """The same by TensorFlow's function, on a sparse tensor."""

    def call(self, y_true, y_pred):
        n = tf.shape(y_true)[0]
        length, steps = tf.shape(y_true)[1] * tf.ones((n,), "int32"), tf.shape(y_pred)[1] * tf.ones((n,), "int32")
        logits = tf.math.log(tf.transpose(y_pred, [1, 0, 2]) + keras.config.epsilon())
        sparse = tf.sparse.from_dense(tf.cast(y_true, "int32"))
        loss = tf.compat.v1.nn.ctc_loss(inputs=logits, labels=sparse, sequence_length=steps)
        self.add_loss(tf.reduce_mean(loss) + 0.0 * tf.cast(tf.reduce_sum(length), "float32"))
        return y_pred


def _with_endpoint(k, endpoint):
    pictures, labels = keras.Input((12, 4, 1), name="image"), keras.Input((None,), name="label")
    model = k.Model([pictures, labels], endpoint(labels, body(pictures, 6)), name="ocr")
    model.compile(keras.optimizers.SGD(0.02, momentum=0.9))
    data = batches({"image": PICTURES, "label": LABELS.astype("float32")})
    return fit(model, data, validation_data=data)


def train(k):
    return _with_endpoint(k, Loss(name="ctc"))


def train_raw(k):
    return _with_endpoint(k, RawLoss(name="ctc"))


def train_compiled_loss(k):
    """`keras.losses.CTC` on logits, targets padded with zeros."""
    x = keras.Input((12, 4, 1))
    h = layers.Reshape((12, 4))(x)
    h = layers.Conv1D(6, 3, padding="same", activation="relu")(h)
    h = layers.Bidirectional(layers.GRU(4, return_sequences=True))(h)
    model = k.Model(x, layers.Dense(6)(h))
    model.compile(keras.optimizers.Adam(1e-2, epsilon=1e-3), keras.losses.CTC())
    labels = LABELS.copy()
    labels[::2, 2] = 0
    return fit(model, PICTURES, labels, batch_size=5)


def train_speech(k):
    """Spectrograms of waves made inside the model, a loss function around `ctc_batch_cost`-like code."""

    def loss(y_true, y_pred):
        n = ops.shape(y_pred)[0]
        steps = ops.full((n,), ops.shape(y_pred)[1], "int32")
        lengths = ops.sum(ops.cast(y_true > 0, "int32"), axis=1)
        return ops.ctc_loss(ops.cast(y_true, "int32"), y_pred, lengths, steps, mask_index=0)

    wave = keras.Input((64,))
    s = layers.Lambda(lambda w: tf.math.pow(tf.abs(tf.signal.stft(w, 16, 4, 16)), 0.5))(wave)
    mean, std = (layers.Lambda(lambda s, f=f: f(s, axis=1, keepdims=True))(s) for f in (ops.mean, ops.std))
    s = layers.Lambda(lambda t: (t[0] - t[1]) / (t[2] + 1e-10))([s, mean, std])
    h = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(6, 3, use_bias=False, padding="same")(s)))
    h = layers.Bidirectional(layers.GRU(4, return_sequences=True, reset_after=True))(h)
    model = k.Model(wave, layers.Dense(6)(h))
    model.compile(keras.optimizers.SGD(0.01), loss)
    labels = np.where(np.arange(3) < 2 + np.arange(13)[:, None] % 2, LABELS, 0)
    return fit(model, batches(numbers(13, 64, seed=5), labels))
