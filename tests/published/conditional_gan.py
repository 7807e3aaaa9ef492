"""A conditional Wasserstein GAN: labels beside noise and as planes of the picture, a penalty on the gradient of the critic."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from tests.equality import compare
from tests.published import batches, fit, integers, numbers

CLASSES, LATENT = 3, 4
PICTURES, LABELS = numbers(22, 6, 6, 1), np.eye(CLASSES, dtype="float32")[integers(CLASSES, 22)]


def critic(k):
    return k.Sequential(
        [keras.Input((6, 6, 1 + CLASSES)), layers.Conv2D(4, 3, strides=2, activation="softplus"), layers.Flatten(), layers.Dense(1)],
        name="critic",
    )  # fmt: skip


def with_planes(pictures, labels):
    planes = ops.repeat(ops.repeat(labels[:, None, None, :], 6, axis=1), 6, axis=2)
    return ops.concatenate([pictures, planes], axis=-1)


def train(k):
    """The critic: its loss is a `compute_loss` with a tape of the user's own inside, differentiated twice."""

    class Critic(k.Model):
        def __init__(self):
            super().__init__()
            self.critic = critic(k)
            self.seed = keras.random.SeedGenerator(5)

        def call(self, inputs):
            return self.critic(with_planes(inputs["picture"], inputs["label"]))

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            real, labels = y, x["label"]
            share = keras.random.uniform((ops.shape(real)[0], 1, 1, 1), seed=self.seed)
            between = share * real + (1 - share) * x["picture"]
            with tf.GradientTape() as tape:
                tape.watch(between)
                score = self.critic(with_planes(between, labels), training=True)
            slope = tape.gradient(score, between)
            norm = ops.sqrt(ops.sum(ops.square(slope), axis=[1, 2, 3]) + 1e-6)
            penalty = ops.mean((norm - 1.0) ** 2)
            return ops.mean(y_pred) - ops.mean(self.critic(with_planes(real, labels))) + 10.0 * penalty

    model = Critic()
    model.compile(keras.optimizers.SGD(0.02))
    return fit(model, batches({"picture": numbers(22, 6, 6, 1, seed=1), "label": LABELS}, PICTURES))


def train_generator(k):
    """A generator that is conditioned by an embedding, in a functional model over a frozen critic."""
    judge = critic(k)
    judge.trainable = False
    noise, label = keras.Input((LATENT,), name="noise"), keras.Input((), dtype="int32", name="label")
    h = layers.Multiply()([noise, layers.Embedding(CLASSES, LATENT)(label)])
    h = layers.Reshape((3, 3, 2))(layers.Dense(18, activation="relu")(h))
    picture = layers.Conv2DTranspose(1, 3, strides=2, padding="same", activation="tanh", name="picture")(h)
    planes = layers.Lambda(lambda i: ops.tile(ops.one_hot(i, CLASSES)[:, None, None, :], (1, 6, 6, 1)))(label)
    score = judge(layers.Concatenate()([picture, planes]))
    model = k.Model({"noise": noise, "label": label}, {"score": score, "picture": picture})
    model.compile(
        keras.optimizers.RMSprop(1e-3, epsilon=1e-3),
        loss={"score": lambda y, score: -ops.mean(score * y), "picture": "mae"},
        loss_weights={"score": 1.0, "picture": 0.3},
    )
    x = {"noise": numbers(22, LATENT), "label": integers(CLASSES, 22)}
    seen = fit(model, x, {"score": np.ones((22, 1), "float32"), "picture": PICTURES}, batch_size=5)
    return {**seen, "judge": compare.observe(judge)}
