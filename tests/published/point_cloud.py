"""PointNet: learned transformations of points, kept orthogonal by a regulariser that uses `tensordot`."""

import keras
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, integers, numbers

POINTS, LABELS = numbers(22, 8, 3), integers(4, 22)


class Orthogonal(keras.regularizers.Regularizer):
    def __init__(self, features, rate=0.001):
        self.features, self.rate = features, rate
        self.eye = ops.eye(features)

    def __call__(self, x):
        x = ops.reshape(x, (-1, self.features, self.features))
        products = ops.tensordot(x, x, axes=(2, 2))
        products = ops.reshape(products, (-1, self.features, self.features))
        return ops.sum(self.rate * ops.square(products - self.eye))


class BatchedOrthogonal(Orthogonal):
    def __call__(self, x):
        x = tf.reshape(x, (-1, self.features, self.features))
        return tf.reduce_sum(self.rate * tf.square(tf.linalg.matmul(x, x, transpose_b=True) - tf.eye(self.features)))


def conv(x, filters, bn=True):
    x = layers.Conv1D(filters, 1, padding="valid")(x)
    return layers.Activation("relu")(layers.BatchNormalization(momentum=0.5)(x) if bn else x)


def tnet(inputs, features, regularizer, bn=True):
    bias = keras.initializers.Constant(ops.reshape(ops.eye(features), (-1,)))
    x = layers.GlobalMaxPooling1D()(conv(conv(inputs, 6, bn), 8, bn))
    x = layers.Dense(
        features * features,
        kernel_initializer="zeros",
        bias_initializer=bias,
        activity_regularizer=regularizer(features),
    )(layers.Dense(6, "relu")(x))
    return layers.Dot(axes=(2, 1))([inputs, layers.Reshape((features, features))(x)])


def build(k, regularizer, bn=True):
    inputs = keras.Input((8, 3))
    x = tnet(inputs, 3, regularizer, bn)
    x = tnet(conv(x, 5, bn), 5, regularizer, bn)
    x = layers.GlobalMaxPooling1D()(conv(x, 7, bn))
    x = layers.Dropout(0.3, seed=1)(layers.Dense(6, "relu")(x))
    return k.Model(inputs, layers.Dense(4, activation="softmax")(x), name="pointnet")


def train(k):
    model = build(k, BatchedOrthogonal)
    model.compile(
        keras.optimizers.Adam(1e-3, epsilon=1e-3),
        "sparse_categorical_crossentropy",
        metrics=["sparse_categorical_accuracy"],
    )
    return fit(model, batches(POINTS, LABELS), evaluate=(POINTS, LABELS))


def train_tensordot(k):
    """All products of all examples, reshaped to as many matrices: only one example a batch makes sense of it, many run."""
    model = build(k, Orthogonal)
    model.compile(keras.optimizers.SGD(1e-2), "sparse_categorical_crossentropy")
    return fit(model, POINTS, LABELS, batch_size=5)


def train_segmentation(k):
    """Every point has a label and a weight of its own; global features are tiled to the points."""
    inputs = keras.Input((8, 3))
    a = conv(tnet(inputs, 3, BatchedOrthogonal), 5)
    b = layers.MaxPooling1D(pool_size=8)(conv(a, 7))
    tiled = layers.Lambda(lambda x: ops.tile(x, (1, 8, 1)), output_shape=(8, 7))(b)
    x = conv(layers.Concatenate()([a, tiled]), 6)
    model = k.Model(inputs, layers.Conv1D(4, 1, activation="softmax")(x))
    model.compile(
        keras.optimizers.Adam(1e-3, epsilon=1e-3), keras.losses.CategoricalCrossentropy(), metrics=["accuracy"]
    )
    y = keras.utils.to_categorical(integers(4, 22, 8, seed=2), 4)
    return fit(model, batches(POINTS, y, abs(numbers(22, 8, seed=3))))
