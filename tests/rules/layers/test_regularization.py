"""The rules of `rules/layers/regularization.py`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, regularizers

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, check_rule, normal

LAYERS = {
    "dropout": (lambda: layers.Dropout(0.4, seed=3), (5, 6)),
    "dropout-noise-shape": (lambda: layers.Dropout(0.4, noise_shape=(None, 1, 3), seed=3), (4, 5, 3)),
    "dropout-noise-shape-fixed": (lambda: layers.Dropout(0.4, noise_shape=(1, 5, 1), seed=3), (4, 5, 3)),
    "dropout-none": (lambda: layers.Dropout(0.0), (4, 5)),
    "dropout-all": (lambda: layers.Dropout(1.0, seed=3), (4, 5)),
    "spatial-1": (lambda: layers.SpatialDropout1D(0.5, seed=3), (4, 3, 5)),
    "spatial-2": (lambda: layers.SpatialDropout2D(0.5, seed=3), (4, 3, 2, 5)),
    "spatial-2-first": (lambda: layers.SpatialDropout2D(0.5, data_format="channels_first", seed=3), (4, 5, 3, 2)),
    "spatial-3": (lambda: layers.SpatialDropout3D(0.5, seed=3), (2, 3, 2, 2, 5)),
    "spatial-3-first": (lambda: layers.SpatialDropout3D(0.5, data_format="channels_first", seed=3), (2, 5, 3, 2, 2)),
    "spatial-none": (lambda: layers.SpatialDropout1D(0.0), (4, 3, 5)),
    "alpha": (lambda: layers.AlphaDropout(0.4, seed=3), (5, 6)),
    "alpha-noise-shape": (lambda: layers.AlphaDropout(0.4, noise_shape=(None, 1, 3), seed=3), (4, 5, 3)),
    "alpha-none": (lambda: layers.AlphaDropout(0.0), (4, 5)),
    "gaussian-dropout": (lambda: layers.GaussianDropout(0.4, seed=3), (5, 6)),
    "gaussian-dropout-none": (lambda: layers.GaussianDropout(0.0), (4, 5)),
    "gaussian-noise": (lambda: layers.GaussianNoise(0.4, seed=3), (5, 6)),
    "gaussian-noise-none": (lambda: layers.GaussianNoise(0.0), (4, 5)),
}  # fmt: skip
CASES = [
    Case(f"{name}-{'training' if training else 'inference'}", make, (shape,), {"training": training})
    for name, (make, shape) in LAYERS.items()
    for training in (True, False)
] + [
    Case("activity", lambda: layers.ActivityRegularization(l1=0.1, l2=0.2)),
    Case("activity-none", lambda: layers.ActivityRegularization()),
    Case("penalised-dropout", lambda: layers.Dropout(0.4, activity_regularizer=regularizers.L2(0.1)), kwargs={"training": True}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


@pytest.mark.parametrize("name", [name for name in LAYERS if not name.endswith("none")])
@pytest.mark.parametrize("policy", ["float32", "mixed_float16", "mixed_bfloat16"])
def test_the_layers_own_random_numbers_are_drawn_once(name, policy):
    keras.config.set_dtype_policy(policy)
    try:
        make, shape = LAYERS[name]
        stock, recorded = make(), make()
    finally:
        keras.config.set_dtype_policy("float32")
    x = tf.cast(normal(*shape), stock.compute_dtype)
    for _ in range(2):
        expected = stock(x, training=True)
        y = Record().run(recorded, x, training=True)
        assert y.dtype == expected.dtype
        tolerance = {"float32": 1e-6, "float16": 4e-3, "bfloat16": 4e-2}[stock.compute_dtype]
        np.testing.assert_allclose(tf.cast(y, "float32"), tf.cast(expected, "float32"), atol=tolerance)
        np.testing.assert_array_equal(recorded.seed_generator.state, stock.seed_generator.state)


def test_the_unknown_batch_size_of_a_compiled_step():
    layer = layers.Dropout(0.5, noise_shape=(None, 1, 3), seed=1)

    @tf.function(input_signature=[tf.TensorSpec([None, 4, 3])])
    def step(x):
        record = Record()
        y = record.run(layer, x, training=True)
        return y, sweep(record.calls, [(y, x)], (), [x]).input_gradient(x)

    y, dx = step(tf.ones([5, 4, 3]))
    np.testing.assert_array_equal(y, dx)
    assert set(np.unique(y)) == {0, 2}
