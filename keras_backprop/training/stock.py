"""What of a model is its user's own, in all that the compiled loop takes the place of, or relies on."""

import functools
import inspect
import pathlib
import traceback

import keras
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.training.path import NotCompiledError
from keras_backprop.training.update import unwrapped

_FUNCTIONS = ("make_train_function", "make_test_function", "_get_metrics_result_or_logs")
_STEPS = ("train_step", "test_step", "metrics", "compute_metrics", "get_metrics_result", "reset_metrics", "evaluate")


def require_traced_steps(model):
    """Look whether the steps of a compiled model are traced by Keras, so that a loop can be made of them.

    Raises:
        NotCompiledError: it gets the loop in Python.
    """
    if model.epochs_per_execution is None:
        raise NotCompiledError("epochs_per_execution=None")
    if not model.compiled_step:
        raise NotCompiledError("the model says compiled_step = False")
    if model.run_eagerly or tf.config.functions_run_eagerly():
        raise NotCompiledError("it runs eagerly")
    if _keras.strategy_of(model) is not None or tf.distribute.has_strategy():
        raise NotCompiledError("it runs in a distribution strategy")
    for name in _FUNCTIONS:
        if has_own(model, name):
            raise NotCompiledError(f"the model has a `{name}` of its own")
    if type(unwrapped(model.optimizer)).__name__ == "ScheduleFreeAdamW":
        raise NotCompiledError(
            "ScheduleFreeAdamW sets its momentum while it is built, which Keras's loop does in its step"
        )
    if keras.config.max_epochs() or keras.config.max_steps_per_epoch():
        raise NotCompiledError("Keras limits the epochs or steps of every `fit` (`keras.config`)")


def own_parts(model):
    """The names of those methods that Keras calls in an epoch which are the user's own, a list.

    What they do in Python at the beginning and the end of an epoch, they must do there.
    """
    names = [name for name in _STEPS if has_own(model, name)]
    if "metrics" not in names and any(not is_stock(type(m).reset_state) for m in with_inner(model.metrics)):
        names.append("reset_state")
    return names


def has_own(model, name):
    """Whether a method is the user's own, in a class before ours, or in one that ours is mixed into."""
    if name in vars(model):
        return True
    for one in type(model).__mro__:
        if name in vars(one):
            if not (_is_stock_class(one) and is_stock(vars(one)[name])):
                return True
            if one in _CLASSES:
                break
    return False


def follows_own(model, cls, name):
    """Whether the method that `super()` reaches in `cls`, a class of a model, is its user's own."""
    order = type(model).__mro__
    return not _is_stock_class(next(one for one in order[order.index(cls) + 1 :] if name in vars(one)))


def _is_stock_class(cls):
    return cls in _CLASSES or cls.__module__.split(".")[0] == __name__.split(".")[0]


def is_stock(method):
    """Whether a method or property is Keras's or this package's: not by its name, which a decorator may copy."""
    code = getattr(getattr(method, "fget", method), "__code__", None)
    return code is not None and _is_ours_or_keras(code.co_filename)


def level_of_caller():
    """The `stacklevel` with which a warning of the calling function names the line that called Keras, or this package."""
    files = [frame.f_code.co_filename for frame, _ in traceback.walk_stack(inspect.currentframe())][1:]
    return next((level for level, file in enumerate(files, 1) if not _is_ours_or_keras(file)), len(files))


@functools.cache
def _is_ours_or_keras(file):
    return any(pathlib.Path(file).is_relative_to(folder) for folder in _FOLDERS)


def with_inner(metrics):
    """Metrics, each followed by those in it."""
    for metric in metrics:
        yield metric
        yield from with_inner(getattr(metric, "metrics", ()))


_CLASSES = {*keras.Model.__mro__, *keras.Sequential.__mro__, *_keras.Functional.__mro__}
_FOLDERS = pathlib.Path(keras.__file__).parent, pathlib.Path(__file__).parents[1]
