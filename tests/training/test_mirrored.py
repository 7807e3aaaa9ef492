"""Two logical CPU devices against one, and against stock Keras where one device defines nothing.

TensorFlow's devices are set once in a process, so the trainings run in one of their own.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.training import problem

ROOT = pathlib.Path(__file__).parents[2]

PROGRAM = """
import json, sys
import keras, tensorflow as tf
from tests.training import problem

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategies = {
    "one": tf.distribute.get_strategy(),
    "two": tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]),  # once: TensorFlow confuses the all-reduces of two of them
    "central": tf.distribute.experimental.CentralStorageStrategy(["CPU:0", "CPU:1"], "CPU:0"),
}
classes = {"stock": keras.Sequential, "ours": problem.BackpropSequential}
for line in sys.stdin:
    cls, strategy, options, arguments = json.loads(line)
    try:
        result = problem.train(strategies[strategy], options, cls=classes[cls], **arguments)
    except Exception as error:
        result = f"{type(error).__name__}: {error}"
    print("RESULT" + json.dumps(result), flush=True)
"""


@pytest.fixture(scope="module")
def train():
    """`train(cls, strategy, *options, **arguments)` in a process with two devices; see `problem.train`."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:

        def ask(cls, strategy, *options, **arguments):
            process.stdin.write(json.dumps([cls, strategy, options, arguments]) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                if line.startswith("RESULT"):
                    return json.loads(line.removeprefix("RESULT"))
            raise RuntimeError("The process with two devices has ended.")

        yield ask
        process.kill()


SLOW = pytest.mark.slow
CASES = [
    pytest.param(("activity", "own loss"), {}, id="regularisers, a loss of one's own"),
    pytest.param(("norm",), {}, id="synchronized batch norm"),
    pytest.param(("norm", "activity"), {}, id="penalties while replicas take turns", marks=SLOW),
    pytest.param(("norm",), {"rows": 33}, id="a device without examples", marks=SLOW),
    pytest.param((), {"steps_per_execution": 3}, id="several steps an execution", marks=SLOW),
    pytest.param(("norm",), {"run_eagerly": True}, id="eager", marks=SLOW),
]


@pytest.mark.parametrize(("options", "arguments"), CASES)
def test_two_devices_train_as_one(train, options, arguments):
    """Weights, optimizer state, history, validation, evaluate, predict, with an uneven last batch."""
    problem.assert_equal(train("ours", "two", *options, **arguments), train("ours", "one", *options, **arguments))


@pytest.mark.parametrize(
    "options",
    [("dropout",), pytest.param(("local norm",), marks=SLOW), pytest.param(("sum",), marks=SLOW)],
)
def test_two_devices_train_as_stock_keras(train, options):
    """What depends on the device: dropout draws its own mask, batch norm normalizes its own part of the batch."""
    problem.assert_equal(train("ours", "two", *options, rows=32), train("stock", "two", *options, rows=32))


@SLOW
@pytest.mark.parametrize("options", [("masked",), ("sum",), ("mean_with_sample_weight",)])
def test_the_divisor_of_a_mean_is_that_of_the_whole_batch(train, options):
    """The weights; the loss that Keras reports is the mean of what the replicas report."""
    two, one = (train("ours", strategy, *options) for strategy in ("two", "one"))
    problem.assert_equal(*({"weights": result["weights"], "history": {}} for result in (two, one)))


def test_xla_is_refused(train):
    assert "NotImplementedError: XLA cannot compile" in train("ours", "two", jit_compile=True)


def test_other_strategies_are_refused_before_the_first_update(train):
    for epochs in (3, 0):
        refusal = train("ours", "central", epochs=epochs)
        assert "NotImplementedError: Training under CentralStorageStrategy is not supported" in refusal
