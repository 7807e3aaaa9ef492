"""Cells that people write: Keras's own loop runs, and is followed."""

import numpy as np
import pytest
from keras import layers

from keras_backprop import check_layer
from keras_backprop.chain.record import Record
from tests.checking import Case, check_rule, normal
from tests.rules.layers.rnn.cells import Doubled, Minimal, Plain, TwoStates, WithDropout
from tests.rules.layers.rnn.options import MASK, X

EVERYTHING = {"return_sequences": True, "return_state": True}
MASKED = {"mask": MASK}


def make(name, cell, kwargs=None, per_example=False, **options):
    return Case(name, lambda: layers.RNN(cell(), **options), (X,), kwargs or {}, per_example=per_example)


CASES = [
    make("last", lambda: Minimal(3)),
    make("sequences", lambda: Minimal(3), **EVERYTHING),
    make("backwards", lambda: Minimal(3), go_backwards=True, **EVERYTHING),
    make("unroll", lambda: Minimal(3), unroll=True, **EVERYTHING),
    make("initial-state", lambda: Minimal(3), {"initial_state": [normal(3, 3, seed=4)]}),
    make("mask", lambda: Minimal(3), MASKED, **EVERYTHING),
    make("mask-last", lambda: Minimal(3), MASKED),
    make("mask-zero-output", lambda: Minimal(3), MASKED, zero_output_for_mask=True, **EVERYTHING),
    make("mask-unroll", lambda: Minimal(3), MASKED, unroll=True, return_sequences=True),
    make("stateful", lambda: Minimal(3), stateful=True),
    make("layers", lambda: TwoStates(3), per_example=True, **EVERYTHING),
    make("layers-last", lambda: TwoStates(3)),
    make("layers-last-mask", lambda: TwoStates(3), MASKED, per_example=True, return_state=True),
    make("layers-unroll-mask", lambda: TwoStates(3), MASKED, per_example=True, unroll=True, **EVERYTHING),
    make("overridden-call", lambda: Doubled(3), **EVERYTHING),
    make("no-layer", Plain, return_sequences=True),
    make("stack-of-both", lambda: [layers.LSTMCell(2), Minimal(3), TwoStates(2)], MASKED, **EVERYTHING),
    make("stack", lambda: [Minimal(2), Minimal(3)], **EVERYTHING),
    make("stack-in-a-stack", lambda: [layers.StackedRNNCells([layers.GRUCell(2), Minimal(2)]), layers.GRUCell(3)]),
]


@pytest.mark.sample(8)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


@pytest.mark.parametrize("unroll", [False, True])
def test_random_numbers_are_drawn_as_stock_keras_draws_them(unroll):
    """In eager mode. In one compiled evaluation the state of the random numbers cannot
    leave the loop; stock finite differences of a loop see other numbers."""
    layer = layers.RNN(WithDropout(3), return_sequences=True, unroll=unroll)
    x = np.float32(normal(*X))
    check_layer(layer, x, finite_differences=unroll, training=True).raise_if_failed()
    seed = layer.cell.dropout.seed_generator.state
    start = seed.numpy()
    stock, after = layer(x, training=True), seed.numpy()
    seed.assign(start)
    np.testing.assert_allclose(Record().run(layer, x, training=True), stock, rtol=1e-6)
    np.testing.assert_array_equal(seed.numpy(), after)
