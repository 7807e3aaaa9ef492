"""Small things that private training is tried on."""

import warnings

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropSequential, privacy

X = np.random.default_rng(0).normal(size=(40, 5)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 40)


def a_plan(**options):
    """A plan for these data, with a seed."""
    settings = {
        "examples": 40, "expected_batch_size": 8, "epochs": 3, "clipping_norm": 0.5, "noise_multiplier": 1.0, "delta": 1e-3, "seed": 3,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return privacy.Plan(**settings | options)


def a_model(plan=None, optimizer=None, loss="sparse_categorical_crossentropy", **options):
    keras.utils.set_random_seed(4)
    model = BackpropSequential(
        [keras.Input((5,)), layers.Dense(6, "tanh", name="hidden"), layers.Dense(3, "softmax", name="out")]
    )
    optimizer = keras.optimizers.SGD(0.1) if optimizer is None else optimizer
    model.compile(optimizer, loss, gradients=plan, **options)
    return model


def own_gradients(model, loss, x, y):
    """The gradient of one example's error by a tape: list of arrays."""
    inputs = tuple(a[None] for a in x) if isinstance(x, tuple) else x[None]
    variables = [v.value for v in model.trainable_weights]
    with tf.GradientTape() as tape:
        error = tf.reduce_mean(loss(tf.convert_to_tensor(y)[None], model(inputs, training=True)))
    return [
        np.zeros(v.shape) if g is None else tf.convert_to_tensor(g).numpy()
        for g, v in zip(tape.gradient(error, variables), variables, strict=True)
    ]


def clipped_sum(gradients, norm, weights=None):
    """Σ clip(wᵢ·gᵢ) over the examples, of lists of arrays."""
    total = 0
    for i, gradient in enumerate(gradients):
        flat = np.concatenate([np.ravel(g) for g in gradient]).astype("float64") * (
            1 if weights is None else weights[i]
        )
        total = total + flat * min(1, norm / max(np.linalg.norm(flat), 1e-300))
    return total


def flat(arrays):
    return np.concatenate([np.ravel(keras.ops.convert_to_numpy(a)) for a in arrays])
