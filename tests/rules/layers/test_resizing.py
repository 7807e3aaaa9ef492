"""The rules of `rules/layers/resizing.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, check_rule

LINE, IMAGE, VOLUME = ((2, 6, 3),), ((2, 5, 6, 3),), ((2, 4, 5, 4, 3),)
FIRST = {"data_format": "channels_first"}

CASES = [
    Case("pad-line", lambda: layers.ZeroPadding1D(2), LINE),
    Case("pad-line-one-side", lambda: layers.ZeroPadding1D((0, 3)), LINE),
    Case("pad-line-first", lambda: layers.ZeroPadding1D((2, 1), **FIRST), LINE),
    Case("pad-image", lambda: layers.ZeroPadding2D(1), IMAGE),
    Case("pad-image-sides", lambda: layers.ZeroPadding2D(((1, 0), (0, 2))), IMAGE),
    Case("pad-image-first", lambda: layers.ZeroPadding2D((1, 2), **FIRST), IMAGE),
    Case("pad-volume", lambda: layers.ZeroPadding3D(((1, 2), (0, 1), (3, 0))), VOLUME),
    Case("pad-volume-first", lambda: layers.ZeroPadding3D(1, **FIRST), VOLUME),
    Case("crop-line", lambda: layers.Cropping1D(1), LINE),
    Case("crop-line-one-side", lambda: layers.Cropping1D((2, 0)), LINE),
    Case("crop-image", lambda: layers.Cropping2D(((1, 0), (2, 1))), IMAGE),
    Case("crop-image-one-side", lambda: layers.Cropping2D(((0, 1), (2, 0))), IMAGE),
    Case("crop-image-first", lambda: layers.Cropping2D(1, **FIRST), IMAGE),
    Case("crop-volume", lambda: layers.Cropping3D(1), VOLUME),
    Case("crop-volume-sides", lambda: layers.Cropping3D(((1, 0), (0, 0), (0, 2))), VOLUME),
    Case("crop-volume-first", lambda: layers.Cropping3D(((1, 0), (2, 0), (0, 1)), **FIRST), VOLUME),
    Case("enlarge-line", lambda: layers.UpSampling1D(3), LINE),
    Case("enlarge-image", lambda: layers.UpSampling2D((2, 3)), IMAGE),
    Case("enlarge-image-one-axis", lambda: layers.UpSampling2D((1, 2)), IMAGE),
    Case("enlarge-image-first", lambda: layers.UpSampling2D(2, **FIRST), IMAGE),
    Case("enlarge-volume", lambda: layers.UpSampling3D((2, 1, 3)), VOLUME),
    Case("enlarge-volume-first", lambda: layers.UpSampling3D((1, 3, 2), **FIRST), VOLUME),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


INTERPOLATIONS = [
    Case(f"{name}-{order}", lambda name=name, size=size, options=options: layers.UpSampling2D(size, **options), IMAGE)
    for name in ("bilinear", "bicubic")
    for order, size, options in [
        ("last", 2, {"interpolation": name}),
        ("first", (2, 3), {"interpolation": name, **FIRST}),
    ]
]


@pytest.mark.parametrize("case", INTERPOLATIONS, ids=lambda case: case.name)
def test_interpolation(case):
    check_rule(case)


def input_gradient(layer, x, upstream=tf.cos):
    record = Record()
    y = record.run(layer, x)
    return sweep(record.calls, [(y, upstream(y))], inputs=[x]).input_gradient(x)


def tape_gradient(layer, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        error = tf.reduce_sum(tf.sin(layer(x)))
    return tape.gradient(error, x)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos3", "lanczos5"])
def test_interpolation_in_single_precision(interpolation):
    layer, x = layers.UpSampling2D((2, 3), interpolation=interpolation), tf.random.normal((2, 5, 6, 3))
    np.testing.assert_allclose(input_gradient(layer, x), tape_gradient(layer, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos3"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_interpolation_in_half_precision(interpolation, dtype):
    """The tape has a kernel for bilinear interpolation only; the gradient of single precision is the measure."""
    x = tf.cast(tf.random.normal((2, 5, 6, 3)), dtype)
    dx = input_gradient(layers.UpSampling2D(2, interpolation=interpolation, dtype=dtype), x)
    single = tape_gradient(layers.UpSampling2D(2, interpolation=interpolation), tf.cast(x, "float32"))
    assert dx.dtype == x.dtype
    np.testing.assert_allclose(tf.cast(dx, "float32"), single, rtol=3e-2, atol=5e-2)


@pytest.mark.parametrize(
    "make",
    [lambda: layers.UpSampling2D((2, 3)), lambda: layers.Cropping2D(1), lambda: layers.ZeroPadding2D(((0, 1), (2, 0)))],
)
def test_sizes_may_be_unknown(make):
    layer, x = make(), tf.random.normal((2, 7, 6, 3))

    def gradient(x):
        return input_gradient(layer, x)

    compiled = tf.function(gradient, input_signature=[tf.TensorSpec((None, None, None, 3))])
    np.testing.assert_allclose(compiled(x), gradient(x), rtol=1e-5, atol=1e-6)
