"""What a callback needs of the loop: to act after every batch, after every epoch, or only to read the logs.

A callback of your own is taken to act after every epoch and every batch it has a method for. If it only reads the logs, and
neither the model nor the optimizer, it can say so, and many epochs or batches then share one compiled call:

    class Table(keras.callbacks.Callback):
        reads_only_logs = True

        def on_epoch_end(self, epoch, logs=None): …

How often it acts within an epoch it says by `batch_freq` (see `cadence.py`). With `epoch_end_bounds`, a dict name of a log ->
float, it can ask to be called at once, with the model as it is then, at the end of the first epoch in which that log is at or
below the bound, or is NaN (`StopAtError` does).
"""

import tensorflow as tf
from keras import callbacks as keras_callbacks

from keras_backprop import _keras
from keras_backprop.observers import declared
from keras_backprop.training.cadence import next_due
from keras_backprop.training.stock import is_stock

_READ_ONLY_LOGS = (
    keras_callbacks.CSVLogger,
    keras_callbacks.History,
    keras_callbacks.ProgbarLogger,
    keras_callbacks.RemoteMonitor,
)
_BATCH_METHODS = {
    "train": ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end"),
    "test": ("on_test_batch_begin", "on_test_batch_end"),
}
_EPOCH_METHODS = ("on_epoch_begin", "on_epoch_end")
_TEST_METHODS = ("on_test_begin", "on_test_end")
_SAVERS = keras_callbacks.BackupAndRestore, keras_callbacks.ModelCheckpoint


class Listeners:
    """The callbacks that hear of batches. They hear of each, in order, with its logs; the question is when a call must end.

    Args:
        callbacks: a Keras `CallbackList`.
        kind: "train" or "test", which batches.

    Attributes:
        any: bool, whether there are some.
        finite: set of names of logs: the call must end after the first step in which one of them is not finite.
        acting: list of str, the types of those because of which calls end within an epoch.
        may_stop: bool, whether some may end the training after a batch in the middle of a call.
    """

    def __init__(self, callbacks, kind):
        self._kind, self._callbacks = kind, callbacks
        found, listed = self._found(), _list_has_own(callbacks, _BATCH_METHODS[kind])
        self._heeded = self._not_idle(found)
        self.any = bool(self._heeded) or listed
        self.finite = {"loss"} if any(type(c) is keras_callbacks.TerminateOnNaN for c, _ in found) else set()
        self.may_stop = any(_said(c, "reads_only_logs", names, False) and not _is_known(c) for c, names in found)
        frequencies = [(c, _frequency(c, names)) for c, names in found]
        if listed:
            frequencies.append((callbacks, 1))
        self._frequencies = [(c, frequency) for c, frequency in frequencies if frequency != "epoch"]
        self.acting = [type(c).__name__ for c, n in self._frequencies if n != "saver" or c.save_freq != "epoch"]

    def outdated(self):
        """Whether others hear of batches now: one that had nothing to do there has, or has been given a method."""
        return self._not_idle(self._found()) != self._heeded

    def _found(self):
        methods = _BATCH_METHODS[self._kind]
        found = [(c, [name for name in methods if _has(c, name)]) for c in self._callbacks.callbacks]
        return [(c, names) for c, names in found if names and not _is_deaf(c, names)]

    @staticmethod
    def _not_idle(found):
        return [(c, names) for c, names in found if not _is_idle(c, names)]

    def until_due(self, step):
        """How many steps may be made until a callback must be called, when `step` have been made since training began."""
        return max(1, min((_until_due(c, n, step) for c, n in self._frequencies), default=2**31))

    def begin(self, batch):
        if self.any:
            getattr(self._callbacks, f"on_{self._kind}_batch_begin")(batch)

    def end(self, batch, logs):
        if self.any:
            getattr(self._callbacks, f"on_{self._kind}_batch_end")(batch, dict(logs))


def acting_on_epochs(callbacks):
    """The types of those that must be called after every epoch, before the next one starts: a list of str.

    Args:
        callbacks: a Keras `CallbackList`, whose class may have methods of its own.
    """
    found = [c for c in callbacks.callbacks if _acts_on_epochs(c)]
    return [type(c).__name__ for c in [*found, *([callbacks] if _list_has_own(callbacks, _EPOCH_METHODS) else [])]]


def _acts_on_epochs(callback):
    if type(callback) in _READ_ONLY_LOGS and all(is_stock(getattr(callback, name)) for name in _EPOCH_METHODS):
        return False
    return any(
        _has(callback, name) and not _said(callback, "reads_only_logs", [name], False) for name in _EPOCH_METHODS
    )


def act_on_validation(callbacks):
    """Whether some, or the list itself, must be called before and after validation, or during it."""
    names = (*_TEST_METHODS, *_BATCH_METHODS["test"])
    others = [c for c in callbacks.callbacks if not _is_bar(c, names)]
    return _list_has_own(callbacks, names) or any(_has(c, name) for c in others for name in names)


def own_beginnings(callbacks):
    """Whether something that is neither Keras's nor ours, and may act, is called at the beginning of epochs.

    Args:
        callbacks: a Keras `CallbackList`.
    """
    name = "on_epoch_begin"
    return _list_has_own(callbacks, [name]) or any(
        not is_stock(getattr(c, name)) and not _said(c, "reads_only_logs", [name], False) for c in callbacks.callbacks
    )


def bounds(callbacks):
    """The `epoch_end_bounds` of all callbacks: dict name of a log -> the largest of its bounds."""
    largest: dict = {}
    for callback in callbacks:
        for name, bound in declared(callback, "epoch_end_bounds", {}).items():
            largest[name] = max(bound, largest.get(name, bound))
    return largest


def _is_deaf(callback, names):
    """Whether it never needs to hear of a batch: it says so, or it is Keras's bar, which is moved otherwise."""
    return _is_bar(callback, names) or _said(callback, "batch_freq", names, None) == "never"


def _is_idle(callback, names):
    """Whether nothing is lost if it does not hear of batches for now: it is Keras's own, and saves at the end of epochs."""
    return type(callback) in _SAVERS and callback.save_freq == "epoch" and _is_saver(callback, names)


def _is_bar(callback, names):
    return type(callback) is keras_callbacks.ProgbarLogger and all(is_stock(getattr(callback, name)) for name in names)


def _frequency(callback, names):
    """After how many batches a callback with these methods acts: an int, "epoch" for never, "saver" for when it will save."""
    if _is_known(callback):
        return "epoch"
    if _is_saver(callback, names):
        return "saver"
    said = _said(callback, "batch_freq", names, None)
    if said is None:
        return "epoch" if _said(callback, "reads_only_logs", names, False) else 1
    is_count = isinstance(said, int) and not isinstance(said, bool) and said >= 1
    if said != "epoch" and not is_count:
        raise ValueError(
            f'The `batch_freq` of {type(callback).__name__} must be a number of batches, 1 or more, "epoch" or "never". '
            f"Received: {said!r}"
        )
    return said


def _is_known(callback):
    """Whether it is known to act on no batch: what there is to do (to end at a NaN, `finite`) is known as well."""
    if isinstance(callback, keras_callbacks.TensorBoard):
        if not all(_is_of(callback, name, (keras_callbacks.TensorBoard,)) for name in _BATCH_METHODS["train"]):
            return False
        by_epoch = (
            callback.update_freq == "epoch" and not _keras.profiles(callback) and not callback.write_steps_per_second
        )
        return by_epoch and not tf.summary.should_record_summaries()  # into a writer that is around `fit`
    if _full_name(callback) == "mlflow.tensorflow.callback.MlflowCallback":
        return callback.log_every_n_steps is None
    if type(callback) is keras_callbacks.TerminateOnNaN:
        return all(is_stock(getattr(callback, name)) for name in _BATCH_METHODS["train"])
    return _full_name(callback) == "tqdm.keras.TqdmCallback"


def _is_saver(callback, names):
    """Whether it acts on batches when it saves, and says by `save_freq` when that is."""
    if _full_name(callback) == _MLFLOW_CHECKPOINT:
        return True
    if not isinstance(callback, _SAVERS) or not is_stock(_keras.decides_on_saving(callback)):
        return False
    return all(_is_of(callback, name, _SAVERS) for name in names)


def _until_due(callback, frequency, step):
    if frequency == "saver":
        if callback.save_freq == "epoch":
            return 2**31
        if _full_name(callback) == _MLFLOW_CHECKPOINT:
            return callback.save_freq - (callback.global_step - callback.global_step_last_saving)
        return callback.save_freq - _keras.batches_since_saving(callback)
    return next_due(step, frequency, declared(callback, "first_batch", frequency)) - step


def _full_name(callback):
    """The class of a callback that is another package's, which need not be installed."""
    return f"{type(callback).__module__}.{type(callback).__name__}"


def _said(callback, attribute, names, otherwise):
    """An attribute that was said of all these methods, and not of some that a subclass has overridden."""
    for owner in (callback, *type(callback).__mro__):
        if attribute in vars(owner):
            return getattr(callback, attribute)
        if any(name in vars(owner) for name in names):
            return otherwise
    return otherwise


def _list_has_own(callbacks, names):
    """Whether a `CallbackList` has one of these methods that is not Keras's."""
    return any(not is_stock(getattr(callbacks, name)) for name in names)


def _has(callback, name):
    """Whether it has a method of its own. Keras marks the empty ones of `Callback`."""
    return not _keras.is_empty(callback, name)


def _is_of(callback, name, classes):
    """Whether a method is the one that Keras has written for one of these classes."""
    inherited = any(getattr(type(callback), name) is getattr(cls, name) for cls in classes if hasattr(cls, name))
    return inherited and is_stock(getattr(callback, name))


_MLFLOW_CHECKPOINT = "mlflow.tensorflow.callback.MlflowModelCheckpointCallback"
