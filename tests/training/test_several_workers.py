"""Real worker processes on this machine, against training in one process."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_backprop.training.launch import launch
from tests.training import problem

ROOT = pathlib.Path(__file__).parents[2]


def two_workers(folder, *arguments):
    """What the two workers report, and how often they were started again."""
    environment = {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, str(ROOT / "tests/training/problem.py"), str(folder), *arguments]
    restarts = launch(command, workers=2, restarts=1, timeout=240, environment=environment)
    return [json.loads((folder / f"{task}.json").read_text()) for task in (0, 1)], restarts


def one_process(*options):
    return problem.train(tf.distribute.get_strategy(), options)


def from_epoch(epoch, result):
    """The result as a training reports it that was resumed at `epoch`."""
    return {**result, "history": {name: values[epoch:] for name, values in result["history"].items()}}


def test_two_workers_reach_what_one_process_reaches(tmp_path):
    """Weights, optimizer state, history, evaluate and predict; batch norm, a regulariser, an uneven last batch."""
    workers, restarts = two_workers(tmp_path, "--options", "norm", "activity")
    assert restarts == 0
    expected = one_process("norm", "activity")
    for worker in workers:
        problem.assert_equal(worker, expected)
    assert workers[0] == workers[1]
    assert not (tmp_path / "backup").exists()
    saved = keras.saving.load_model(tmp_path / "epoch3.keras")
    for ours, theirs in zip(saved.get_weights(), expected["weights"], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["0", "1"], ids=["the chief", "another"])
def test_a_killed_worker_changes_nothing(tmp_path, killed):
    """SIGKILL in the middle of epoch 1; what follows is what would have followed."""
    workers, restarts = two_workers(tmp_path, "--kill", "8", "--killed", killed)
    assert restarts == 1 and (tmp_path / "killed").exists()
    for worker in workers:
        problem.assert_equal(worker, from_epoch(1, one_process()))


@pytest.mark.slow
def test_a_killed_worker_changes_nothing_with_backups_in_mid_epoch(tmp_path):
    """Resumed at batch 3 of epoch 1, with the metrics and the dropout's random numbers as they were."""
    (tmp_path / "never").mkdir()
    (tmp_path / "once").mkdir()
    options = ["--options", "norm", "dropout", "--save-freq", "3"]
    never, _ = two_workers(tmp_path / "never", *options)
    workers, restarts = two_workers(tmp_path / "once", "--kill", "10", *options)
    assert restarts == 1
    for worker in workers:
        problem.assert_equal(worker, from_epoch(1, never[0]))


def test_launch_gives_up_when_a_worker_fails_again(tmp_path):
    program = f"import pathlib, sys; pathlib.Path({str(tmp_path)!r}, 'ran').open('a').write('x'); sys.exit(3)"
    with pytest.raises(RuntimeError, match="ended with status 3 after 1 restart"):
        launch([sys.executable, "-c", program], workers=1, restarts=1)
    assert (tmp_path / "ran").read_text() == "xx"


def test_launch_ends_workers_that_hang():
    with pytest.raises(TimeoutError):
        launch([sys.executable, "-c", "import time; time.sleep(60)"], workers=2, timeout=0.5)


def test_launch_ends_the_others_when_one_is_killed(tmp_path):
    """And says on the command line how it ended."""
    program = "import os, signal, time\nif '\"index\": 1' in os.environ['TF_CONFIG']: os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)"
    script = tmp_path / "script.py"
    script.write_text(program)
    command = [sys.executable, str(ROOT / "keras_backprop/training/launch.py"), "--restarts", "0", str(script)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1 and "Worker 1 ended with status -9" in ended.stderr
