"""The options that SimpleRNN, GRU and LSTM share, as cases."""

import keras
import numpy as np
from keras import layers

from tests.checking import Case, normal

X = (3, 4, 2)
MASK = np.array([[True, True, False, True], [False, True, True, False], [False, False, False, False]])


def cases(layer, cell, states):
    """Cases of a recurrent layer class, its cell class, and its number of states."""

    def make(name, inputs=(X,), kwargs=None, units=3, **options):
        return Case(name, lambda: layer(units, **options), inputs, kwargs or {}, prepare=options.pop("prepare", None))

    masked = {"mask": MASK}
    initial = {"initial_state": [normal(3, 3, seed=7 + i) for i in range(states)]}
    shared = {"initial_state": [normal(1, 3, seed=7 + i) for i in range(states)]}
    dropout = {"training": True}
    everything = {"return_sequences": True, "return_state": True}
    return [
        make("last"),
        make("sequences", return_sequences=True),
        make("last-and-state", return_state=True),
        make("sequences-and-state", **everything),
        make("long", ((2, 11, 2),), **everything),
        make("one-step", ((2, 1, 2),), return_sequences=True),
        make("wide-input", ((2, 3, 9),), units=2, return_sequences=True),
        make("no-bias", use_bias=False, return_sequences=True),
        make("backwards", go_backwards=True, **everything),
        make("unroll", unroll=True, **everything),
        make("unroll-backwards", unroll=True, go_backwards=True),
        make("initial-state", kwargs=initial, **everything),
        make("initial-state-of-all-examples", kwargs=shared, unroll=True, **everything),
        make("mask-last", kwargs=masked),
        make("mask-last-and-state", kwargs=masked, return_state=True),
        make("mask-sequences", kwargs=masked, **everything),
        make("mask-zero-output", kwargs=masked, zero_output_for_mask=True, **everything),
        make("mask-zero-output-last", kwargs=masked, zero_output_for_mask=True, return_state=True),
        make("mask-backwards-unroll", kwargs=masked, go_backwards=True, unroll=True, **everything),
        make("mask-unroll-zero-output", kwargs=masked, zero_output_for_mask=True, unroll=True, **everything),
        make("mask-initial-state", kwargs={**masked, **initial}, **everything),
        make("relu", activation="relu", return_sequences=True),
        make("softplus-initial", activation="softplus", kwargs=initial),
        make("linear", activation=None, return_sequences=True),
        make("dropout", kwargs=dropout, dropout=0.4, return_sequences=True, seed=3),
        make("dropout-inference", dropout=0.4, recurrent_dropout=0.3, seed=3),
        make("recurrent-dropout", kwargs=dropout, recurrent_dropout=0.4, return_sequences=True, seed=3),
        make("both-dropouts", kwargs={**dropout, **masked}, dropout=0.3, recurrent_dropout=0.4, seed=3, **everything),
        make("both-dropouts-unroll", kwargs=dropout, dropout=0.3, recurrent_dropout=0.4, seed=3, unroll=True),
        make("stateful", stateful=True, return_sequences=True),
        make("stateful-mask", stateful=True, kwargs=masked, return_state=True),
        Case("softmax", lambda: layer(3, activation="softmax", return_sequences=True), (X,), per_example=False),
        Case("softmax-mask", lambda: layer(3, activation=keras.ops.softmax), (X,), masked, per_example=False),
        Case("frozen-layer", lambda: layer(3, trainable=False), (X,)),
        Case("frozen-bias", lambda: layer(3), (X,), prepare=_freeze_bias),
        Case("cell", lambda: cell(3), ((4, 2), [(4, 3)] * states)),
        Case("cell-no-bias", lambda: cell(3, use_bias=False), ((4, 2), [(4, 3)] * states)),
        Case("cell-activation", lambda: cell(3, activation="elu"), ((4, 2), [(4, 3)] * states)),
        Case("cell-inference", lambda: cell(3, dropout=0.3), ((4, 2), [(4, 3)] * states)),
        Case("rnn-of-cell", lambda: layers.RNN(cell(3), return_sequences=True), (X,)),
        Case("rnn-of-cell-mask", lambda: layers.RNN(cell(3), return_state=True), (X,), masked),
    ]


def _freeze_bias(layer):
    layer.cell.bias.trainable = False
