"""Shapes and combinations of options that nobody listed: hypothesis chooses them, the tape is the reference."""

import math

import hypothesis
import numpy as np
from hypothesis import strategies as st
from keras import layers, ops

from tests.checking import Function
from tests.grid.generate import GridCase
from tests.grid.run import run

few = hypothesis.settings(derandomize=True, max_examples=12, deadline=None, database=None)
sizes = st.integers(1, 4)
flags = st.booleans()


def shapes(least=1, most=4):
    return st.lists(sizes, min_size=least, max_size=most).map(tuple)


def check(make, *inputs, **call):
    outcome = run(GridCase("", "", make, inputs, call, smooth=False))
    assert outcome.passed, outcome


def axes_of(shape):
    return st.one_of(st.none(), st.integers(-len(shape), len(shape) - 1), _several(len(shape)))


def _several(rank):
    return st.sets(st.integers(0, rank - 1), min_size=1).map(lambda axes: tuple(sorted(axes)))


@few
@hypothesis.given(
    st.data(), st.sampled_from([ops.add, ops.subtract, ops.multiply, ops.divide, ops.maximum, ops.arctan2])
)
def test_broadcasting(data, function):
    shape = data.draw(shapes())
    thinned = tuple(data.draw(st.sampled_from([1, size])) for size in shape)
    other = thinned[data.draw(st.integers(0, len(shape) - 1)) :]
    pair = (shape, other) if data.draw(flags) else (other, shape)
    check(lambda: Function(function), *pair)


@few
@hypothesis.given(
    st.data(), st.sampled_from([ops.sum, ops.mean, ops.max, ops.prod, ops.var, ops.std, ops.logsumexp, ops.norm])
)
def test_reductions(data, function):
    shape = data.draw(shapes(1, 3 if function is ops.norm else 4))
    axis = data.draw(st.integers(0, len(shape) - 1)) if function in (ops.norm, ops.std) else data.draw(axes_of(shape))
    hypothesis.assume(function is not ops.std or shape[axis] > 1)  # √0
    keepdims = data.draw(flags)
    check(lambda: Function(lambda x: function(x, axis=axis, keepdims=keepdims)), shape)


@few
@hypothesis.given(shapes(0, 2), sizes, sizes, sizes, flags, flags)
def test_matrix_products(batch, n, k, m, left_is_one, right_is_plain):
    left = (*((1,) * len(batch) if left_is_one else batch), n, k)
    right = (k, m) if right_is_plain else (*batch, k, m)
    check(lambda: Function(ops.matmul), left, right)


@few
@hypothesis.given(st.data())
def test_reshapes_and_transposes(data):
    shape = data.draw(shapes(2))
    order = data.draw(st.permutations(range(len(shape))))
    split = data.draw(st.integers(1, len(shape) - 1))
    sizes = [shape[i] for i in order]
    check(
        lambda: Function(
            lambda x: ops.reshape(ops.transpose(x, order), (math.prod(sizes[:split]), math.prod(sizes[split:])))
        ),
        shape,
    )


@few
@hypothesis.given(st.data())
def test_slices(data):
    shape = data.draw(shapes(1, 3))
    key = tuple(data.draw(st.one_of(st.slices(size), st.integers(-size, size - 1), st.just(None))) for size in shape)
    hypothesis.assume(sum(part is not None for part in key) <= len(shape))
    hypothesis.assume(np.zeros(shape)[key].size > 0)
    check(lambda: Function(lambda x: 2.0 * x[key]), shape)


@few
@hypothesis.given(shapes(2), sizes, flags, st.sampled_from([None, "tanh", "softplus", "gelu"]))
def test_dense(shape, units, use_bias, activation):
    check(lambda: layers.Dense(units, activation, use_bias=use_bias), shape)


@few
@hypothesis.given(
    st.integers(1, 3), st.data(), sizes, st.sampled_from([1, 2]), st.sampled_from(["valid", "same"]), flags
)
def test_convolutions(rank, data, filters, groups, padding, strided):
    kernel = tuple(data.draw(st.integers(1, 3)) for _ in range(rank))
    step = tuple(data.draw(st.integers(1, 2)) for _ in range(rank))
    steps = {"strides": step} if strided and len(set(step)) == 1 else {"dilation_rate": step[0]}
    space = tuple(data.draw(st.integers(2 * k, 6)) for k in kernel)
    layer = getattr(layers, f"Conv{rank}D")
    groups = 1 if rank == 3 else groups
    check(lambda: layer(filters * groups, kernel, padding=padding, groups=groups, **steps), (2, *space, 2 * groups))


@few
@hypothesis.given(
    st.integers(1, 3), st.data(), st.sampled_from(["MaxPooling", "AveragePooling"]), st.sampled_from(["valid", "same"])
)
def test_pooling(rank, data, name, padding):
    size = data.draw(st.integers(1, 3))
    strides = data.draw(st.one_of(st.none(), st.integers(1, 3)))
    space = tuple(data.draw(st.integers(size, 6)) for _ in range(rank))
    check(lambda: getattr(layers, f"{name}{rank}D")(size, strides, padding), (2, *space, 2))


@few
@hypothesis.given(st.data(), flags, flags)
def test_layer_normalization(data, center, scale):
    shape = data.draw(st.lists(st.integers(2, 4), min_size=2, max_size=4).map(tuple))
    axis = sorted(data.draw(st.sets(st.integers(1, len(shape) - 1), min_size=1)))
    check(lambda: layers.LayerNormalization(axis=axis, center=center, scale=scale), shape)


@few
@hypothesis.given(st.data(), flags, flags)
def test_batch_normalization(data, training, center):
    shape = data.draw(st.lists(st.integers(2, 4), min_size=2, max_size=4).map(tuple))
    axis = data.draw(st.integers(1, len(shape) - 1))
    check(lambda: layers.BatchNormalization(axis=axis, center=center), shape, training=training)


@few
@hypothesis.given(
    st.sampled_from([layers.SimpleRNN, layers.GRU, layers.LSTM]),
    sizes,
    sizes,
    sizes,
    flags,
    flags,
    flags,
    flags,
    st.data(),
)
def test_recurrent_layers(layer, steps, width, units, backwards, sequences, bias, unroll, data):
    lengths = data.draw(st.lists(st.integers(1, steps), min_size=3, max_size=3))
    mask = np.arange(steps)[None] < np.array(lengths)[:, None] if data.draw(flags) else None
    check(
        lambda: layer(
            units, go_backwards=backwards, return_sequences=sequences, use_bias=bias, unroll=unroll,
        ),
        (3, steps, width), **({} if mask is None else {"mask": mask}),
    )  # fmt: skip


@few
@hypothesis.given(sizes, sizes, sizes, st.integers(1, 2), sizes, flags, flags)
def test_multi_head_attention(queries, keys, width, heads, size, causal, bias):
    check(
        lambda: layers.MultiHeadAttention(heads, size, use_bias=bias),
        (2, queries, width), (2, keys, width), use_causal_mask=causal,
    )  # fmt: skip
