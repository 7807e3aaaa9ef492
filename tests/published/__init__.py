"""Training scripts in the styles in which people write them, one module for each style.

Every function `train…(k)` builds its model on the classes `k.Model` and `k.Sequential`, trains it, and returns what is to be seen
of it afterwards.
"""

import numpy as np
import tensorflow as tf

from tests.equality import compare


def numbers(*shape, seed=0):
    """Normally distributed numbers in single precision, the same every time."""
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def integers(high, *shape, seed=0):
    """Integers below `high`, the same every time."""
    return np.random.default_rng(seed).integers(0, high, size=shape)


def batches(*data, size=5):
    """A `tf.data.Dataset` of batches whose last is uneven: its number of rows is unknown while the step is traced."""
    data = data[0] if len(data) == 1 else data
    return tf.data.Dataset.from_tensor_slices(data).batch(size)


def fit(model, *data, evaluate=None, **options):
    """Train, and return what can be observed."""
    history = model.fit(*data, **{"epochs": 5, "shuffle": False, "verbose": 0, **options})
    more = {} if evaluate is None else {"evaluated": model.evaluate(*evaluate, verbose=0, return_dict=True)}
    return compare.observe(model, history, **more)
