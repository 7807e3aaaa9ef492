"""Keras's own tests of trainers, models, callbacks and optimizers pass on our classes, but for a list with reasons."""

import importlib.util
import subprocess
import sys

import keras
import pytest

pytestmark = pytest.mark.skipif(
    keras.__version__.rsplit(".", 1)[0] != "3.15", reason="the list of differences is about the tests of Keras 3.15"
)
SOURCE = importlib.util.find_spec("keras.src.trainers.trainer_test")


def run(*arguments):
    command = [sys.executable, "-m", "tests.keras_own.run", "-q", "--tb=short", *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-1000:]
    return result.stdout


@pytest.mark.skipif(SOURCE is None, reason="this Keras ships without its tests")
def test_the_core_of_the_trainer():
    core = "fit_flow or adds_loss or nested_inputs or stop_loop"
    output = run("trainers/trainer_test.py", "-k", core)
    assert int(output.split(" train steps of ours")[0].split()[-1]) > 10


@pytest.mark.slow
@pytest.mark.skipif(SOURCE is None, reason="this Keras ships without its tests")
def test_all():
    run()
