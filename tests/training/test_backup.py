"""A training that is interrupted and resumed in one process; killed processes are in `test_several_workers.py`."""

import pathlib

import keras
import pytest
import tensorflow as tf

from tests.after_batches import AfterBatches, raises
from tests.training import problem


@pytest.mark.parametrize("save_freq", ["epoch", 3])
def test_a_resumed_training_ends_as_if_never_interrupted(tmp_path, save_freq):
    """Weights, optimizer state, metrics and dropout; the folder's name is none of our business."""
    strategy, folder = tf.distribute.get_strategy(), tmp_path / "latest"
    backup = [keras.callbacks.BackupAndRestore(folder, save_freq=save_freq) for _ in range(2)]
    with pytest.raises(InterruptedError):
        problem.train(strategy, ["dropout"], callbacks=[backup[0], AfterBatches(9, raises(InterruptedError))])
    assert {path.name for path in pathlib.Path(folder).iterdir()} == {"latest.weights.h5", "training_metadata.json"}
    resumed = problem.train(strategy, ["dropout"], callbacks=[backup[1]])
    never = keras.callbacks.BackupAndRestore(tmp_path / "never", save_freq=save_freq)  # and so in the same loop
    expected = problem.train(strategy, ["dropout"], callbacks=[never])
    expected["history"] = {name: values[1:] for name, values in expected["history"].items()}
    # In mid-epoch Keras's loop resumes, whose threads round a product and a sum once; the compiled loop's one thread does twice.
    problem.assert_equal(resumed, expected, tolerance=0 if save_freq == "epoch" else 1e-7)
    assert not folder.exists()


def train(folder, options=("dropout",)):
    """A training with a backup in the folder."""
    return problem.train(tf.distribute.get_strategy(), options, callbacks=[keras.callbacks.BackupAndRestore(folder)])


def assert_resumes(tmp_path, epochs, options=("dropout",)):
    """The training goes on from `tmp_path / "backup"` after so many epochs, and ends as one that was never interrupted."""
    resumed, expected = train(tmp_path / "backup", options), train(tmp_path / "never", options)
    expected["history"] = {name: values[epochs:] for name, values in expected["history"].items()}
    problem.assert_equal(resumed, expected, tolerance=0)


def assert_killed_after(renames, folder, options=("dropout",)):
    """Train until more than so many files would be renamed."""
    rename, left = tf.io.gfile.rename, [None] * renames

    def rename_or_die(*args, **kwargs):
        if not left:
            raise InterruptedError
        left.pop()
        rename(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(tf.io.gfile, "rename", rename_or_die)
        train(folder, options)


@pytest.mark.parametrize(("renames", "epochs"), [(0, 0), (1, 1), (2, 1), (3, 2)])
def test_a_backup_that_ends_between_its_files_is_whole(tmp_path, renames, epochs):
    """Killed before the renaming of the first or second backup's weights, or between that and the renaming of its epoch."""
    assert_killed_after(renames, tmp_path / "backup")
    assert_resumes(tmp_path, epochs)


def test_a_backup_is_whole_after_a_second_kill(tmp_path):
    """First between the two renames of a backup, then, resumed, before the first rename of the next."""
    assert_killed_after(3, tmp_path / "backup", ())
    assert_killed_after(1, tmp_path / "backup", ())  # the rename that was left over, made good
    assert_resumes(tmp_path, 2, ())
