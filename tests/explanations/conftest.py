"""What several of these tests need."""

import keras
import pytest


@pytest.fixture
def float64():
    """The learning rate and the total loss are in Keras's default dtype."""
    policy = keras.config.dtype_policy()  # made from the default dtype when it is asked for first
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy(policy)
