"""The rules of `rules/layers/adaptive_pooling.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, check_rule

LINE, IMAGE, VOLUME = ((2, 9, 3),), ((2, 7, 6, 3),), ((2, 5, 4, 6, 2),)
FIRST = {"data_format": "channels_first"}

SIZES = {
    "line": (LINE, {"thirds": 3, "overlap": 4, "all": 9}, layers.AdaptiveMaxPooling1D, layers.AdaptiveAveragePooling1D),
    "image": (IMAGE, {"same": 3, "overlap": (4, 5)}, layers.AdaptiveMaxPooling2D, layers.AdaptiveAveragePooling2D),
    "volume": (VOLUME, {"same": 2, "overlap": (3, 2, 4)}, layers.AdaptiveMaxPooling3D, layers.AdaptiveAveragePooling3D),
}
CASES = [
    Case(f"{kind.__name__}-{name}", lambda kind=kind, size=size, options=options: kind(size, **options), inputs)
    for inputs, sizes, *kinds in SIZES.values()
    for kind in kinds
    for name, size, options in [*((name, size, {}) for name, size in sizes.items()), ("first", 2, FIRST)]
] + [
    # TensorFlow has no kernel for a window wider than the line, which Keras asks for here.
    Case(f"{kind.__name__}-{size}", lambda kind=kind, size=size: kind(size), LINE)
    for kind, size in [
        (layers.AdaptiveMaxPooling1D, 11),  # a size of 1 ends stock Keras's process: a division by zero in TensorFlow
        (layers.AdaptiveAveragePooling1D, 1),
        (layers.AdaptiveAveragePooling1D, 11),
    ]
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


@pytest.mark.parametrize("size", [3, (4, 5)])
def test_ties_go_where_the_tape_sends_them(size):
    tied = np.random.default_rng(0).integers(0, 3, (2, 7, 6, 2)).astype("float64")
    check_rule(Case("ties", lambda: layers.AdaptiveMaxPooling2D(size), (tied,), differences=False))


@pytest.mark.parametrize("kind", [layers.AdaptiveMaxPooling2D, layers.AdaptiveAveragePooling2D])
def test_the_batch_may_be_unknown(kind):
    layer, x = kind((3, 4)), tf.random.normal((2, 7, 6, 3))

    def gradient(x):
        record = Record()
        y = record.run(layer, x)
        return sweep(record.calls, [(y, tf.sin(y))], inputs=[x]).input_gradient(x)

    compiled = tf.function(gradient, input_signature=[tf.TensorSpec((None, 7, 6, 3))])
    np.testing.assert_allclose(compiled(x), gradient(x), rtol=1e-5, atol=1e-6)
