"""The rules of `rules/ops/shaping.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from keras_backprop._keras import ops as operations
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, check_rule
from tests.rules.ops.eager import against_the_tape

X = ((2, 3, 4),)
TWO = ((2, 3, 4), (2, 3, 4))


def case(name, function, inputs=X, **options):
    return Case(name, lambda: function, inputs, **options)


CASES = [
    case("reshape", lambda x: ops.reshape(x, (4, -1))),
    case("ravel", ops.ravel),
    case("expand_dims", lambda x: ops.expand_dims(x, 1)),
    case("expand_dims-several", lambda x: ops.expand_dims(x, (0, -1))),
    case("squeeze", lambda x: ops.squeeze(x, 1), ((2, 1, 4),)),
    case("squeeze-all", ops.squeeze, ((1, 3, 1, 2),)),
    case("transpose", ops.transpose),
    case("transpose-axes", lambda x: ops.transpose(x, (1, 2, 0))),
    case("transpose-negative", lambda x: ops.transpose(x, (-1, 0, 1))),
    case("swapaxes", lambda x: ops.swapaxes(x, 0, -1)),
    case("moveaxis", lambda x: ops.moveaxis(x, 0, -1)),
    case("moveaxis-several", lambda x: ops.moveaxis(x, (0, 1), (-1, 0))),
    *(case(f"rot90-{k}", lambda x, k=k: ops.rot90(x, k=k)) for k in (0, 1, 2, 3, -1)),
    case("rot90-axes", lambda x: ops.rot90(x, k=1, axes=(2, 1))),
    case("rot90-axes-thrice", lambda x: ops.rot90(x, k=3, axes=(-1, 0))),
    case("flip", ops.flip),
    case("flip-axis", lambda x: ops.flip(x, axis=1)),
    case("flip-axes", lambda x: ops.flip(x, axis=(0, -1))),
    case("fliplr", ops.fliplr),
    case("flipud", ops.flipud),
    case("roll", lambda x: ops.roll(x, 2)),
    case("roll-axis", lambda x: ops.roll(x, -1, axis=2)),
    case("roll-axes", lambda x: ops.roll(x, (1, 2), axis=(0, 1))),
    case("broadcast_to", lambda x: ops.broadcast_to(x, (5, 2, 3, 4)), ((2, 1, 4),)),
    case("full_like", lambda x, v: x * ops.full_like(x, v), ((2, 3), (3,))),
    case("full_like-scalar", lambda x, v: x * ops.full_like(x, v), ((2, 3), np.array(1.5))),
    case("likes", lambda x: x * (ops.ones_like(x) + ops.zeros_like(x) + ops.full_like(x, 2.0))),
    case("tile", lambda x: ops.tile(x, (2, 1, 3))),
    case("tile-fewer", lambda x: ops.tile(x, 2)),
    case("tile-more", lambda x: ops.tile(x, (2, 1, 1, 2))),
    case("repeat", lambda x: ops.repeat(x, 2)),
    case("repeat-axis", lambda x: ops.repeat(x, 3, axis=1)),
    case("repeat-negative", lambda x: ops.repeat(x, 2, axis=-1)),
    case("repeat-each", lambda x: ops.repeat(x, [1, 0, 2], axis=1)),
    case("pad", lambda x: ops.pad(x, ((0, 1), (2, 0), (1, 1)))),
    case("pad-value", lambda x: ops.pad(x, ((1, 1), (0, 2), (1, 0)), constant_values=3)),
    case("pad-reflect", lambda x: ops.pad(x, ((0, 1), (2, 0), (1, 3)), mode="reflect")),
    case("pad-symmetric", lambda x: ops.pad(x, ((0, 1), (2, 0), (1, 1)), mode="symmetric")),
    case("concatenate", lambda x, y: ops.concatenate([x, y], axis=1), ((2, 3, 4), (2, 1, 4))),
    case("concatenate-negative", lambda x, y: ops.concatenate([x, y], axis=-1), ((2, 3, 4), (2, 3, 1))),
    case("concatenate-first", lambda x, y: ops.concatenate([x, y, x]), TWO),
    case("concatenate-array", lambda x, y: ops.concatenate([x, np.ones((2, 5, 4)), y], axis=1), TWO),
    case("append", lambda x, y: ops.append(x, y), ((2, 3), (4,))),
    case("append-array", lambda x: ops.append(np.ones((2, 3)), x), ((4,),)),
    case("append-axis-array", lambda x: ops.append(x, np.ones((2, 2)), axis=1), ((2, 3),)),
    case("append-axis", lambda x, y: ops.append(x, y, axis=1), ((2, 3), (2, 1))),
    case("hstack", lambda x, y: ops.hstack([x, y]), ((2, 3), (2, 1))),
    case("vstack", lambda x, y: ops.vstack([x, y]), ((2, 3), (1, 3))),
    case("hstack-array", lambda x, y: ops.hstack([x, np.ones((2, 1)), y]), ((2, 3), (2, 1))),
    case("dstack", lambda x, y: ops.dstack([x, y]), ((2, 3), (2, 3))),
    case("dstack-vectors", lambda x, y: ops.dstack([x, y]), ((3,), (3,))),
    case("stack", lambda x, y: ops.stack([x, y]), TWO),
    case("stack-axis", lambda x, y: ops.stack([x, y], axis=-1), TWO),
    case("stack-array", lambda x, y: ops.stack([x, np.ones((2, 3, 4)), y], axis=1), TWO),
    case("stack-number", lambda x, y: ops.stack([x, 2.0, y]), (np.array(0.3), np.array(0.7))),
    case("split", lambda x: ops.split(x, 3, axis=1)),
    case("split-one", lambda x: ops.split(x, 1, axis=1)),
    case("split-indices", lambda x: ops.split(x, [1, 3], axis=-1)),
    case("split-unused-part", lambda x: ops.split(x, 2, axis=2)[1]),
    case("array_split", lambda x: ops.array_split(x, 3, axis=2)),
    case("hsplit", lambda x: ops.hsplit(x, 3)),
    case("hsplit-vector", lambda x: ops.hsplit(x, 3), ((6,),)),
    case("vsplit", lambda x: ops.vsplit(x, 2)),
    case("dsplit", lambda x: ops.dsplit(x, 2)),
    case("unstack", lambda x: ops.unstack(x, axis=1)),
    case("unstack-one", lambda x: ops.unstack(x), ((1, 3),)),
    case("meshgrid", lambda x, y: ops.meshgrid(x, y), ((3,), (2,))),
    case("meshgrid-ij", lambda x, y, z: ops.meshgrid(x, y, z, indexing="ij"), ((3,), (2,), (4,))),
    case("meshgrid-three", lambda x, y, z: ops.meshgrid(x, y, z), ((3,), (2,), (4,))),
    case("depth_to_space", lambda x: ops.depth_to_space(x, 2), ((2, 2, 3, 8),)),
    case("depth_to_space-first", lambda x: ops.depth_to_space(x, 2, data_format="channels_first"), ((2, 8, 2, 3),)),
    case("space_to_depth", lambda x: ops.space_to_depth(x, 2), ((2, 4, 6, 2),)),
    case("space_to_depth-first", lambda x: ops.space_to_depth(x, 2, data_format="channels_first"), ((2, 2, 4, 6),)),
    case("rearrange", lambda x: ops.rearrange(x, "b h c -> b c h")),
    case("extract_sequences", lambda x: ops.extract_sequences(x, 3, 2), ((2, 10),)),
    case("extract_sequences-one", lambda x: ops.extract_sequences(x, 4, 1), ((9,),)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


def test_unknown_sizes():
    def function(x):
        y = ops.tile(ops.repeat(ops.transpose(x, (0, 2, 1)), 2, axis=0), (1, 1, 2))
        return ops.concatenate([y, ops.flip(ops.pad(y, ((0, 0), (1, 0), (0, 0)))[:, 1:], axis=0)], axis=0)[::2, :, -1]

    against_the_tape(function, (3, 2, 4), signature=[[None, None, 4]])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_what_is_stacked_are_the_parts_of_a_tensor(axis):
    against_the_tape(lambda x: ops.stack(x, axis=axis), (3, 4, 2))


def test_hstack_of_vectors():
    """Keras's own symbolic pass refuses them."""
    record, a, b = Record(), tf.ones([3]), tf.ones([2])
    y = record.run(operations.Hstack(), [a, b])
    result = sweep(record.calls, [(y, tf.range(5.0))], inputs=[a, b])
    np.testing.assert_array_equal(result.input_gradient(a), [0, 1, 2])
    np.testing.assert_array_equal(result.input_gradient(b), [3, 4])


def test_rearrange_that_splits_and_joins():
    """Keras's own symbolic pass refuses it in a compiled function."""
    against_the_tape(lambda x: ops.rearrange(x, "b (h k) w -> (b w) k h", k=3), (2, 6, 4))
