"""Steps that a monitor does not note are the same step without its operations: in each way on which the compiled loop gets its batches."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropModel
from keras_backprop.callbacks import BackwardMonitor, LocateNaN
from tests.gradients.ways import X, Y
from tests.watch.reference import told


def network(**arguments):
    """With state of every kind: statistics of batches, random numbers, moments of the optimizer."""
    keras.utils.set_random_seed(7)
    inputs = keras.Input((5,))
    h = layers.BatchNormalization(name="normal")(layers.Dense(6, "tanh", name="hidden")(inputs))
    out = layers.Dense(3, name="out")(layers.Dropout(0.3, seed=1, name="drop")(h))
    model = BackpropModel(inputs, out, name="net")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01, clipnorm=1.0), loss, metrics=["accuracy"], jit_compile=False, **arguments)
    return model


class EveryThirdBatch(keras.callbacks.Callback):
    batch_freq = 3

    def on_train_batch_end(self, batch, logs=None):
        """Asked for, within epochs."""


def in_memory(model, callbacks):
    return model.fit(X[:22], Y[:22], batch_size=4, epochs=5, verbose=0, callbacks=callbacks)


def step_by_step(model, callbacks):
    return model.fit(X, Y, batch_size=4, epochs=5, shuffle=False, verbose=0, callbacks=[EveryThirdBatch(), *callbacks])


def from_tf_data(model, callbacks):
    data = tf.data.Dataset.from_tensor_slices((X[:22], Y[:22])).batch(4)
    return model.fit(data, epochs=5, shuffle=False, verbose=0, callbacks=callbacks)


def one_batch_an_epoch(model, callbacks):
    return model.fit(X, Y, batch_size=len(X), epochs=20, verbose=0, callbacks=callbacks)


SAMPLED = [
    in_memory,
    from_tf_data,
    *(pytest.param(fit, marks=pytest.mark.slow) for fit in (step_by_step, one_batch_an_epoch)),
]


@pytest.mark.parametrize("fit", SAMPLED)
def test_figures_weights_and_logs_are_those_of_noting_every_step(fit):
    runs = {}
    for every in (None, 1, 4):
        monitor = BackwardMonitor(quantities=("norm", "update_ratio", "clipped_norm"), every=every or 1)
        model = network()
        history = fit(model, [] if every is None else [monitor])
        assert model.fit_path.compiled, model.fit_path
        runs[every] = monitor, model, history.history
    for every in (1, 4):
        assert runs[every][2] == runs[None][2]
        for one, another in zip(runs[every][1].get_weights(), runs[None][1].get_weights(), strict=True):
            np.testing.assert_array_equal(one, another)
    each, fourth = runs[1][0], runs[4][0]
    assert fourth.history.steps.tolist() == each.history.steps[::4].tolist()
    for step in fourth.history.steps:
        expected, figures = told(each.history, step), told(fourth.history, step)
        assert expected.keys() == figures.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(figures[name], value, 1e-5, 1e-9, err_msg=str(name))


def test_monitors_of_other_cadences_and_a_sentinel_side_by_side():
    second, third, last = BackwardMonitor(every=2), BackwardMonitor("out", "norm", every=3), BackwardMonitor()
    alone, model, other = BackwardMonitor("out", "norm", every=3), network(), network()
    for one, callbacks in ((model, [second, LocateNaN(), third, last]), (other, [alone])):
        one.fit(X, Y, batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=callbacks)
        assert one.fit_path.compiled
    assert second.history.steps.tolist() == list(range(0, 18, 2))
    assert third.history.steps.tolist() == alone.history.steps.tolist() == list(range(0, 18, 3))
    assert last.history.steps.tolist() == [5, 11, 17]
    for name in third.history.names():
        np.testing.assert_allclose(third.history.series(*name), alone.history.series(*name), 1e-6, err_msg=str(name))


def test_another_cadence_in_the_next_fit_is_no_other_trace():
    model = network()
    monitor = BackwardMonitor(every=4)
    in_memory(model, [monitor])
    function = model.train_function
    in_memory(model, [monitor])
    assert model.train_function is function
    assert monitor.history.steps.tolist() == [*range(0, 30, 4), *range(30, 60, 4)]
