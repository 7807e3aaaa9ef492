"""Several inputs and outputs: dictionaries, nests, weights of losses and samples, shared towers, outputs without a loss."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, integers, numbers

TITLE, BODY, TAGS = integers(9, 23, 4), integers(9, 23, 7, seed=1), (numbers(23, 3) > 0).astype("float32")
PRIORITY, DEPARTMENT = numbers(23, 1, seed=2), np.eye(4, dtype="float32")[integers(4, 23, seed=3)]


def train(k):
    """Tickets: two texts and tags in, a priority and a department out; targets and sample weights as dictionaries."""
    title, body, tags = (
        keras.Input((None,), name="title"),
        keras.Input((None,), name="body"),
        keras.Input((3,), name="tags"),
    )
    x = layers.concatenate(
        [layers.LSTM(4)(layers.Embedding(9, 5)(title)), layers.LSTM(3)(layers.Embedding(9, 5)(body)), tags]
    )
    model = k.Model(
        [title, body, tags],
        {"priority": layers.Dense(1, name="priority")(x), "department": layers.Dense(4, name="department")(x)},
    )
    model.compile(
        keras.optimizers.RMSprop(1e-3, epsilon=1e-3),
        {
            "priority": keras.losses.BinaryCrossentropy(from_logits=True),
            "department": keras.losses.CategoricalCrossentropy(from_logits=True),
        },
        metrics={"department": ["accuracy"], "priority": ["mae"]},
        loss_weights={"priority": 1.0, "department": 0.2},
    )
    return fit(
        model,
        {"title": TITLE, "body": BODY, "tags": TAGS},
        {"priority": (PRIORITY > 0).astype("float32"), "department": DEPARTMENT},
        sample_weight={"priority": abs(numbers(23, seed=4)), "department": np.ones(23, "float32")},
        batch_size=6,
    )


def train_nested(k):
    """A subclass with nests in and out, keyword-only arguments, a layer shared three times, an output nobody trains."""

    class Tower(layers.Layer):
        def __init__(self, units):
            super().__init__()
            self.dense, self.norm = layers.Dense(units, "gelu"), layers.LayerNormalization()

        def call(self, x, *, scale=1.0, training=None):
            return self.norm(self.dense(x)) * scale, ops.mean(x, axis=-1)

    class Nested(k.Model):
        def __init__(self):
            super().__init__()
            self.tower, self.heads = Tower(4), {"a": layers.Dense(1), "b": layers.Dense(4), "unused": layers.Dense(2)}

        def call(self, inputs, training=None):
            first, (second, third) = inputs["first"], inputs["rest"]
            a, mean = self.tower(first, training=training)
            b, _ = self.tower(second, scale=0.5)
            c, _ = self.tower(third, scale=ops.abs(mean)[:, None], training=training)
            self.heads["unused"](a)
            return {"pair": (self.heads["a"](a + b), self.heads["b"](c)), "aside": a - c}

    model = Nested()
    model.compile(
        "adam",
        loss={"pair": ("mse", keras.losses.CategoricalCrossentropy(from_logits=True)), "aside": None},
        steps_per_execution=2,
    )
    x = {"first": numbers(23, 3), "rest": (numbers(23, 3, seed=5), numbers(23, 3, seed=6))}
    return fit(model, batches(x, {"pair": (PRIORITY, DEPARTMENT), "aside": numbers(23, 4)}))


def train_detection(k):
    """A detector: a pyramid of features, heads shared between its levels, a loss of classes and boxes with masks."""

    class Head(layers.Layer):
        def __init__(self, filters):
            super().__init__()
            self.conv, self.out = (
                layers.Conv2D(4, 3, padding="same", activation="relu"),
                layers.Conv2D(filters, 3, padding="same"),
            )
            self.filters = filters

        def call(self, x):
            return ops.reshape(self.out(self.conv(x)), (ops.shape(x)[0], -1, self.filters))

    class Pyramid(layers.Layer):
        def __init__(self):
            super().__init__()
            self.one, self.two = layers.Conv2D(4, 1, 1, "same"), layers.Conv2D(4, 1, 1, "same")
            self.up = layers.UpSampling2D(2)

        def call(self, images, features):
            fine, coarse = features
            coarse = self.two(coarse)
            return self.one(fine) + self.up(coarse), coarse

    class DetectionLoss(keras.losses.Loss):
        def call(self, y_true, y_pred):
            y_pred = tf.cast(y_pred, tf.float32)
            box, scores = y_true[:, :, :4], tf.one_hot(tf.cast(y_true[:, :, 4], tf.int32), depth=3, dtype=tf.float32)
            positive, ignored = (
                tf.cast(y_true[:, :, 4] > -1.0, tf.float32),
                tf.cast(y_true[:, :, 4] == -2.0, tf.float32),
            )
            cross = tf.nn.sigmoid_cross_entropy_with_logits(labels=scores, logits=y_pred[:, :, 4:])
            p = tf.nn.sigmoid(y_pred[:, :, 4:])
            alpha, pt = tf.where(tf.equal(scores, 1.0), 0.25, 0.75), tf.where(tf.equal(scores, 1.0), p, 1 - p)
            focal = tf.reduce_sum(alpha * tf.pow(1.0 - pt, 2.0) * cross, axis=-1)
            difference = box - y_pred[:, :, :4]
            absolute = tf.abs(difference)
            smooth = tf.reduce_sum(tf.where(tf.less(absolute, 1.0), 0.5 * difference**2, absolute - 0.5), axis=-1)
            focal = tf.where(tf.equal(ignored, 1.0), 0.0, focal)
            smooth = tf.where(tf.equal(positive, 1.0), smooth, 0.0)
            normalizer = tf.reduce_sum(positive, axis=-1)
            return tf.math.divide_no_nan(tf.reduce_sum(focal, -1), normalizer) + tf.math.divide_no_nan(
                tf.reduce_sum(smooth, -1), normalizer
            )

    class Detector(k.Model):
        def __init__(self):
            super().__init__()
            x = keras.Input((8, 8, 3))
            a = layers.Conv2D(4, 3, 2, "same", activation="relu")(x)
            b = layers.Conv2D(5, 3, 2, "same", activation="relu")(a)
            self.backbone, self.pyramid = keras.Model(x, [a, b]), Pyramid()
            prior = keras.initializers.Constant(-2.0)
            self.classes, self.boxes = Head(3), Head(4)
            self.classes.out.bias_initializer = prior

        def call(self, image, training=False):
            features = self.pyramid(image, self.backbone(image, training=training))
            classes, boxes = ([head(f) for f in features] for head in (self.classes, self.boxes))
            return tf.concat([tf.concat(boxes, axis=1), tf.concat(classes, axis=1)], axis=-1)

    model = Detector()
    model.compile(keras.optimizers.SGD(0.02, momentum=0.9), DetectionLoss())
    y = np.concatenate([numbers(11, 20, 4), integers(5, 11, 20, 1) - 2], axis=-1).astype("float32")
    return fit(model, batches(numbers(11, 8, 8, 3), y, size=4))
