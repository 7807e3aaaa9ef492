"""What a callback needs of the loop: to act after every batch, after every epoch, or only to read the logs.

A callback of your own is taken to act after every epoch it has a method for. If it only reads the logs, and neither the model
nor the optimizer, it can say so, and many epochs then share one compiled call:

    class Table(keras.callbacks.Callback):
        reads_only_logs = True

        def on_epoch_end(self, epoch, logs=None): …

With `epoch_end_bounds`, a dict name of a log -> float, it can ask to be called at once, with the model as it is then, at the end
of the first epoch in which that log is at or below the bound, or is NaN (`StopAtError` does).
"""

from keras import callbacks as keras_callbacks

_READ_ONLY_LOGS = (
    keras_callbacks.CSVLogger,
    keras_callbacks.History,
    keras_callbacks.ProgbarLogger,
    keras_callbacks.RemoteMonitor,
)
_BATCH_METHODS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
_TEST_BATCH_METHODS = ("on_test_batch_begin", "on_test_batch_end")
_EPOCH_METHODS = ("on_epoch_begin", "on_epoch_end")
_TEST_METHODS = ("on_test_begin", "on_test_end")


def acts_on_batches(callback, validation):
    """Whether it must be called at every batch (`validation`: those of validation too)."""
    if getattr(callback, "batch_freq", None) == "epoch":  # nothing that matters within an epoch
        return False
    methods = _BATCH_METHODS + (_TEST_BATCH_METHODS if validation else ())
    return type(callback) is not keras_callbacks.ProgbarLogger and any(
        _has(callback, name) and not _saves_by_epoch(callback, name) for name in methods
    )


def acts_on_epochs(callback):
    """Whether it must be called after every epoch, before the next one starts."""
    if type(callback) in _READ_ONLY_LOGS:
        return False
    return any(_has(callback, name) and not _is_said_to_read_only_logs(callback, name) for name in _EPOCH_METHODS)


def acts_on_validation(callback):
    """Whether it must be called before and after validation."""
    return type(callback) is not keras_callbacks.ProgbarLogger and any(_has(callback, name) for name in _TEST_METHODS)


def bounds(callbacks):
    """The `epoch_end_bounds` of all callbacks: dict name of a log -> the largest of its bounds."""
    largest: dict = {}
    for callback in callbacks:
        for name, bound in getattr(callback, "epoch_end_bounds", {}).items():
            largest[name] = max(bound, largest.get(name, bound))
    return largest


def _is_said_to_read_only_logs(callback, name):
    """Whether `reads_only_logs` was said of this method, and not of one that a subclass has overridden."""
    for owner in (callback, *type(callback).__mro__):
        if "reads_only_logs" in vars(owner):
            return bool(vars(owner)["reads_only_logs"])
        if name in vars(owner):
            return False
    return False


def _has(callback, name):
    """Whether it has a method of its own. Keras marks the empty ones of `Callback`."""
    return not getattr(getattr(callback, name), "_is_default", False)


def _saves_by_epoch(callback, name):
    """A checkpoint's method for batches does nothing if it saves at the end of epochs."""
    saver = keras_callbacks.ModelCheckpoint
    is_savers = isinstance(callback, saver) and getattr(type(callback), name) is getattr(saver, name)
    return is_savers and callback.save_freq == "epoch"
