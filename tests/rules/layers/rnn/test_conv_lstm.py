"""The rule of `rules/layers/rnn/conv_lstm.py`."""

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop._keras import ConvLSTMCell
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, check_rule, normal

MASK = np.array([[True, False, True], [False, True, True]])


def make(name, rank=2, inputs=None, kwargs=None, **options):
    layer = [layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D][rank - 1]
    shape = inputs or (2, 3, *(5, 4, 3)[:rank], 2)
    return Case(name, lambda: layer(2, **{"kernel_size": 2, **options}), (shape,), kwargs or {})


EVERYTHING = {"return_sequences": True, "return_state": True}
CASES = [
    make("1d", 1, **EVERYTHING),
    make("2d"),
    make("3d", 3, return_sequences=True),
    make("2d-everything", **EVERYTHING),
    make("same", padding="same", kernel_size=3, **EVERYTHING),
    make("strides", strides=2, **EVERYTHING),
    make("dilation", dilation_rate=2, padding="same", return_sequences=True),
    make("1d-dilation", 1, dilation_rate=2),
    make("no-bias", use_bias=False),
    make("no-forget-bias", unit_forget_bias=False),
    make("activations", activation="softplus", recurrent_activation="hard_sigmoid"),
    make("backwards", go_backwards=True, return_sequences=True),
    make("unroll", unroll=True),
    make("mask", kwargs={"mask": MASK}, **EVERYTHING),
    make("mask-zero-output", kwargs={"mask": MASK}, zero_output_for_mask=True, **EVERYTHING),
    make("initial-state", kwargs={"initial_state": [normal(2, 4, 3, 2, seed=i) for i in (1, 2)]}),
    make("stateful", stateful=True, return_sequences=True),
    make("dropout", kwargs={"training": True}, dropout=0.4, recurrent_dropout=0.3, seed=5, **EVERYTHING),
    Case("cell", lambda: ConvLSTMCell(2, 3, 2, padding="same"), ((2, 5, 4, 2), [(2, 5, 4, 3)] * 2)),
    Case("rnn-of-cell", lambda: layers.RNN(ConvLSTMCell(1, 3, 2), return_sequences=True), ((2, 3, 5, 2),)),
]


@pytest.mark.sample(8)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


@pytest.mark.parametrize("kwargs", [{}, {"dropout": 0.4, "recurrent_dropout": 0.3}], ids=["plain", "dropout"])
@pytest.mark.parametrize("rank", [1, 2])
def test_channels_first_is_channels_last_with_moved_axes(rank, kwargs):
    """Stock Keras has no channels first on a CPU; the rule has."""
    kind, shape = [layers.ConvLSTM1D, layers.ConvLSTM2D][rank - 1], (2, 3, *(5, 4)[:rank], 2)
    last, first = (
        kind(2, 2, data_format=order, dtype="float64", **kwargs) for order in ("channels_last", "channels_first")
    )
    last.build(shape)
    first.build((*shape[:2], shape[-1], *shape[2:-1]))
    first.set_weights(last.get_weights())
    x = tf.constant(normal(*shape))
    results = []
    for layer, to, back in (
        (last, lambda x: x, lambda x: x),
        (
            first,
            lambda x: tf.transpose(x, [0, 1, rank + 2, *range(2, rank + 2)]),
            lambda x: np.moveaxis(x, -1 - rank, -1),
        ),
    ):
        masks = [tf.constant(np.random.default_rng(i).uniform(size=(2, *shape[2:]))) for i in range(4)]
        if kwargs:
            layer.cell._dropout_mask = [to(m[:, None])[:, 0] for m in masks]
            state = layer.get_initial_state(2)[0].shape
            state = state if layer is last else (2, *state[2:], 2)
            masks = [tf.constant(np.random.default_rng(9 + i).uniform(size=state)) for i in range(4)]
            layer.cell._recurrent_dropout_mask = [to(m[:, None])[:, 0] for m in masks]
        record, sequence = Record(), to(x)
        y = record.run(layer, sequence, training=True)
        swept = sweep(record.calls, [(y, y)], layer.trainable_variables, [sequence])
        parts = [swept.parts[id(v)][0] for v in layer.trainable_variables]
        results.append(
            [
                back(y), back(swept.input_gradient(sequence)),
                *(part.total() for part in parts), *(part.per_example() for part in parts),
            ]
        )  # fmt: skip
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
