"""Figures of small tensors that are measured together are those of each alone."""

import numpy as np
import pytest
import tensorflow as tf

from keras_backprop.watch.joined import TOGETHER, groups, row_of
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


def places(names, first=0):
    return {name: first + i for i, name in enumerate(names)}


def test_what_is_joined_is_alike_and_small():
    small = [(tf.zeros((32, 64)), places(NAMES, 10 * i)) for i in range(9)]
    others = [
        (tf.zeros((64, 32)), places(NAMES)),
        (tf.zeros((32, 64), tf.float64), places(NAMES)),
        (tf.zeros((32, 64)), places(NAMES[:3])),
        (tf.zeros((256, 256)), places(NAMES)),
        *[(tf.zeros((32, 64)), places(NAMES[:2]))] * 2,
    ]
    ((tensors, names, columns),) = groups([*small, *others])  # the ninth is alone
    assert [id(x) for x in tensors] == [id(x) for x, _ in small[: TOGETHER // (32 * 64)]]
    assert (list(names), columns) == (NAMES, [place for _, place in small[: len(tensors)]])


def test_a_row_has_its_columns_in_their_order():
    one, two = tf.constant([1.0, -2.0]), tf.constant([5.0, 0.0])
    joinable = [(one, {"max": 4, "min": 1, "zeros": 6}), (two, {"max": 0, "min": 3, "zeros": 7})]
    alone = {2: tf.constant([8.0, 9.0]), 5: tf.constant(7.0, tf.float64)}
    row = row_of([1, 1, 2, 1, 1, 1, 1, 1], joinable, alone.get, tf.float64)
    assert row.dtype == tf.float64
    assert row.numpy().tolist() == [5, -2, 8, 9, 0, 1, 7, 0, 1]


def test_a_shape_that_is_not_known_is_not_joined():
    @tf.function(input_signature=[tf.TensorSpec([None, 4])] * 2)
    def found(x, y):
        assert groups([(x, places(NAMES)), (y, places(NAMES))]) == []
        return x

    found.get_concrete_function()
