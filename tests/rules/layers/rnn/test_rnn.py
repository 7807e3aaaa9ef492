"""The composition of `rules/layers/rnn/rnn.py`, and what all recurrent layers promise."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import rule_for
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, check_rule, normal
from tests.rules.layers.rnn.cells import Doubled, Minimal, TwoStates
from tests.rules.layers.rnn.options import MASK, X

MASKED = {"mask": MASK}
EVERYTHING = {"return_sequences": True, "return_state": True}


def stack(name, *cells, kwargs=None, **options):
    return Case(name, lambda: layers.RNN([cell() for cell in cells], **options), (X,), kwargs or {})


LSTM, GRU, SIMPLE = (lambda: layers.LSTMCell(2)), (lambda: layers.GRUCell(3)), (lambda: layers.SimpleRNNCell(2))
DROPPING = (
    lambda: layers.LSTMCell(2, dropout=0.3, recurrent_dropout=0.4, seed=1),
    lambda: layers.GRUCell(2, dropout=0.3, seed=2),
)
INITIAL = {"initial_state": [[normal(3, 2, seed=1), normal(3, 2, seed=2)], [normal(3, 3, seed=3)]]}
CASES = [
    stack("one", LSTM, **EVERYTHING),
    stack("three", LSTM, GRU, SIMPLE, **EVERYTHING),
    stack("last", GRU, LSTM),
    stack("last-state", GRU, LSTM, return_state=True),
    stack("backwards", LSTM, GRU, go_backwards=True, **EVERYTHING),
    stack("unroll", LSTM, GRU, unroll=True, **EVERYTHING),
    stack("mask", LSTM, GRU, kwargs=MASKED, **EVERYTHING),
    stack("mask-zero-output", LSTM, GRU, kwargs=MASKED, zero_output_for_mask=True, **EVERYTHING),
    stack("mask-backwards", GRU, LSTM, kwargs=MASKED, go_backwards=True, return_state=True),
    stack("initial-state", LSTM, GRU, kwargs=INITIAL, **EVERYTHING),
    stack("stateful", LSTM, GRU, stateful=True, return_sequences=True),
    stack("dropout", *DROPPING, kwargs={"training": True}, **EVERYTHING),
    stack("dropout-mask", *DROPPING, kwargs={"training": True, **MASKED}),
]


@pytest.mark.sample(7)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


KINDS = {
    "lstm": lambda: layers.LSTM(3, **EVERYTHING),
    "gru": lambda: layers.GRU(3, **EVERYTHING),
    "gru-reset-before": lambda: layers.GRU(3, reset_after=False, **EVERYTHING),
    "simple": lambda: layers.SimpleRNN(3, **EVERYTHING),
    "stack": lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], **EVERYTHING),
    "own": lambda: layers.RNN(Minimal(3), **EVERYTHING),
    "own-layers": lambda: layers.RNN(TwoStates(3), **EVERYTHING),
    "dropout": lambda: layers.LSTM(3, dropout=0.3, recurrent_dropout=0.2, seed=1, **EVERYTHING),
}


def gradients(layer, x, mask=None, training=False):
    """Explicit gradients of ½·Σ y², for all outputs."""
    record = Record()
    outputs = keras.tree.flatten(record.run(layer, x, mask=mask, training=training))
    result = sweep(record.calls, [(y, y) for y in outputs], layer.trainable_variables, [x])
    return [tf.convert_to_tensor(result.gradient(v)) for v in layer.trainable_variables] + [result.input_gradient(x)]


def tape_gradients(layer, x, mask=None):
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = keras.tree.flatten(layer(x, mask=mask))
        error = sum(tf.reduce_sum(tf.cast(y, "float32") ** 2) / 2 for y in outputs)
    return tape.gradient(error, [*(v.value for v in layer.trainable_variables), x])


@pytest.mark.sample(7)
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "mask"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dropout"])
def test_batch_and_time_may_be_unknown_when_compiled(kind, masked):
    layer, x = KINDS[kind](), tf.constant(normal(2, 9, 3), tf.float32)
    mask = tf.constant(np.arange(18).reshape(2, 9) % 4 > 0) if masked else None
    expected = tape_gradients(layer, x, mask)
    signature = [tf.TensorSpec([None, None, 3])] + [tf.TensorSpec([None, None], tf.bool)] * masked
    run = tf.function(lambda x, mask=None: gradients(layer, x, mask), input_signature=signature, autograph=False)
    for ours, theirs in zip(run(x, mask) if masked else run(x), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("known", ["what comes in", "what comes back"])
@pytest.mark.parametrize("make", [layers.LSTM, layers.SimpleRNN])
def test_one_of_them_may_know_that_the_sequences_are_short(make, known):
    layer, x = make(3, return_sequences=True), tf.constant(normal(2, 3, 3), tf.float32)
    expected = gradients(layer, x)

    def run(x):
        forward = tf.ensure_shape(x, [2, 3, 3]) if known == "what comes in" else x
        record = Record()
        y = record.run(layer, forward)
        dy = tf.reshape(y, tf.shape(x)) if known == "what comes in" else tf.ensure_shape(y, [2, 3, 3])
        result = sweep(record.calls, [(y, dy)], layer.trainable_variables, [forward])
        return [tf.convert_to_tensor(result.gradient(v)) for v in layer.trainable_variables] + [
            result.input_gradient(forward)
        ]

    compiled = tf.function(run, input_signature=[tf.TensorSpec([None, None, None])], autograph=False)
    for ours, theirs in zip(compiled(x), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["lstm", "gru", "gru-reset-before", "simple"])
def test_a_tape_over_the_backward_pass_in_a_graph(kind):
    layer, x = KINDS[kind](), tf.constant(normal(2, 7, 3), tf.float32)
    layer(x)

    def squared(first):
        return sum(tf.reduce_sum(g**2) for g in first)

    @tf.function(autograph=False)
    def second(of):
        with tf.GradientTape() as tape:
            tape.watch(x)
            first = squared(of(layer, x))
        return tape.gradient(first, [*(v.value for v in layer.trainable_variables), x][-1])

    np.testing.assert_allclose(second(gradients), second(tape_gradients), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["lstm", "gru", "gru-reset-before", "simple", "stack", "own-layers"])
def test_xla_compiles_it(kind):
    layer, x = KINDS[kind](), tf.constant(normal(2, 7, 3), tf.float32)
    expected = gradients(layer, x)
    compiled = tf.function(lambda: gradients(layer, x), autograph=False, jit_compile=True)()
    for ours, theirs in zip(compiled, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision(kind):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer, x = KINDS[kind](), tf.constant(normal(2, 4, 3), tf.float32)
    finally:
        keras.config.set_dtype_policy("float32")
    layer(x)
    for ours, weight in zip(gradients(layer, x, training=True), [*layer.trainable_variables, x], strict=True):
        assert ours.dtype == tf.float32
        assert ours.shape == weight.shape
    if kind != "dropout":
        for ours, theirs in zip(gradients(layer, x), tape_gradients(layer, x), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0.1, atol=0.1 * float(tf.reduce_max(tf.abs(theirs))))


@pytest.mark.parametrize("compiled", [False, True])
def test_the_state_of_a_stateful_layer_goes_on_as_in_stock_keras(compiled):
    x = tf.constant(normal(*X), tf.float32)
    stock = layers.LSTM(3, stateful=True)
    stock.build(x.shape)
    ours = layers.LSTM(3, stateful=True)
    ours.build(x.shape)
    ours.set_weights(stock.get_weights())
    run = tf.function(lambda: Record().run(ours, x), autograph=False) if compiled else lambda: Record().run(ours, x)
    np.testing.assert_allclose(run(), stock(x), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(run(), stock(x), rtol=1e-5, atol=1e-6)
    for a, b in zip(ours.states, stock.states, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_dropout_masks_are_drawn_once_and_forgotten(cell):
    layer, x = cell(3, dropout=0.4, recurrent_dropout=0.4, seed=3), tf.constant(normal(*X), tf.float32)
    layer.build(x.shape)
    seed = layer.cell.seed_generator.state
    start = seed.numpy()
    for training in (True, False):
        seed.assign(start)
        stock, after = layer(x, training=training), seed.numpy()
        seed.assign(start)
        ours = Record().run(layer, x, training=training)
        np.testing.assert_allclose(ours, stock, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(seed.numpy(), after)
        assert layer.cell._dropout_mask is None


def test_the_deltas_of_every_time_step_are_kept():
    layer, x = layers.LSTM(3, return_sequences=True), tf.constant(normal(*X), tf.float32)
    record = Record()
    y = record.run(layer, x)
    result = sweep(record.calls, [(y, y)], layer.trainable_variables)
    call = next(call for call in record.calls if call.op is layer)
    (delta,) = call.deltas
    assert call.op is layer
    assert delta.shape == (X[1], X[0], 4 * 3)
    np.testing.assert_allclose(tf.reduce_sum(delta, [0, 1]), result.gradient(layer.cell.bias), rtol=1e-5, atol=1e-6)


def test_a_changed_subclass_does_not_get_the_rule_of_its_base():
    class Scaled(layers.LSTM):
        def inner_loop(self, sequences, *args, **kwargs):
            return super().inner_loop(2 * sequences, *args, **kwargs)

    assert rule_for(Doubled(2)) is None
    assert rule_for(Scaled(2)) is None
    assert rule_for(layers.LSTM(2)).composition is rule_for(layers.RNN(Minimal(2))).composition
    check_rule(Case("scaled", lambda: Scaled(2), (X,), per_example=False))


def test_a_subclass_that_changes_nothing_keeps_the_rule():
    class Renamed(layers.GRUCell):
        """A cell of another name."""

    check_rule(Case("renamed", lambda: layers.RNN(Renamed(3)), (X,)))


def test_unroll_needs_a_length():
    layer = layers.GRU(2, unroll=True)
    run = tf.function(lambda x: Record().run(layer, x), autograph=False)
    layer.build((None, 4, 2))
    with pytest.raises(ValueError, match=r"'gru.*cannot be unrolled.*\(3, None, 2\)"):
        run.get_concrete_function(tf.TensorSpec([3, None, 2]))


def test_a_stateful_layer_needs_its_batch_size():
    layer = layers.GRU(2, stateful=True)
    layer.build((3, 4, 2))
    with pytest.raises(ValueError, match=r"Expected: 3\. Received: sequences of shape \(2, 4, 2\)"):
        Record().run(layer, tf.constant(normal(2, 4, 2)))
