"""The rules of `rules/layers/pooling.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import kernels
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, check_rule, normal

LINE, IMAGE, VOLUME = ((3, 9, 4),), ((3, 7, 6, 4),), ((2, 5, 4, 6, 3),)
FIRST = {"data_format": "channels_first"}
MASK = np.array([[1, 1, 0, 1, 0, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1, 1, 1, 1]], bool)

WINDOWS = [
    Case(f"{kind.__name__}-{name}", lambda kind=kind, options=options: kind(**options), inputs)
    for kinds, name, inputs, options in [
        ((layers.MaxPooling1D, layers.AveragePooling1D), "line", LINE, {"pool_size": 2}),
        ((layers.MaxPooling1D, layers.AveragePooling1D), "overlap", LINE, {"pool_size": 3, "strides": 2}),
        ((layers.MaxPooling1D, layers.AveragePooling1D), "same", LINE, {"pool_size": 4, "padding": "same"}),
        ((layers.MaxPooling1D, layers.AveragePooling1D), "first", LINE, {"pool_size": 2, "strides": 1, **FIRST}),
        ((layers.MaxPooling2D, layers.AveragePooling2D), "image", IMAGE, {"pool_size": 2}),
        ((layers.MaxPooling2D, layers.AveragePooling2D), "overlap", IMAGE, {"pool_size": (3, 2), "strides": (1, 2)}),
        (
            (layers.MaxPooling2D, layers.AveragePooling2D),
            "same",
            IMAGE,
            {"pool_size": (2, 3), "strides": (2, 1), "padding": "same"},
        ),
        ((layers.MaxPooling2D, layers.AveragePooling2D), "gaps", IMAGE, {"pool_size": 1, "strides": 3}),
        ((layers.MaxPooling2D, layers.AveragePooling2D), "first", IMAGE, {"pool_size": 2, "padding": "same", **FIRST}),
        ((layers.MaxPooling3D, layers.AveragePooling3D), "volume", VOLUME, {"pool_size": 2}),
        (
            (layers.MaxPooling3D, layers.AveragePooling3D),
            "same",
            VOLUME,
            {"pool_size": (2, 3, 1), "strides": (1, 2, 2), "padding": "same"},
        ),
        ((layers.MaxPooling3D, layers.AveragePooling3D), "first", VOLUME, {"pool_size": 2, "strides": 1, **FIRST}),
    ]
    for kind in kinds
]

GLOBAL = [
    Case(f"{kind.__name__}-{name}", lambda kind=kind, options=options: kind(**options), inputs)
    for kinds, inputs in [
        ((layers.GlobalMaxPooling1D, layers.GlobalAveragePooling1D), LINE),
        ((layers.GlobalMaxPooling2D, layers.GlobalAveragePooling2D), IMAGE),
        ((layers.GlobalMaxPooling3D, layers.GlobalAveragePooling3D), VOLUME),
    ]
    for kind in kinds
    for name, options in [("plain", {}), ("keepdims", {"keepdims": True}), ("first", FIRST)]
] + [
    Case("first-keepdims", lambda: layers.GlobalMaxPooling2D(keepdims=True, **FIRST), IMAGE),
    Case("first-keepdims-average", lambda: layers.GlobalAveragePooling2D(keepdims=True, **FIRST), IMAGE),
    Case("mask", lambda: layers.GlobalAveragePooling1D(), LINE, {"mask": MASK}),
    Case("mask-keepdims", lambda: layers.GlobalAveragePooling1D(keepdims=True), LINE, {"mask": MASK}),
    Case("mask-first", lambda: layers.GlobalAveragePooling1D(**FIRST), ((3, 4, 9),), {"mask": MASK}),
    Case("mask-of-numbers", lambda: layers.GlobalAveragePooling1D(), LINE, {"mask": MASK.astype("int32")}),
]


@pytest.mark.parametrize("case", WINDOWS, ids=lambda case: case.name)
def test_window(case):
    check_rule(case)


@pytest.mark.parametrize("case", GLOBAL, ids=lambda case: case.name)
def test_global(case):
    check_rule(case)


TIED = np.repeat(np.random.default_rng(0).integers(0, 3, (2, 8, 8, 1)).astype("float64"), 2, axis=-1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.MaxPooling2D(3, strides=2, padding="same"),
        lambda: layers.MaxPooling2D(2, **FIRST),
        lambda: layers.GlobalMaxPooling2D(),
    ],
)
def test_ties_go_where_the_tape_sends_them(make):
    check_rule(Case("ties", make, (TIED,), differences=False))


def test_a_row_that_the_mask_hides_as_a_whole_gets_no_gradient():
    layer, x = layers.GlobalAveragePooling1D(), tf.random.normal((2, 3, 4))
    mask = tf.constant([[True, True, False], [False, False, False]])
    record = Record()
    y = record.run(layer, x, mask=mask)
    dx = sweep(record.calls, [(y, tf.ones_like(y))], inputs=[x]).input_gradient(x)
    np.testing.assert_array_equal(dx[0, :, 0], [0.5, 0.5, 0.0])
    np.testing.assert_array_equal(dx[1], np.zeros((3, 4)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.MaxPooling2D(3, strides=2, padding="same"),
        lambda: layers.AveragePooling2D(2),
        lambda: layers.GlobalMaxPooling2D(),
        lambda: layers.GlobalAveragePooling2D(keepdims=True),
    ],
)
def test_sizes_may_be_unknown(make):
    layer, x = make(), tf.random.normal((2, 7, 6, 3))

    def gradient(x):
        record = Record()
        y = record.run(layer, x)
        return sweep(record.calls, [(y, tf.sin(y))], inputs=[x]).input_gradient(x)

    compiled = tf.function(gradient, input_signature=[tf.TensorSpec((None, None, None, 3))])
    np.testing.assert_allclose(compiled(x), gradient(x), rtol=1e-5, atol=1e-6)


def test_half_precision_averages_as_keras_does():
    """In single precision: 2401 has more digits than bfloat16."""
    layer = layers.GlobalAveragePooling2D(dtype="bfloat16")
    x = tf.ones((1, 49, 49, 2), "bfloat16")
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    record = Record()
    z = record.run(layer, x)
    dx = sweep(record.calls, [(z, tf.ones_like(z))], inputs=[x]).input_gradient(x)
    assert dx.dtype == tf.bfloat16
    np.testing.assert_array_equal(tf.cast(dx, "float32"), tf.cast(tape.gradient(y, x), "float32"))


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_many_numbers_with_equal_ones_eagerly(padding):
    """The kernels that note where the largest are agree with the one that looks for them anew, also on which is the first."""
    x = tf.constant(np.random.default_rng(0).integers(0, 3, (9, 32, 31, 17)).astype("float32"))
    options = {"ksize": [1, 3, 3, 1], "strides": [1, 2, 2, 1], "padding": padding}
    y = tf.raw_ops.MaxPool(input=x, **options)
    dy = normal(*y.shape).astype("float32")
    dx = tf.raw_ops.MaxPoolGrad(orig_input=x, orig_output=y, grad=dy, **options)
    assert tf.size(x) > kernels._LARGE
    np.testing.assert_allclose(kernels.max_pool_grad(x, y, dy, (3, 3), (2, 2), padding), dx, rtol=0, atol=2e-6)
