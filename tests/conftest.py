"""Quiet, deterministic, on the CPU."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import pytest
import tensorflow as tf

from keras_backprop import _keras, registry


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture
def double_precision():
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


@pytest.fixture
def registry_restored():
    before = dict(registry._rules)
    yield
    registry._rules.clear()
    registry._rules.update(before)
    registry._keys.clear()


@pytest.fixture
def float64_regularizers():
    """Keras 3.12 keeps the λ of L1 as a float32 tensor and cannot itself multiply it by a weight in float64."""
    floatx = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        keras.regularizers.L1(0.1)(tf.ones(1, "float64"))
    except (TypeError, ValueError, tf.errors.InvalidArgumentError):
        pytest.skip(f"Keras {keras.__version__} has no L1 in float64")
    finally:
        keras.config.set_floatx(floatx)


def _too_new(name):
    def skip(*args, **kwargs):
        pytest.skip(f"{name} came after Keras {keras.__version__}")

    return skip


def _of_a_newer_keras(package, names):
    """What an older Keras lacks skips the test that calls it, so that tables of cases can name it."""

    def missing(name):
        if name.lower().replace("_", "") in names:
            return _too_new(f"{package.__name__}.{name}")
        raise AttributeError(f"module {package.__name__!r} has no attribute {name!r}")

    package.__getattr__ = missing


_of_a_newer_keras(keras.ops, {name.lower() for name in _keras.NEWER_OPERATIONS})
_of_a_newer_keras(keras.layers, {name.lower() for name in _keras.NEWER_LAYERS})
