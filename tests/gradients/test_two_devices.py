"""The open places of the backward pass on two logical CPU devices, in a process of their own: devices are set once in a process."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]

PROGRAM = """
import json
import keras, numpy as np, tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

import keras_backprop
from keras_backprop import BackwardObserver, Gradients
from keras_backprop.gradients import ByPath, ClippedByExample
from tests.gradients.ways import trained, two_devices
from tests.privacy.problem import a_plan

mask = np.arange(30).reshape(5, 6) % 2


class Norms(BackwardObserver):
    def observe(self, link):
        if isinstance(link.call.op, keras.layers.Layer):
            self.note(link.path, tf.reduce_sum(tf.abs(link.upstream[0])))
            self.note(link.path + " steps", 1.0, over_steps="mean")


class Monitor(keras.callbacks.Callback):
    backward_observer = Norms()


def halved(call, dy):
    return Gradients(0.5 * dy * (1 - tf.square(call.output)))


results = {}
for name, options in {
    "held": {"gradients": ByPath({"hidden/kernel": mask, "out/*": 0.5})},
    "clipped": {"gradients": ClippedByExample(0.1)},
    "rules": {"rules": {keras.activations.tanh: halved}},
    "observed": {"callbacks": [Monitor()]},
}.items():
    for way in ("two devices", "Keras's loop"):
        model, before = trained(lambda: keras.optimizers.AdamW(0.05, weight_decay=0.1), way, **options)
        after = [keras.ops.convert_to_numpy(v).tolist() for v in model.trainable_weights]
        results[f"{name}, {way}"] = [after, [w.tolist() for w in before]]
    if name == "observed":
        results["figures"] = {key: float(value) for key, value in Monitor.backward_observer.read().items()}


class Own(keras_backprop.BackpropSequential):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.error(y, y_pred)


with two_devices().scope():
    model = keras_backprop.BackpropSequential([keras.Input((5,)), keras.layers.Dense(3, dtype="float16", name="half")])
    model.compile("sgd", "mse", gradients=a_plan())
    try:
        model.fit(np.ones((40, 5)), np.ones((40, 3)), verbose=0)
    except ValueError as error:
        results["half"] = str(error)

strategy, x = two_devices(), np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
for name, error in {
    "a mean": lambda y, p: keras.ops.mean((y - p) ** 2),
    "a loss": lambda y, p: keras.losses.MeanSquaredError()(y, p),
    "the compiled": "mse",
}.items():
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = (keras_backprop.BackpropSequential if error == "mse" else Own)([keras.Input((5,)), keras.layers.Dense(1)])
        model.error = error
        model.compile("sgd", error if error == "mse" else None)
    one = lambda x: model.backward_pass(x, tf.ones((3, 1))).example_norms()
    parts = strategy.experimental_distribute_values_from_function(lambda c: tf.constant(x[3 * c.replica_id_in_sync_group :][:3]))
    two = tf.function(lambda: tf.concat(strategy.experimental_local_results(strategy.run(one, (parts,))), 0))()
    results["norms, " + name] = [two.numpy().tolist(), one(tf.constant(x[:3])).numpy().tolist() + one(tf.constant(x[3:])).numpy().tolist()]


class ByName(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.mean((y_true - y_pred) ** 2, -1)

    def __call__(self, y_true, y_pred, sample_weight=None):
        return keras.ops.mean(self.call(y_true=y_true, y_pred=y_pred))


results["by name"] = []
for cls in (keras.Sequential, keras_backprop.BackpropSequential):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = cls([keras.Input((5,)), keras.layers.Dense(1)])
        model.compile("sgd", ByName())
    results["by name"].append(model.fit(x, np.ones((6, 1)), verbose=0, shuffle=False).history["loss"])
print("RESULT" + json.dumps(results))
"""


@pytest.fixture(scope="module")
def results():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=False)
    lines = [line for line in run.stdout.splitlines() if line.startswith("RESULT")]
    assert lines, run.stderr[-3000:]
    return json.loads(lines[0].removeprefix("RESULT"))


@pytest.mark.parametrize("name", ["held", "clipped", "rules", "observed"])
def test_two_devices_are_as_one(results, name):
    for two, one in zip(results[f"{name}, two devices"][0], results[f"{name}, Keras's loop"][0], strict=True):
        np.testing.assert_allclose(two, one, atol=2e-5)


def test_what_is_held_does_not_move(results):
    after, before = (np.array(weights[0]) for weights in results["held, two devices"])
    held = np.arange(30).reshape(5, 6) % 2 == 0
    np.testing.assert_array_equal(after[held], before[held])
    assert (after[~held] != before[~held]).all()


def test_figures_of_all_replicas(results):
    figures = results["figures"]
    assert figures["hidden"] > 0 and figures["out"] > 0 and figures["hidden steps"] == 1


@pytest.mark.parametrize("error", ["a mean", "a loss", "the compiled"])
def test_norms_on_two_devices_are_those_on_one(results, error):
    two, one = results[f"norms, {error}"]
    np.testing.assert_allclose(two, one, rtol=1e-5)


def test_private_sums_are_not_rounded_before_there_is_noise(results):
    assert "must be of single precision" in results["half"] and "half/kernel" in results["half"]


def test_a_loss_that_names_its_arguments(results):
    np.testing.assert_allclose(*results["by name"], rtol=1e-6)
