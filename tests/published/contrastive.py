"""Contrastive learning of two augmented views (NT-Xent), in `keras.ops` with a batch size that is unknown while tracing."""

import keras
from keras import layers, ops

from tests.published import batches, fit, numbers

X = numbers(23, 6, 6, 2)


def train(k):
    class Contrastive(k.Model):
        def __init__(self, temperature=0.2):
            super().__init__()
            self.temperature = temperature
            self.augment = keras.Sequential(
                [layers.GaussianNoise(0.2, seed=1), layers.RandomFlip("horizontal", seed=2)]
            )
            self.encoder = keras.Sequential(
                [layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(6, "relu")]
            )
            self.head = keras.Sequential([layers.Dense(6, "relu"), layers.Dense(4)])
            self.agreement = keras.metrics.SparseCategoricalAccuracy(name="agreement")

        def call(self, x, training=False):
            views = [self.augment(x, training=training) for _ in range(2)]
            return [self.head(self.encoder(view)) for view in views]

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            z = ops.concatenate([ops.normalize(view, axis=-1) for view in y_pred], axis=0)
            n = ops.shape(y_pred[0])[0]
            similar = ops.matmul(z, ops.transpose(z)) / self.temperature - 1e9 * ops.eye(2 * n)
            partner = ops.concatenate([ops.arange(n) + n, ops.arange(n)])
            self.agreement.update_state(partner, similar)
            return ops.mean(keras.losses.sparse_categorical_crossentropy(partner, similar, from_logits=True))

    model = Contrastive()
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-3))
    return fit(model, batches(X))


def train_both_ways(k):
    """The cross-entropy of views against each other in both directions, in a `Loss`, from arrays."""

    class BothWays(keras.losses.Loss):
        def call(self, y_true, y_pred):
            a, b = ops.split(ops.reshape(y_pred, (-1, 2, 4)), 2, axis=1)
            a, b = ops.normalize(ops.squeeze(a, 1), axis=1), ops.normalize(ops.squeeze(b, 1), axis=1)
            s = ops.matmul(a, ops.transpose(b)) / 0.1
            labels = ops.arange(ops.shape(s)[0])
            there = keras.losses.sparse_categorical_crossentropy(labels, s, from_logits=True)
            return there + keras.losses.sparse_categorical_crossentropy(labels, ops.transpose(s), from_logits=True)

    model = k.Sequential([keras.Input((2, 6)), layers.Dense(8, "gelu"), layers.Dense(4), layers.Flatten()])
    model.compile("sgd", BothWays())
    return fit(model, numbers(23, 2, 6), numbers(23, 1), batch_size=5)
