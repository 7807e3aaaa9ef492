"""The rules of `rules/layers/rnn/wrappers.py`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_backprop
from keras_backprop import check_layer
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, check_rule, normal
from tests.rules.layers.rnn.cells import Minimal
from tests.rules.layers.rnn.options import MASK, X

MASKED = {"mask": MASK}
EVERYTHING = {"return_sequences": True, "return_state": True}


def both(name, layer, kwargs=None, inputs=(X,), **options):
    return Case(name, lambda: layers.Bidirectional(layer(), **options), inputs, kwargs or {})


def each(name, layer, shape=(3, 4, 2), kwargs=None, **options):
    return Case(name, lambda: layers.TimeDistributed(layer()), (shape,), kwargs or {}, **options)


def initial(count):
    return {"initial_state": [normal(3, 2, seed=5 + i) for i in range(count)]}


CASES = [
    both("concat", lambda: layers.LSTM(2)),
    both("concat-sequences", lambda: layers.LSTM(2, return_sequences=True)),
    *(both(f"{mode}-state", lambda: layers.GRU(2, **EVERYTHING), merge_mode=mode) for mode in ("sum", "mul", "ave")),
    *(both(f"{mode}-last", lambda: layers.SimpleRNN(2), merge_mode=mode) for mode in ("sum", "mul", "ave")),
    both("none", lambda: layers.LSTM(2, return_sequences=True), merge_mode=None),
    both("none-last", lambda: layers.LSTM(2), merge_mode=None),
    both("none-state", lambda: layers.GRU(2, **EVERYTHING), merge_mode=None),
    both("mask", lambda: layers.LSTM(2, **EVERYTHING), MASKED),
    both("mask-last", lambda: layers.GRU(2), MASKED),
    both("initial-state", lambda: layers.LSTM(2, return_sequences=True), initial(4)),
    both("initial-state-gru", lambda: layers.GRU(2, return_state=True), {**initial(2), **MASKED}),
    both("dropout", lambda: layers.LSTM(2, dropout=0.4, recurrent_dropout=0.3), {"training": True}),
    both("stateful", lambda: layers.GRU(2, stateful=True)),
    both("other-backward-layer", lambda: layers.GRU(2), backward_layer=layers.LSTM(3, go_backwards=True)),
    both("rnn-of-cells", lambda: layers.RNN([layers.GRUCell(2), layers.LSTMCell(2)])),
    both("conv-lstm", lambda: layers.ConvLSTM1D(2, 2, return_sequences=True), inputs=((2, 3, 4, 2),)),
    each("dense", lambda: layers.Dense(3, activation="tanh")),
    each("dense-frozen", lambda: layers.Dense(3, trainable=False)),
    each("convolution", lambda: layers.Conv2D(2, 2, activation="relu"), (2, 3, 4, 4, 2)),
    each("normalization", lambda: layers.LayerNormalization()),
    each("pooling", lambda: layers.GlobalMaxPooling1D(), (2, 3, 4, 2)),
    each("flatten", lambda: layers.Flatten(), (2, 3, 2, 2)),
    each("model", lambda: keras.Sequential([keras.Input((2,)), layers.Dense(3, "relu"), layers.Dense(2)])),
    each("dropout", lambda: layers.Dropout(0.4, seed=3), kwargs={"training": True}),
    each("batch-statistics", lambda: layers.BatchNormalization(), kwargs={"training": True}, per_example=False),
    each("recurrent", lambda: layers.GRU(2), (2, 3, 4, 2)),
    each("recurrent-masks", lambda: layers.GRU(2), (2, 3, 4, 2), {"mask": np.arange(24).reshape(2, 3, 4) % 5 > 0}),
    each("mask-unused", lambda: layers.Dense(2), kwargs=MASKED),
    each("bidirectional", lambda: layers.Bidirectional(layers.SimpleRNN(2)), (2, 2, 3, 2)),
    Case(
        "stacked-cells",
        lambda: layers.StackedRNNCells([layers.GRUCell(3), layers.LSTMCell(2), Minimal(2)]),
        ((4, 2), [[(4, 3)], [(4, 2), (4, 2)], [(4, 2)]]),
        per_example=False,
    ),
    Case("one-stacked-cell", lambda: layers.StackedRNNCells([layers.LSTMCell(2)]), ((4, 2), [[(4, 2), (4, 2)]])),
]


@pytest.mark.sample(14)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


def test_masks_travel_with_the_tensor():
    model = keras.Sequential(
        [layers.Embedding(5, 3, mask_zero=True), layers.Bidirectional(layers.LSTM(2)), layers.Dense(2)]
    )
    check_layer(model, np.array([[1, 2, 0, 0], [3, 0, 4, 1]])).raise_if_failed()


def test_time_distributed_over_an_unknown_number_of_steps():
    layer = layers.TimeDistributed(layers.Dense(3))
    x = tf.constant(normal(2, 4, 5), tf.float32)
    expected = layer(x)
    run = tf.function(
        lambda x: Record().run(layer, x), autograph=False, input_signature=[tf.TensorSpec([None, None, 5])]
    )
    np.testing.assert_allclose(run(x), expected, rtol=1e-5)

    for inner in (layers.BatchNormalization(), layers.UnitNormalization(axis=-2)):
        noticing = layers.TimeDistributed(inner)
        noticing(x)
        run = tf.function(lambda x, noticing=noticing: Record().run(noticing, x, training=True), autograph=False)
        np.testing.assert_allclose(run(x), noticing(x, training=True), rtol=1e-5)


def test_time_distributed_over_pictures_of_unknown_size():
    layer = layers.TimeDistributed(layers.Dense(2))
    x = keras.random.normal((2, 3, 4, 5, 2))
    layer(x)
    weights = layer.trainable_variables

    @tf.function(input_signature=[tf.TensorSpec((None, 3, None, None, 2))])
    def ours(x):
        with Record(weights) as record:
            y = record.run(layer, x)
        result = sweep(record.calls, [(y, tf.cos(y))], weights)
        return y, [result.gradient(v) for v in weights]

    with tf.GradientTape() as tape:
        y = layer(x)
        error = tf.reduce_sum(tf.sin(y))
    for a, b in zip(keras.tree.flatten(ours(x)), [y, *tape.gradient(error, weights)], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_model_that_would_notice_runs_step_by_step():
    """Operations over the batch, penalties, activations of one's own."""
    a = keras.Input((4,))
    h = layers.Dense(3)(a)
    centred = keras.Model(a, h - keras.ops.mean(h, axis=0, keepdims=True))
    penalised = keras.Sequential([keras.Input((4,)), layers.Dense(3, activity_regularizer="l2")])
    own = layers.Dense(3, lambda z: z / keras.ops.sum(z, axis=0, keepdims=True))
    x, y = np.random.default_rng(0).normal(size=(5, 2, 4)), np.ones((5, 2, 3))
    for inner in (centred, penalised, own):
        inputs = keras.Input((2, 4))
        model = keras.Model(inputs, layers.TimeDistributed(inner)(inputs))
        model.compile(loss="mse")
        result = keras_backprop.backward(model, x, y)
        np.testing.assert_allclose(result.y_pred, model(x, training=True), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(result.loss, model.evaluate(x, y, verbose=0), rtol=1e-5)


def side_by_side(inputs):
    return layers.Concatenate()([layers.SimpleRNN(2)(inputs), layers.SimpleRNN(2, go_backwards=True)(inputs)])


def states(inputs):
    rnn = layers.Bidirectional(layers.SimpleRNN(2, return_state=True, return_sequences=True))
    return layers.Concatenate()(rnn(inputs)[1:])


@pytest.mark.parametrize(
    "build", [layers.Bidirectional(layers.SimpleRNN(2)), side_by_side, states], ids=["bidirectional", "two", "states"]
)
def test_short_sequences_of_a_batch_of_known_size(build):
    """TensorFlow's graph optimizer moves an activation behind a concatenation, and spoils the stack of the steps."""
    inputs = keras.Input((3, 2))
    outputs = layers.Dense(1)(build(inputs))
    x, y = normal(2, 3, 2).astype("float32"), np.ones((2, 1), "float32")
    losses = []
    for cls in (keras.Model, keras_backprop.BackpropModel):
        model = cls(inputs, outputs)
        before = model.get_weights()
        model.compile("sgd", "mse")
        losses.append([float(model.train_on_batch(x, y)) for _ in range(3)])
        model.set_weights(before)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
