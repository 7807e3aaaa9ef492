"""Keras's `fit`: where wrappers are put around it, how its steps are found, how its logs become numbers."""

import contextlib
import functools
import inspect
import threading

import keras
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.backend.tensorflow import trainer as _trainer
from keras.src.backend.tensorflow.trainer import TensorFlowTrainer, TFEpochIterator
from keras.src.saving import saving_lib as _saving_lib
from keras.src.utils import python_utils as _python_utils

from keras_backprop._keras.standing_in import current, replaced

fit = TensorFlowTrainer.fit
"""Keras's own `fit`, whatever has been wrapped around `keras.Model.fit`."""

_body = next(
    cell for name, cell in zip(fit.__code__.co_freevars, fit.__closure__, strict=True) if name == "fn"
)  # of the function that shortens the tracebacks of `fit`
fit_batch_by_batch = _body.cell_contents
"""What that does, without shortening tracebacks."""

_lock, _fits = threading.Lock(), 0


@contextlib.contextmanager
def fit_replaced(cls, body):
    """For the duration of the block, inside of Keras's `fit` runs `body(model, …)`, for models of the class `cls`.

    Whoever has wrapped something around `keras.Model.fit` is called as always, and calls that.
    """
    global _fits

    def inside(self, *args, **kwargs):
        return (body if isinstance(self, cls) else fit_batch_by_batch)(self, *args, **kwargs)

    with _lock:
        _fits += 1
        _body.cell_contents = inside
    try:
        yield
    finally:
        with _lock:
            _fits -= 1
            if not _fits:
                _body.cell_contents = fit_batch_by_batch


def logs_that_can_be_interrupted():
    """For the duration of the block, in this thread, Keras makes numbers of logs without swallowing Ctrl-C.

    Its own function has a bare `except`, and a short epoch spends much of its time there.
    """
    return replaced(_python_utils, pythonify_logs=pythonify_logs)


def pythonify_logs(logs):
    """Numbers of logs, as Keras makes them."""
    numbers: dict = {}
    for key, value in sorted((logs or {}).items()):
        if isinstance(value, dict):
            numbers.update(pythonify_logs(value))
            continue
        with contextlib.suppress(Exception):  # what is no number stays what it is
            value = keras.ops.convert_to_numpy(value) if keras.ops.is_tensor(value) else value
            value = float(value)
        numbers[key] = value
    return numbers


@contextlib.contextmanager
def epochs_given(iterator):
    """For the duration of the block, in this thread, the next `fit` of Keras takes this `TFEpochIterator` and makes none.

    A generator has been asked for its first batches already.
    """
    made = []

    def make(*args, **kwargs):
        made.append(iterator)
        return iterator if len(made) == 1 else TFEpochIterator(*args, **kwargs)

    with replaced(_trainer, TFEpochIterator=make):
        yield


@contextlib.contextmanager
def epoch_goes_on(iterator, begun):
    """For the duration of the block, in this thread, a `TFEpochIterator` is not reset, and its next epoch is one that has begun.

    Begun anew, data that are shuffled would come in the order of another epoch, and a `PyDataset` hear of an end that was none.

    Args:
        iterator: a `TFEpochIterator`.
        begun: iterator over the steps of the epoch; None if none has begun.
    """
    enumerate_iterator, epochs = iterator._enumerate_iterator, [begun]

    def steps():
        going, epochs[0] = epochs[0], None
        return enumerate_iterator() if going is None else going

    with replaced(iterator, reset=lambda: None, _enumerate_iterator=steps):
        yield


@contextlib.contextmanager
def name_scopes_kept():
    """If the block raises, the name scopes that this thread is in are those of before: Keras leaves them entered.

    What is made afterwards would have the names of a model that could not be traced.
    """
    stack = get_global_attribute("name_scope_stack", default=[], set_to_default=True)
    before = list(stack)
    try:
        yield
    except BaseException:
        stack[:] = before
        raise


def saving_once_prepared():
    """For the duration of the block, in this thread, Keras looks up once what of its classes is not saved.

    It means to, and stores what it has found under another name than it looks for. So each file costs it some ten objects of
    its classes, made to ask for their attributes; for a small model that is a third of the time.
    """
    return replaced(_saving_lib, get_attr_skipset=_not_saved)


@functools.cache
def _not_saved(kind):
    return current(_saving_lib, "get_attr_skipset")(kind)


def step_of(function):
    """The `tf.function` of one step, in a `train_function` or `test_function` that Keras has made.

    Raises:
        LookupError: it is somebody else's function.
    """
    try:
        on_data = inspect.getclosurevars(inspect.unwrap(function)).nonlocals["one_step_on_data"]
        return inspect.getclosurevars(on_data).nonlocals["step_func"]
    except (KeyError, TypeError):
        raise LookupError(f"Keras has not made the function {function!r}") from None
