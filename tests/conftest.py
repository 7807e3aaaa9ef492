"""Quiet, deterministic, on the CPU."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import pytest
import tensorflow as tf

from keras_backprop import _keras


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture
def float64_regularizers():
    """Keras 3.12 keeps the λ of L1 as a float32 tensor and cannot itself multiply it by a weight in float64."""
    if tf.is_tensor(keras.regularizers.L1(0.1).l1):
        pytest.skip(f"Keras {keras.__version__} has no L1 in float64")


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
