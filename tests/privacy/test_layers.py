"""Private `fit` of every class of layer that owns weights: one example at a time with a tape, and the replay of a step."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropModel
from tests.checking import randomize
from tests.privacy.problem import a_plan, clipped_sum, flat, own_gradients
from tests.rules.test_per_example import LAYERS

N, CLIP = 9, 0.7
EINSUM = (lambda: layers.EinsumDense("abc,cde->abde", (6, 2, 3), bias_axes="de"), LAYERS["EinsumDense"][1])
IN_EVERY_RUN = ("Conv2D", "Embedding", "LSTM", "MultiHeadAttention")


def problem(name):
    """A model around a layer, and examples for it."""
    make, shapes = LAYERS[name] if name != "EinsumDense" else EINSUM
    several = isinstance(shapes, (tuple, list)) and not isinstance(shapes[0], int)
    rng = np.random.default_rng(5)
    if isinstance(shapes, np.ndarray):
        data = (rng.integers(0, 6, (N, *shapes.shape[1:])),)
    else:
        data = tuple(rng.normal(size=(N, *shape[1:])) for shape in (shapes if several else [shapes]))
    keras.utils.set_random_seed(1)
    inputs = [keras.Input(a.shape[1:], dtype="int32" if a.dtype.kind == "i" else "float64") for a in data]
    layer = make()
    # An attention layer takes a list, another several arguments.
    y = layer(inputs) if isinstance(layer, (layers.Attention, layers.AdditiveAttention)) else layer(*inputs)
    model = BackpropModel(inputs, layers.Dense(2)(layers.Flatten()(y)))
    randomize(layer)
    return model, data, rng.normal(size=(N, 2))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in IN_EVERY_RUN else pytest.mark.slow) for name in LAYERS]
)
def test_a_step_of_fit_is_a_loop_over_examples(name, double_precision):
    model, data, targets = problem(name)
    frozen = [layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)]
    for layer in frozen:
        layer.trainable = False
    rng = np.random.default_rng(7)
    weights = rng.uniform(0.5, 2, N)
    plan = a_plan(
        examples=N,
        expected_batch_size=4,
        epochs=1,
        clipping_norm=CLIP,
        noise_multiplier=0,
        delta=0.5,
        sampling="shuffled",
    )
    model.compile(keras.optimizers.SGD(1.0), "mse", gradients=plan)
    start = model.get_weights()
    loss = keras.losses.get("mse")
    for step in range(3):  # the last batch is a third full
        indices, present = (a.numpy() for a in plan.sampler.draw(tf.constant(step, tf.int64)))
        own = [own_gradients(model, loss, tuple(a[i] for a in data), targets[i]) for i in indices[present > 0]]
        total = clipped_sum(own, CLIP, weights[indices[present > 0]])
        before = flat(v.value for v in model.trainable_weights)
        step_of(model, plan, [a[indices] for a in data], targets[indices], weights[indices] * present)
        np.testing.assert_allclose(before - flat(model.trainable_weights), total / 4, rtol=1e-9, atol=1e-10)
    after = model.get_weights()
    model.set_weights(start)
    plan._count.assign(0)
    model.fit(list(data) if len(data) > 1 else data[0], targets, sample_weight=weights, verbose=0)
    assert model.fit_path.compiled
    for one, other in zip(model.get_weights(), after, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-10)


def step_of(model, plan, x, y, weights):
    x = x[0] if len(x) == 1 else x
    model.train_on_batch(x, y, sample_weight=weights)
