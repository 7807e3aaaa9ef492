"""A process killed by SIGKILL in mid-epoch and started again with `BackupAndRestore` ends like one that was never killed.

The model has no dropout: Keras keeps no seed in a checkpoint, with its own models as with ours.
"""

import signal
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import os, signal, sys
import keras, numpy as np
from tests.equality import compare, small

which, folder, kill = sys.argv[1:]
keras.utils.set_random_seed(7)
k = compare.STOCK if which == "stock" else compare.SUBJECTS[which]
inputs = keras.Input((6,))
h = keras.layers.BatchNormalization()(keras.layers.Dense(5, "tanh")(inputs))
model = k.Model(inputs, keras.layers.Dense(1)(h))
model.compile("adam", "mse")

def die(batch, logs):
    if kill == "kill" and int(model.optimizer.iterations) == 22:
        os.kill(os.getpid(), signal.SIGKILL)

backup = keras.callbacks.BackupAndRestore(folder + "/backup")
small.fitted(model, callbacks=[backup, keras.callbacks.LambdaCallback(on_train_batch_end=die)])
np.savez(folder + "/" + which + ".npz", *[v.numpy() for v in model.variables + model.optimizer.variables])
"""


@pytest.mark.slow
def test_killed_in_mid_epoch(tmp_path):
    def run(which, kill):
        return subprocess.run([sys.executable, "-c", PROGRAM, which, str(tmp_path), kill], timeout=300).returncode

    assert run("stock", "") == 0
    assert run("backprop", "kill") == -signal.SIGKILL
    assert (tmp_path / "backup").exists() and not (tmp_path / "backprop.npz").exists()
    assert run("backprop", "") == 0
    stock, ours = np.load(tmp_path / "stock.npz"), np.load(tmp_path / "backprop.npz")
    assert stock.files == ours.files
    for name in stock.files:
        np.testing.assert_allclose(ours[name], stock[name], rtol=1e-6, atol=1e-6)
