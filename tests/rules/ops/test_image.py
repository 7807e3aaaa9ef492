"""The rules of `rules/ops/image.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tests.checking import Case, check_rule, normal
from tests.rules.ops.eager import gradients

COLOURS = np.random.default_rng(0).uniform(0.1, 0.9, (2, 3, 4, 3))
FIRST = np.moveaxis(COLOURS, -1, 1)


def case(name, function, *inputs, **options):
    return Case(name, lambda: function, inputs, **options)


CASES = [
    case("rgb_to_grayscale", lambda x: ops.image.rgb_to_grayscale(x), COLOURS),
    case("rgb_to_grayscale-first", lambda x: ops.image.rgb_to_grayscale(x, data_format="channels_first"), FIRST),
    case("rgb_to_grayscale-one", lambda x: ops.image.rgb_to_grayscale(x), COLOURS[0]),
    case("rgb_to_grayscale-gray", lambda x: ops.image.rgb_to_grayscale(x) * 2, (2, 3, 4, 1)),
    case("pad_images", lambda x: ops.image.pad_images(x, 1, 2, 0, 3), (2, 3, 4, 2)),
    case("pad_images-target", lambda x: ops.image.pad_images(x, 1, target_height=6, right_padding=1, target_width=8), (2, 3, 4, 2)),
    case("pad_images-first", lambda x: ops.image.pad_images(x, 1, 2, 0, 3, data_format="channels_first"), (2, 3, 4)),
    case("crop_images", lambda x: ops.image.crop_images(x, 1, 0, 0, 2), (2, 3, 4, 2)),
    case("crop_images-target", lambda x: ops.image.crop_images(x, bottom_cropping=1, target_height=1, left_cropping=1, target_width=2), (3, 4, 2)),
    case("crop_images-first", lambda x: ops.image.crop_images(x, 1, 0, 0, 2, data_format="channels_first"), (2, 2, 3, 4)),
    case("gaussian_blur", lambda x: ops.image.gaussian_blur(x), (2, 5, 6, 3)),
    case("gaussian_blur-options", lambda x: ops.image.gaussian_blur(x, kernel_size=(3, 5), sigma=(0.7, 1.5)), (5, 6, 2)),
    case("gaussian_blur-first", lambda x: ops.image.gaussian_blur(x, data_format="channels_first"), (2, 3, 5, 6)),
    case("sobel_edges", lambda x: ops.image.sobel_edges(x), (2, 5, 4, 3)),
    case("sobel_edges-first", lambda x: ops.image.sobel_edges(x, data_format="channels_first"), (2, 3, 5, 4)),
    case("ssim", lambda a, b: ops.image.ssim(a, b, filter_size=3), (2, 5, 6, 2), (2, 5, 6, 2)),
    case("ssim-one", lambda a, b: ops.image.ssim(a, b, max_val=2.0, filter_size=5, filter_sigma=1.0), (5, 6, 2), (5, 6, 2)),
    case("ssim-first", lambda a, b: ops.image.ssim(a, b, filter_size=3, data_format="channels_first"), (2, 2, 5, 6), (2, 2, 5, 6)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


# The tape's gradient of `rgb_to_hsv` is not the derivative everywhere, and of `hsv_to_rgb` there is none.


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("name", ["rgb_to_hsv", "hsv_to_rgb"])
def test_colour_spaces(name, data_format):
    x = COLOURS if data_format == "channels_last" else FIRST
    r, u = normal(*x.shape, seed=1), normal(*x.shape, seed=2)
    function = lambda x: getattr(ops.image, name)(x, data_format=data_format)  # noqa: E731
    (dx,) = gradients(function, tf.constant(x), upstream=lambda y: tf.constant(r))
    step = 1e-6
    plus, minus = (np.sum(r * function(tf.constant(x + sign * step * u))) for sign in (1, -1))
    np.testing.assert_allclose(np.sum(dx * u), (plus - minus) / (2 * step), rtol=1e-6)


@pytest.mark.parametrize("name", ["rgb_to_hsv", "hsv_to_rgb"])
def test_gray_and_black_have_no_nan(name):
    x = np.array([[[0.5, 0.5, 0.5], [0.0, 0.0, 0.0]]])
    (dx,) = gradients(lambda x: getattr(ops.image, name)(x), tf.constant(x), upstream=tf.ones_like)
    assert np.all(np.isfinite(dx))


def test_the_compositions_compute_what_keras_does():
    from keras_backprop.chain.record import Record

    x = np.concatenate([COLOURS, np.zeros((1, 3, 4, 3)), np.full((1, 3, 4, 3), 0.4)])
    for function in (ops.image.rgb_to_hsv, ops.image.hsv_to_rgb):
        ours = Record().run(lambda x, function=function: function(x), tf.constant(x))
        np.testing.assert_allclose(ours, function(tf.constant(x)), atol=1e-12)
