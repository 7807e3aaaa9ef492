"""Distillation: a student learns from the labels and from a teacher that is called in `compute_loss`."""

import keras
import tensorflow as tf
from keras import layers, ops

from tests.equality import compare
from tests.published import batches, fit, integers, numbers

X, Y = numbers(23, 8, 8, 1), integers(4, 23)


def network(channels, name):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(channels, 3, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.2),
            layers.MaxPooling2D(2, 1, padding="same"),
            layers.Dropout(0.2, seed=channels),
            layers.Flatten(),
            layers.Dense(4),
        ],
        name=name,
    )


def distiller(k):
    class Distiller(k.Model):
        def __init__(self, student, teacher):
            super().__init__()
            self.teacher, self.student = teacher, student
            self.built = True

        def compile(self, optimizer, metrics, student_loss, distillation_loss, alpha=0.1, temperature=3):
            super().compile(optimizer=optimizer, metrics=metrics)
            self.student_loss, self.distillation_loss = student_loss, distillation_loss
            self.alpha, self.temperature = alpha, temperature

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, allow_empty=False, training=True):
            teacher = self.teacher(x, training=False)
            soft = self.distillation_loss(
                ops.softmax(teacher / self.temperature, axis=1), ops.softmax(y_pred / self.temperature, axis=1)
            )
            return self.alpha * self.student_loss(y, y_pred) + (1 - self.alpha) * soft * self.temperature**2

        def call(self, x):
            return self.student(x)

    return Distiller


def _train(k, run_eagerly=False, freeze=True):
    teacher, student = network(8, "teacher"), network(3, "student")
    teacher.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    teacher.fit(X, Y, epochs=1, verbose=0, shuffle=False)
    teacher.trainable = not freeze
    model = distiller(k)(student, teacher)
    model.compile(
        keras.optimizers.Adam(1e-3, epsilon=1e-3),
        [keras.metrics.SparseCategoricalAccuracy()],
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        keras.losses.KLDivergence(),
    )
    model.run_eagerly = run_eagerly
    return {**fit(model, batches(X, Y), evaluate=(X, Y)), "teacher": compare.observe(teacher)}


def train(k):
    return _train(k)


def train_eagerly(k):
    return _train(k, run_eagerly=True)


def train_teacher_too(k):
    """Nobody froze the teacher: the gradient of the distillation reaches its weights as well."""
    return _train(k, freeze=False)


def train_patient_and_consistent(k):
    """The teacher's outputs are targets in the data; noise on the student's input; jit_compile=False; arrays."""
    teacher = network(5, "teacher")
    x = keras.Input((8, 8, 1))
    noisy = layers.GaussianNoise(0.1, seed=3)(layers.RandomTranslation(0.1, 0.1, seed=4)(x))
    model = k.Model(x, network(3, "student")(noisy))
    model.compile(
        keras.optimizers.AdamW(1e-3, weight_decay=0.01, epsilon=1e-3),
        lambda y, p: keras.losses.kl_divergence(tf.nn.softmax(y), tf.nn.softmax(p)),
        jit_compile=False,
    )
    return fit(model, X, teacher.predict(X, verbose=0), batch_size=5)


def train_mutual(k):
    """Two students teach each other: each one's predictions are the other's targets, and nobody stops the gradient."""

    class Mutual(k.Model):
        def __init__(self):
            super().__init__()
            self.first, self.second = network(3, "first"), network(4, "second")
            self.imitate = keras.losses.CategoricalCrossentropy()

        def call(self, x, training=None):
            return ops.softmax(self.first(x, training=training))

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            other = ops.softmax(self.second(x, training=training))
            labels = ops.one_hot(y, 4)
            own = super().compute_loss(x, labels, y_pred) + self.imitate(labels, other)
            return own + super().compute_loss(x, other, y_pred) + 0.5 * self.imitate(y_pred, other)

    model = Mutual()
    model.compile(keras.optimizers.SGD(0.05), keras.losses.CategoricalCrossentropy())
    return fit(model, batches(X, Y))
