"""The rules of `rules/layers/reshaping.py`."""

import numpy as np
import pytest
from keras import layers

from tests.checking import Case, check_rule

CASES = [
    Case("reshape", lambda: layers.Reshape((2, 6)), ((3, 4, 3),)),
    Case("reshape-unknown", lambda: layers.Reshape((-1, 2)), ((3, 4, 3),)),
    Case("reshape-flat", lambda: layers.Reshape((-1,)), ((3, 4, 3),)),
    Case("reshape-to-nothing", lambda: layers.Reshape(()), ((3, 1),)),
    Case("flatten", lambda: layers.Flatten(), ((3, 4, 2, 3),)),
    Case("flatten-vector", lambda: layers.Flatten(), ((3,),)),
    Case("flatten-matrix", lambda: layers.Flatten(data_format="channels_first"), ((3, 4),)),
    Case("flatten-first", lambda: layers.Flatten(data_format="channels_first"), ((3, 4, 2, 5),)),
    Case("flatten-first-line", lambda: layers.Flatten(data_format="channels_first"), ((3, 4, 2),)),
    Case("flatten-first-volume", lambda: layers.Flatten(data_format="channels_first"), ((2, 3, 2, 4, 3),)),
    Case("permute", lambda: layers.Permute((2, 1)), ((3, 4, 2),)),
    Case("permute-cycle", lambda: layers.Permute((2, 3, 1)), ((3, 4, 2, 5),)),
    Case("permute-nothing", lambda: layers.Permute((1, 2)), ((3, 4, 2),)),
    Case("repeat", lambda: layers.RepeatVector(4), ((3, 2),)),
    Case("repeat-once", lambda: layers.RepeatVector(1), ((3, 2),)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_unknown_sizes(data_format):
    """Several axes may be unknown when the step is compiled."""
    import tensorflow as tf

    from keras_backprop.chain.record import Record
    from keras_backprop.chain.sweep import sweep

    layer = layers.Flatten(data_format=data_format, dtype="float64")

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 2], tf.float64)])
    def gradient(x):
        record = Record()
        y = record.run(layer, x)
        return sweep(record.calls, [(y, tf.square(y))], inputs=[x]).input_gradient(x)

    for shape in [(2, 3, 4, 2), (3, 1, 5, 2)]:
        x = np.random.default_rng(0).normal(size=shape)
        np.testing.assert_allclose(gradient(x), x**2)
