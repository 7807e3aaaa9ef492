"""Names of ours for what `BackupAndRestore` keeps under private ones: a killed worker resumes from what is written there."""

from typing import Any

import keras


def is_backup(callback: Any) -> bool:
    """Whether it is a `BackupAndRestore` that writes as Keras's does."""
    return getattr(type(callback), "_save_model", None) is keras.callbacks.BackupAndRestore._save_model


class BackupParts:
    """The private side of a `BackupAndRestore`.

    Attributes:
        load: function without arguments, Keras's own way to restore weights and epoch.
        weights_path, state_path: where it writes them.
    """

    def __init__(self, callback: Any) -> None:
        self._callback, self.load = callback, callback._load_model
        self.weights_path, self.state_path = callback._weights_path, callback._training_metadata_path

    @property
    def epoch(self) -> int:
        """The epoch of which the callback was told last."""
        return self._callback._current_epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._callback._current_epoch = epoch

    @property
    def last_batch(self) -> int:
        """The batch of which it was told last."""
        return self._callback._last_batch_seen
