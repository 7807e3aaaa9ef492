"""Figures of small tensors that are measured together are those of each alone."""

import numpy as np
import pytest
import tensorflow as tf

from keras_backprop.watch.joined import TOGETHER, groups
from keras_backprop.watch.moments import JOINED, joined_moments, moment

NAMES = sorted(JOINED)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_each_figure_is_that_of_the_tensor_alone(dtype):
    draw = np.random.default_rng(0).normal
    arrays = [draw(3.0, 2.0, (5, 4)).round(1), np.zeros((5, 4)), draw(size=(5, 4)), draw(size=(5, 4))]
    arrays[2][1, 2], arrays[3][0, 0], arrays[3][4, 3] = np.inf, np.nan, 0.0
    tensors = [tf.constant(a, dtype) for a in arrays]
    together = joined_moments(NAMES, tensors)
    for name in NAMES:
        for i, x in enumerate(tensors):
            alone = moment("squares", x - tf.reduce_mean(x)) if name == "spread" else moment(name, x)
            if i < 3 or name not in ("min", "max"):  # of NaN either value may come out
                np.testing.assert_allclose(
                    together[name][i], alone, 1e-6 if dtype == "float32" else 1e-13, err_msg=name
                )


def test_what_is_joined_is_alike_and_small():
    small = {i: (tf.zeros((32, 64)), NAMES) for i in range(9)}
    others = {
        "another shape": (tf.zeros((64, 32)), NAMES),
        "another dtype": (tf.zeros((32, 64), tf.float64), NAMES),
        "other figures": (tf.zeros((32, 64)), NAMES[:3]),
        "few figures": (tf.zeros((32, 64)), NAMES[:1]),
        "large": (tf.zeros((256, 256)), NAMES),
    }
    of_eight = TOGETHER // (32 * 64)
    found = groups({**small, **others})
    assert [keys for keys, _ in found] == [list(range(of_eight))]  # the ninth is alone


def test_a_shape_that_is_not_known_is_not_joined():
    @tf.function(input_signature=[tf.TensorSpec([None, 4])] * 2)
    def found(x, y):
        assert groups({0: (x, NAMES), 1: (y, NAMES)}) == []
        return x

    found.get_concrete_function()
