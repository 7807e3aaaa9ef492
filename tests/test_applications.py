"""Real architectures train without a line written for them: all of `keras.applications`, random weights, small inputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import applications, layers

from keras_backprop import BackpropModel
from keras_backprop.check.gradients import explicit_gradients, tape_gradients
from keras_backprop.check.problem import ModelProblem

pytestmark = pytest.mark.usefixtures("double_precision")

SIZES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
BATCH = 4  # with fewer numbers in a batch statistic, the gradients of a random deep net explode
QUICK = ["ResNet50", "MobileNetV3Small", "EfficientNetB0"]
ALL = sorted(name for name in vars(applications) if name[0].isupper())


def test_there_are_forty():
    assert len(ALL) >= 38 and set(QUICK) < set(ALL)


def make(name, cls):
    keras.utils.set_random_seed(0)
    size = SIZES.get(name, 64)
    backbone = getattr(applications, name)(weights=None, include_top=False, input_shape=(size, size, 3), pooling="avg")
    outputs = layers.Dense(3, activation="softmax")(backbone.output)
    model = cls(backbone.input, outputs)
    model.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy")
    random = np.random.default_rng(0)
    return model, random.uniform(size=(BATCH, size, size, 3)), np.array([0, 2, 1, 1])


def params(quick):
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in ALL]


@pytest.mark.parametrize("name", params(QUICK))
def test_gradients_equal_the_tapes(name):
    model, x, y = make(name, keras.Model)
    model._symbolic_build(data_batch=(tf.constant(x), tf.constant(y)))
    problem = ModelProblem(model, x, y, None)
    ours, theirs = explicit_gradients(problem)[0], tape_gradients(problem)
    largest = max(float(tf.reduce_max(tf.abs(g))) for g in theirs if g is not None)
    for variable, a, b in zip(problem.weights, ours, theirs, strict=False):
        assert (a is None) == (b is None), variable.path
        if a is not None:
            scale = max(float(tf.reduce_max(tf.abs(b))), 1e-6 * largest)
            error = float(tf.reduce_max(tf.abs(a - b))) / scale
            assert error <= 1e-8, f"{variable.path}: {error:.1e}"


@pytest.mark.parametrize("name", params(["MobileNetV3Small"]))
def test_one_step_equals_stock(name):
    weights = []
    for cls in (keras.Model, BackpropModel):
        model, x, y = make(name, cls)
        model.train_on_batch(x, y)
        weights.append(model.get_weights())
    for stock, ours in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=1e-8, atol=1e-10)
