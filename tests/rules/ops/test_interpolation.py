"""The rules of `rules/ops/interpolation.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from tests.checking import Case, check_rule, normal
from tests.rules.ops.eager import against_the_tape, gradients

PLACES = np.random.default_rng(1).uniform(-1.4, 4.4, (2, 7))
INSIDE = np.random.default_rng(1).uniform(0.1, 2.9, (2, 7))
SCALE, SHIFT = np.array([1.7, 0.6]), np.array([0.3, -0.4])


def case(name, function, *inputs, **options):
    return Case(name, lambda: function, inputs, **options)


CASES = [
    *(
        case(f"map_coordinates-{mode}", lambda x, p, m=mode: ops.image.map_coordinates(x, p, 1, m, 0.5), (4, 5), PLACES)
        for mode in ("constant", "nearest", "wrap", "reflect")
    ),
    case("map_coordinates-mirror", lambda x, p: ops.image.map_coordinates(x, p, 1, "mirror"), (4, 5), INSIDE),
    case("map_coordinates-nearest-number", lambda x: ops.image.map_coordinates(x, PLACES, 0), (4, 5)),
    case("map_coordinates-space", lambda x, p: ops.image.map_coordinates(x, p, 1), (3, 4, 5), normal(3, 2, 4) + 1),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("method", ["linear", "cubic", "lanczos3", "lanczos5"])
def test_scale_and_translate(method, antialias):
    """Keras refuses double precision for some of the methods."""
    against_the_tape(
        lambda x, s, t: ops.image.scale_and_translate(x, (2, 5, 4, 3), s, t, (1, 2), method, antialias),
        *(values.astype("float32") for values in (normal(2, 4, 6, 3), SCALE, SHIFT)),
        rtol=1e-3,
        atol=1e-4,
    )


RESIZE = {
    "larger": {"size": (6, 8)},
    "smaller": {"size": (2, 3)},
    "crop": {"size": (2, 4), "crop_to_aspect_ratio": True},
    "crop-high": {"size": (6, 2), "crop_to_aspect_ratio": True},
    "pad": {"size": (4, 9), "pad_to_aspect_ratio": True, "fill_value": 0.3},
    "pad-high": {"size": (9, 4), "pad_to_aspect_ratio": True},
    "first": {"size": (6, 4), "data_format": "channels_first"},
    "antialias": {"size": (2, 3), "antialias": True},
}


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos3", "lanczos5"])
@pytest.mark.parametrize("name", RESIZE)
@pytest.mark.parametrize("single", [False, True])
def test_resize(name, interpolation, single):
    """TensorFlow resizes in single precision."""
    if single and not name.startswith(("crop", "first")):
        return
    x = tf.constant(normal(2, 5, 6, 3) if not single else normal(5, 6, 3), tf.float32)
    function = lambda x: ops.image.resize(x, interpolation=interpolation, **RESIZE[name])  # noqa: E731
    (ours,) = gradients(function, x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        error = 0.5 * tf.reduce_sum(function(x) ** 2)
    np.testing.assert_allclose(ours, tape.gradient(error, x), rtol=1e-4, atol=1e-5)
