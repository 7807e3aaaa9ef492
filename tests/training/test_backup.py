"""A training that is interrupted and resumed in one process; killed processes are in `test_several_workers.py`."""

import pathlib

import keras
import pytest
import tensorflow as tf

from tests.training import problem


class Interrupt(keras.callbacks.Callback):
    """An error after a number of batches."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def on_train_batch_end(self, batch, logs=None):
        self.batches -= 1
        if self.batches == 0:
            raise InterruptedError


@pytest.mark.parametrize("save_freq", ["epoch", 3])
def test_a_resumed_training_ends_as_if_never_interrupted(tmp_path, save_freq):
    """Weights, optimizer state, metrics and dropout; the folder's name is none of our business."""
    strategy, folder = tf.distribute.get_strategy(), tmp_path / "latest"
    backup = [keras.callbacks.BackupAndRestore(folder, save_freq=save_freq) for _ in range(2)]
    with pytest.raises(InterruptedError):
        problem.train(strategy, ["dropout"], callbacks=[backup[0], Interrupt(9)])
    assert {path.name for path in pathlib.Path(folder).iterdir()} == {"latest.weights.h5", "training_metadata.json"}
    resumed = problem.train(strategy, ["dropout"], callbacks=[backup[1]])
    never = keras.callbacks.BackupAndRestore(tmp_path / "never", save_freq=save_freq)  # and so in the same loop
    expected = problem.train(strategy, ["dropout"], callbacks=[never])
    expected["history"] = {name: values[1:] for name, values in expected["history"].items()}
    problem.assert_equal(resumed, expected, tolerance=0)
    assert not folder.exists()


@pytest.mark.parametrize(("renames", "epochs"), [(0, 0), (1, 1), (2, 1), (3, 2)])
def test_a_backup_that_ends_between_its_files_is_whole(tmp_path, monkeypatch, renames, epochs):
    """Killed before the renaming of the first or second backup's weights, or between that and the renaming of its epoch."""
    strategy, rename, left = tf.distribute.get_strategy(), tf.io.gfile.rename, [None] * renames

    def rename_or_die(*args, **kwargs):
        if not left:
            raise InterruptedError
        left.pop()
        rename(*args, **kwargs)

    monkeypatch.setattr(tf.io.gfile, "rename", rename_or_die)
    with pytest.raises(InterruptedError):
        problem.train(strategy, ["dropout"], callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup")])
    monkeypatch.undo()
    resumed = problem.train(strategy, ["dropout"], callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup")])
    expected = problem.train(strategy, ["dropout"], callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "never")])
    expected["history"] = {name: values[epochs:] for name, values in expected["history"].items()}
    problem.assert_equal(resumed, expected, tolerance=0)


def test_a_backup_is_whole_after_a_second_kill(tmp_path, monkeypatch):
    """First between the two renames of a backup, then, resumed, before the first rename of the next."""
    rename = tf.io.gfile.rename
    for allowed in (3, 1):  # two backups but for the last rename; that rename, made good
        left = [None] * allowed

        def rename_or_die(*args, left=left, **kwargs):
            if not left:
                raise InterruptedError
            left.pop()
            rename(*args, **kwargs)

        monkeypatch.setattr(tf.io.gfile, "rename", rename_or_die)
        with pytest.raises(InterruptedError):
            problem.train(
                tf.distribute.get_strategy(), callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup")]
            )
    monkeypatch.undo()
    resumed = problem.train(
        tf.distribute.get_strategy(), callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "backup")]
    )
    expected = problem.train(
        tf.distribute.get_strategy(), callbacks=[keras.callbacks.BackupAndRestore(tmp_path / "never")]
    )
    expected["history"] = {name: values[2:] for name, values in expected["history"].items()}
    problem.assert_equal(resumed, expected, tolerance=0)
