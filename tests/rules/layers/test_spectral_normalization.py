"""The rules of `rules/layers/spectral_normalization.py`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, check_rule, normal


def dense(**options):
    return lambda: layers.SpectralNormalization(layers.Dense(3, activation="tanh"), **options)


CASES = [
    Case("dense-training", dense(), kwargs={"training": True}),
    Case("dense-inference", dense()),
    Case("dense-iterations", dense(power_iterations=3), kwargs={"training": True}),
    Case("einsum", lambda: layers.SpectralNormalization(layers.EinsumDense("ab,bc->ac", 3)), kwargs={"training": True}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_kernel_state_and_gradients_as_stock_keras(compiled, zeros, policy):
    """The kernel is assigned in the forward pass; the tape's gradient is that of the new kernel."""
    x, results = tf.constant(normal(4, 5), tf.float32), []
    for explicit in (False, True):
        keras.utils.set_random_seed(3)
        layer = layers.SpectralNormalization(layers.Dense(3, dtype=policy), dtype=policy)
        layer.build(x.shape)
        if zeros:
            layer.kernel.assign(tf.zeros_like(layer.kernel))

        def step(layer=layer, explicit=explicit):
            weights = layer.trainable_variables
            if explicit:
                record = Record()
                y = record.run(layer, x, training=True)
                result = sweep(record.calls, [(y, y)], weights, [x])
                return y, [result.input_gradient(x), *(result.gradient(w) for w in weights)]
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
            return y, tape.gradient(y, [x, *(w.value for w in weights)], y)

        for _ in range(2):
            y, gradients = tf.function(step)() if compiled else step()
        results.append([y, *gradients, *(v.value for v in layer.variables)])
    for theirs, ours in zip(*results, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(tf.cast(ours, "float32"), tf.cast(theirs, "float32"), rtol=1e-5, atol=1e-6)
