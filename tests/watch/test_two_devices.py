"""The monitor on two logical CPU devices, in a process of its own: devices are set once in a process."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]

PROGRAM = """
import numpy as np
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from tests.watch.reference import network, told
from tests.watch.test_equality import require_equal, watched

WAY = "two devices"
model = network(WAY)
require_equal(model, watched(model), rtol=2e-6, atol=1e-6)
print("as the tape")

one, two = (watched(network(way), 3, every=2) for way in ("Keras's loop", WAY))
assert two.history.steps.tolist() == [0, 2, 4, 6, 8]
for step in two.history.steps:
    expected, figures = told(one.history, step), told(two.history, step)
    assert expected.keys() < figures.keys()  # where the error is divided by the number of devices, there are links more
    for name in expected:
        if "clipped" not in name[2]:  # Keras clips each replica's part
            np.testing.assert_allclose(figures[name], expected[name], 2e-6, 1e-8, err_msg=str(name))
print("every second step")
"""


@pytest.mark.slow
def test_two_devices_are_as_one():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, check=False, timeout=240
    )
    assert run.stdout.splitlines()[-2:] == ["as the tape", "every second step"], run.stderr[-3000:]
