"""Quiet, deterministic, on the CPU."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
# Stock Keras's convolutions in groups, dilated or with channels first exist on a CPU in oneDNN alone, which TensorFlow turns on by
# itself for some processors only.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import pytest

from keras_backprop import registry
from keras_backprop.training.sharing import equal_models


def pytest_collection_finish(session):
    """Tracing makes cyclic objects by the thousand: look for garbage less often, and never among what was imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Of a test that is marked `sample(n)`, n sets of parameters, evenly spread, belong to every run; the others are slow."""
    tests: dict = {}
    for item in items:
        tests.setdefault(item.nodeid.split("[")[0], []).append(item)
    for sets in tests.values():
        marker = sets[0].get_closest_marker("sample")
        if marker is not None and marker.args[0] < len(sets):
            kept = {i * len(sets) // marker.args[0] for i in range(marker.args[0])}
            for place in set(range(len(sets))) - kept:
                sets[place].add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def _traced_anew():
    """A test that exchanges something inside the package must not be given what another test has traced."""
    equal_models.forget()


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
    before = registry.current()
    yield
    registry.hold(before)
