"""Keras's savers in the compiled loop: they save when, and what, they save in stock Keras."""

import json

import h5py
import keras
import pytest

from keras_backprop.training.callbacks import Listeners
from tests.training import test_within_epochs as within


@pytest.mark.parametrize("save_freq", [3, 4, "epoch"])
def test_savers(tmp_path, save_freq):
    contents = []
    for cls in within.STOCK_AND_OURS:
        folder = tmp_path / cls.__name__
        name = "{epoch}.weights.h5" if save_freq == "epoch" else "{epoch}-{batch}.weights.h5"
        callbacks = [
            keras.callbacks.ModelCheckpoint(folder / name, save_freq=save_freq, save_weights_only=True),
            keras.callbacks.BackupAndRestore(folder / "backup", save_freq=save_freq, delete_checkpoint=False),
        ]
        within.trained(cls, callbacks)
        written = json.loads((folder / "backup/training_metadata.json").read_text())
        found = {"metadata": {name: written[name] for name in ("epoch", "batch")}}  # ours says more, to resume exactly
        for path in sorted(folder.rglob("*.h5")):
            with h5py.File(path) as file:
                found[path.name] = (
                    file["layers/a/vars/0"][...] if "layers/a" in file else file["layers/dense/vars/0"][...]
                )
        contents.append(found)
    within.assert_alike(*contents)


def test_only_savers_that_may_save_after_a_batch_hear_of_batches(tmp_path):
    class Own(keras.callbacks.ModelCheckpoint):
        def _should_save_on_batch(self, batch):
            return batch == 3

    def hears(callback):
        return Listeners(keras.callbacks.CallbackList([callback]), "train").any

    def patched(name):
        saver = keras.callbacks.ModelCheckpoint(path, save_weights_only=True)
        setattr(saver, name, lambda batch, logs=None: False)
        return saver

    path = tmp_path / "{epoch}.weights.h5"
    assert not hears(keras.callbacks.ModelCheckpoint(path, save_weights_only=True))
    assert not hears(keras.callbacks.BackupAndRestore(tmp_path))
    assert hears(keras.callbacks.ModelCheckpoint(path, save_weights_only=True, save_freq=3))
    assert hears(keras.callbacks.BackupAndRestore(tmp_path, save_freq=3))
    assert hears(Own(path, save_weights_only=True))
    assert hears(patched("on_train_batch_end")) and hears(patched("_should_save_on_batch"))


class SavesMoreOften(keras.callbacks.Callback):
    """Has a saver save after every second batch."""

    def __init__(self, saver, when):
        super().__init__()
        setattr(self, when, lambda number, logs=None: setattr(saver, "save_freq", 2))


@pytest.mark.parametrize("when", ["on_train_batch_end", "on_epoch_end", "on_epoch_begin"])
def test_a_saver_that_is_told_to_save_more_often_does(tmp_path, when):
    contents = []
    for cls in within.STOCK_AND_OURS:
        folder = tmp_path / cls.__name__
        saver = keras.callbacks.ModelCheckpoint(folder / "{epoch}-{batch}.weights.h5", save_weights_only=True)
        model = within.trained(cls, [SavesMoreOften(saver, when), saver])
        found = {}
        for path in sorted(folder.iterdir()):
            model.load_weights(path)
            found[path.name] = model.get_weights()
        contents.append(found)
    assert len(contents[0]) >= 6
    within.assert_alike(*contents)
