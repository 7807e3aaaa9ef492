"""Models, options and data drawn at random: 20 steps must show what stock Keras shows, in float64 within 1e-12."""

from dataclasses import dataclass

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

from tests.equality import compare
from tests.equality.options import DATA, OPTIMIZERS, with_epsilon_above_rounding

UNITS = st.integers(1, 4)
ACTIVATIONS = st.sampled_from(["linear", "relu", "tanh", "sigmoid", "softplus", "gelu", "elu", "softmax", "silu"])
PENALTIES = st.sampled_from([None, None, "l1", "l2", "l1l2"])
CONSTRAINTS = st.sampled_from([None, None, None, "non_neg", "unit_norm"])

VECTOR = {
    "dense": lambda u, a, p, c: layers.Dense(u, a, kernel_regularizer=p, kernel_constraint=c),
    "no bias": lambda u, a, p, c: layers.Dense(u, a, use_bias=False, activity_regularizer=p),
    "batch norm": lambda u, a, p, c: layers.BatchNormalization(momentum=0.7, gamma_regularizer=p),
    "layer norm": lambda u, a, p, c: layers.LayerNormalization(beta_regularizer=p),
    "dropout": lambda u, a, p, c: layers.Dropout(0.1 * u, seed=u),
    "noise": lambda u, a, p, c: layers.GaussianNoise(0.1, seed=u),
    "activation": lambda u, a, p, c: layers.Activation(a),
    "frozen": lambda u, a, p, c: layers.Dense(u, a, trainable=False),
    "prelu": lambda u, a, p, c: layers.PReLU(alpha_regularizer=p, shared_axes=None),
    "stack": lambda u, a, p, c: keras.Sequential([layers.Dense(u, a), layers.Dropout(0.2, seed=u)]),
}
SERIES = {
    "lstm": lambda u, a, p, c: layers.LSTM(u, return_sequences=True, kernel_regularizer=p),
    "gru": lambda u, a, p, c: layers.GRU(u, return_sequences=True, recurrent_dropout=0.1 * (u == 2), seed=u),
    "rnn": lambda u, a, p, c: layers.Bidirectional(layers.SimpleRNN(u, return_sequences=True)),
    "conv": lambda u, a, p, c: layers.Conv1D(u, 2, padding="causal", activation=a, kernel_regularizer=p),
    "pool": lambda u, a, p, c: layers.AveragePooling1D(2, 1, padding="same"),
    "distributed": lambda u, a, p, c: layers.TimeDistributed(layers.Dense(u, a)),
    **{name: VECTOR[name] for name in ("dense", "layer norm", "dropout", "activation", "batch norm")},
}
LOSSES = ["mse", "mae", "huber", "log_cosh", "mape", "poisson", "kl_divergence"]
REDUCTIONS = ["sum_over_batch_size", "sum", "mean", "mean_with_sample_weight"]


@dataclass(frozen=True)
class Link:
    """A layer of the model, and what it is joined with: nothing, its own input, or its input's branch beside it."""

    kind: str
    units: int
    activation: str
    penalty: str | None
    constraint: str | None
    joined: str


@dataclass(frozen=True)
class Program:
    """One drawn training run."""

    series: bool
    masked: bool
    links: tuple
    outputs: int
    loss: str
    reduction: str
    optimizer: str
    data: str
    weighted: bool
    examples: int
    batch_size: int
    validation: bool
    steps_per_execution: int
    eager: bool
    seed: int

    def __call__(self, k):
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
        x, y, w = self.arrays()
        inputs = keras.Input(x.shape[1:])
        h = layers.Masking()(inputs) if self.masked else inputs
        for link in self.links:
            h = self.join(link, h)
        if self.series:
            h = layers.GlobalAveragePooling1D()(h)
        outputs = [layers.Dense(2, "softplus", name=f"out_{i}")(h) for i in range(self.outputs)]
        model = k.Model(inputs, outputs if self.outputs > 1 else outputs[0])
        losses = [self.make_loss() for _ in outputs]
        model.compile(
            **with_epsilon_above_rounding(OPTIMIZERS[self.optimizer]()),
            loss=losses if self.outputs > 1 else losses[0],
            metrics=[["mse"]] * self.outputs if self.outputs > 1 else ["mse"],
            steps_per_execution=self.steps_per_execution,
            run_eagerly=self.eager,
        )
        given = DATA[self.data](x, [y] * self.outputs if self.outputs > 1 else y, w, self.batch_size)
        if self.data != "tf.data.Dataset":
            given["shuffle"] = False
        if self.validation:
            given["validation_data"] = (x[:5], [y[:5]] * self.outputs if self.outputs > 1 else y[:5])
        history = model.fit(**given, epochs=3 if self.eager else 5, verbose=0)
        return compare.observe(model, history, predicted=model.predict(x, verbose=0))

    def make_loss(self):
        functions = {"mse": "MeanSquaredError", "mae": "MeanAbsoluteError", "huber": "Huber", "log_cosh": "LogCosh"}
        functions |= {"mape": "MeanAbsolutePercentageError", "poisson": "Poisson", "kl_divergence": "KLDivergence"}
        return getattr(keras.losses, functions[self.loss])(reduction=self.reduction)

    def join(self, link, h):
        layer = (SERIES if self.series else VECTOR)[link.kind](
            link.units, link.activation, link.penalty, link.constraint
        )
        y = layer(h)
        if link.joined == "concatenated":
            return layers.Concatenate()([h, y])
        if link.joined == "added":
            return layers.Add()([y, layers.Dense(y.shape[-1])(h)])
        if link.joined == "twice" and y.shape == h.shape:
            return layer(y)
        return y

    def arrays(self):
        random = np.random.default_rng(self.seed)
        x = random.normal(size=(self.examples, 4, 3) if self.series else (self.examples, 5))
        if self.series:
            x[:: 2 + self.seed, 2:] = 0
        return (
            x,
            random.uniform(0.1, 1, (self.examples, 2)),
            random.uniform(0, 2, self.examples) if self.weighted else None,
        )


@st.composite
def programs(draw):
    series = draw(st.booleans())
    kinds = st.sampled_from(sorted(SERIES if series else VECTOR))
    joined = st.sampled_from(["", "", "added", "concatenated", "twice"])
    link = st.builds(Link, kinds, UNITS, ACTIVATIONS, PENALTIES, CONSTRAINTS, joined)
    links = tuple(draw(st.lists(link, min_size=1, max_size=4)))
    data = draw(st.sampled_from(["NumPy arrays", "tf.data.Dataset", "tensors"]))
    return Program(
        series,
        series and draw(st.booleans()) and not any(link.kind in ("conv", "pool") for link in links),
        links,
        draw(st.integers(1, 2)),
        draw(st.sampled_from(LOSSES)),
        draw(st.sampled_from(REDUCTIONS)),
        draw(st.sampled_from(sorted(OPTIMIZERS))),
        data,
        draw(st.booleans()),
        draw(st.integers(6, 20)),
        draw(st.sampled_from([4, 5, 32])),
        draw(st.booleans()),
        draw(st.sampled_from([1, 1, 2])),
        draw(st.booleans()),
        draw(st.integers(0, 5)),
    )


def check(program):
    stock, ours = (compare.run(program, k) for k in (compare.STOCK, compare.SUBJECTS["backprop"]))
    found = compare.differences(ours, stock, 1e-12)
    assert not found, "\n".join(found[:6])


QUIET = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck), "database": None}


@settings(max_examples=4, **QUIET)
@given(programs())
def test_a_random_program(program):
    check(program)


@pytest.mark.slow
@settings(max_examples=150, **QUIET)
@given(programs())
def test_many_random_programs(program):
    check(program)
