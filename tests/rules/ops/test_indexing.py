"""The rules of `rules/ops/indexing.py`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, check_rule, normal

X = ((2, 3, 4),)
INDICES = np.array([[2, 0, 2], [1, -1, 0]])


def case(name, function, inputs=X, **options):
    return Case(name, lambda: function, inputs, **options)


CASES = [
    case("get_item-int", lambda x: x[1]),
    case("get_item-negative", lambda x: x[-1, :, -2]),
    case("get_item-slice", lambda x: x[:, 1:3]),
    case("get_item-step", lambda x: x[::2, ::-1, 3:0:-2]),
    case("get_item-ellipsis", lambda x: x[..., 1]),
    case("get_item-newaxis", lambda x: x[:, None, 0, ..., None]),
    case("slice", lambda x: ops.slice(x, (0, 1, 2), (2, 2, 1))),
    *(
        case(f"take-{axis}-{indices.ndim}", lambda x, axis=axis, indices=indices: ops.take(x, indices, axis=axis), ((3, 3, 4),))
        for axis in (None, 0, 1, -1)
        for indices in (INDICES, INDICES[0], np.array(1))
    ),
    case("take_along_axis", lambda x: ops.take_along_axis(x, np.array([[[1, 0, -1, 1]], [[0, 0, 2, 1]]]), axis=1)),
    case("take_along_axis-last", lambda x: ops.take_along_axis(x, np.array([3, 3, -4])[None, None], axis=-1)),
    case("take_along_axis-flat", lambda x: ops.take_along_axis(x, np.array([1, -1, 5, 1]))),
    case("take_along_axis-broadcast", lambda x: ops.take_along_axis(x, np.ones((2, 3, 2), "int32"), axis=2), ((2, 1, 4),)),
    case("scatter", lambda v: ops.scatter(np.array([[0], [2], [0]]), v, (4, 2)), ((3, 2),)),
    *(
        case(
            f"scatter_update-{reduction}",
            lambda x, u, r=reduction: ops.scatter_update(x, np.array([[0, 1], [1, 2], [0, 3]]), u, reduction=r),
            ((2, 4), (3,)),
        )
        for reduction in (None, "add", "max", "min")
    ),
    case("scatter_update-rows", lambda x, u: ops.scatter_update(x, np.array([[2], [0]]), u), ((3, 4), (2, 4))),
    case(
        "scatter_update-ties",
        lambda x, u: ops.scatter_update(x, np.array([[0], [0], [1]]), u, reduction="max"),
        (np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 0.0])),
        differences=False,
    ),
    case("sort", ops.sort),
    case("sort-axis", lambda x: ops.sort(x, axis=0)),
    case("sort-flat", lambda x: ops.sort(x, axis=None)),
    case("sort-ties", ops.sort, (np.array([2.0, 1.0, 2.0, 1.0]),), differences=False),
    case("top_k", lambda x: ops.top_k(x, 2)[0]),
    case("top_k-unsorted", lambda x: ops.top_k(x, 3, sorted=False)[0]),
    case("select", lambda x, y: ops.select([x > 0.5, x > 0], [x, 2 * y], default=0), ((3, 4), (3, 4))),
    case("select-default", lambda x, y: ops.select([x > 0.5], [x], default=y), ((3, 4), (3, 4))),
    case("one_hot", lambda x: ops.one_hot(ops.argmax(x, axis=-1), 4, dtype="float64") * x),
    case("argsort", lambda x: ops.take_along_axis(x, ops.argsort(x, axis=1), axis=1)),
    *(
        case(
            f"{name}-{n}",
            lambda x, name=name, n=n: getattr(ops, name)(x, np.array([2, 0, 2, 1]), num_segments=n),
            ((4, 3),),
            differences=False,
        )
        for name in ("segment_sum", "segment_max")
        for n in (3, 5)
    ),
    case("segment_sum-sorted", lambda x: ops.segment_sum(x, np.array([0, 0, 1, 2]), sorted=True), ((4, 3),)),
    case("segment_max-sorted", lambda x: ops.segment_max(x, np.array([0, 0, 1, 2]), sorted=True), ((4,),)),
    case(
        "segment_max-ties",
        lambda x: ops.segment_max(x, np.array([0, 0, 1]), num_segments=2),
        (np.array([1.0, 1.0, 2.0]),),
        differences=False,
    ),
    case("segment_sum-ids-out-of-range", lambda x: ops.segment_sum(x, np.array([0, -1, 1, 0]), num_segments=2), ((4, 3),)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


def test_rows_taken_from_a_weight_have_a_sparse_gradient():
    class Table(keras.layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=(6, 2))

        def call(self, indices):
            return ops.take(self.table, indices, axis=0)

    layer, record = Table(), Record()
    indices = tf.constant([[1, 5, 1]])
    layer(indices)
    y = record.run(layer, indices)
    gradient = sweep(record.calls, [(y, tf.ones_like(y))], layer.trainable_variables).gradient(layer.table)
    assert isinstance(gradient, tf.IndexedSlices)
    np.testing.assert_array_equal(tf.convert_to_tensor(gradient)[:, 0], [0, 2, 0, 0, 0, 1])


@pytest.mark.parametrize("start", [(0, 1, 2), (1, 2, 3), (-1, 0, 0)])
def test_slice_update(start):
    """The tape has no gradient for it. A start that leaves too little room is moved."""
    fits = np.clip(start, 0, [0, 1, 3])
    place = tuple(slice(i, i + size) for i, size in zip(fits, (2, 2, 1), strict=True))
    x, u, dy = normal(2, 3, 4), normal(2, 2, 1, seed=1), normal(2, 3, 4, seed=2)
    expected = x.copy()
    expected[place] = u
    record, inputs = Record(), [tf.constant(x), tf.constant(u)]
    y = record.run(lambda x, u: ops.slice_update(x, start, u), *inputs)
    np.testing.assert_array_equal(y, expected)
    result = sweep(record.calls, [(y, tf.constant(dy))], inputs=inputs)
    np.testing.assert_array_equal(result.input_gradient(inputs[1]), dy[place])
    dy[place] = 0
    np.testing.assert_array_equal(result.input_gradient(inputs[0]), dy)
