"""What can be observed of a trained model, and how far two observations are apart."""

import numbers
import re
import warnings
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import BackpropModel, BackpropSequential


class Classes(NamedTuple):
    """The two classes a user's program would name."""

    Model: Any
    Sequential: Any


STOCK = Classes(keras.Model, keras.Sequential)
SUBJECTS = {"backprop": Classes(BackpropModel, BackpropSequential)}
"""Who is compared with stock Keras. One more line here, and the whole grid runs once more against it."""

ROUNDING = 4
"""How many times as far as stock Keras, begun a nudge away, ours may end from stock Keras: a step rounds more than once."""
MOST = 1000
"""How many times the tolerance is excused at most."""


def observe(model, history=None, **more):
    """Everything there is to see of a model after training, as nested Python data.

    Args:
        model: a Keras model.
        history: the `History` that `fit` returned, or None.
        **more: further results, nested data and tensors.
    """
    seen = {
        "weights": [(v.shape, v.dtype, _array(v)) for v in model.variables],
        "trainable": [v.name for v in model.trainable_variables],
        "metrics": [(m.name, _plain(m.result())) for m in model.metrics if getattr(m, "built", True)]
        if model.compiled
        else None,
        **{name: _plain(value) for name, value in more.items()},
    }
    optimizer = model.optimizer if model.compiled else None
    if optimizer is not None:
        seen["optimizer"] = [(v.shape, v.dtype, _array(v)) for v in optimizer.variables]
        seen["iterations"] = int(optimizer.iterations)
        seen["stop_training"] = model.stop_training
    if history is not None:
        seen["history"] = _plain(list(history.history.items()))
        seen["epochs"] = history.epoch
        seen["params"] = history.params
    return seen


def run(program, classes, *args):
    """What a program lets one see: its observations, warnings and, if it fails, its error.

    Names, seeds and Keras's global settings start afresh, so that two runs differ in what they are given alone.
    """
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(7)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            seen = program(classes, *args)
        except Exception as error:
            seen = {"error": error_text(error)}
        finally:
            keras.config.set_floatx(floatx)
            keras.config.set_dtype_policy(policy)
    texts = {f"{w.category.__name__}: {w.message}" for w in caught if not _about_numpy(w)}
    return {**seen, "warnings": sorted({_without_class_names(text) for text in texts})}


def error_text(error):
    """Type and first line of an error, without the stack of layers that Keras appends."""
    return f"{type(error).__name__}: {_without_class_names(str(error).strip().splitlines()[0])}"


def differences(ours, stock, tolerance, path=""):
    """The places where two observations differ, as text.

    Floating point numbers may differ by `tolerance`, relative to the largest number of their array, or absolutely where that
    is below 1. Everything else (keys and their order, types, dtypes, shapes, integers, names, texts) must be equal.
    """
    if type(ours) is not type(stock):
        return [f"{path}: {type(ours).__name__} for {type(stock).__name__} ({ours!r} for {stock!r})"]
    if isinstance(ours, dict):
        if list(ours) != list(stock):
            return [f"{path}: keys {list(ours)} for {list(stock)}"]
        return [d for key in stock for d in differences(ours[key], stock[key], tolerance, f"{path}/{key}")]
    if isinstance(ours, (list, tuple)):
        if len(ours) != len(stock):
            return [f"{path}: {ours!r} for {stock!r}"]
        pairs = enumerate(zip(ours, stock, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, tolerance, f"{path}/{i}")]
    if isinstance(ours, (np.ndarray, np.generic, float)):
        return _number_differences(np.asarray(ours), np.asarray(stock), tolerance, path)
    if isinstance(ours, str):
        ours = re.sub(r"The targets do not fit .* Keras says: ", "", ours)  # of wrong targets we say more than Keras
    return [] if ours == stock else [f"{path}: {ours!r} for {stock!r}"]


def _number_differences(ours, stock, tolerance, path):
    if ours.shape != stock.shape or ours.dtype != stock.dtype:
        return [f"{path}: {ours.dtype}{ours.shape} for {stock.dtype}{stock.shape}"]
    if not np.issubdtype(ours.dtype, np.floating):
        return [] if np.array_equal(ours, stock) else [f"{path}: {ours!r} for {stock!r}"]
    if not np.array_equal(np.isfinite(ours), np.isfinite(stock)):
        return [f"{path}: {ours!r} for {stock!r}"]
    error, size = _error_and_size(ours, stock)
    return [] if error <= tolerance * size else [f"{path}: off by {error:.1e}, of {size:.1e}"]


def more_than_rounding(ours, stock, nudged, tolerance):
    """The `differences` that are larger than what rounding makes of training.

    Args:
        nudged: what stock Keras shows when its data begin nudged (`nudge`). Of each kind of what is seen, such as weights or
            history, numbers may differ by `ROUNDING` times as much as these do from `stock`, relative as in `differences`.
        tolerance: what they may differ by in any case.
    """
    if not list(ours) == list(stock) == list(nudged):
        return differences(ours, stock, tolerance)
    found = []
    for seen in stock:
        rounding = min(ROUNDING * _distance(nudged[seen], stock[seen]), MOST * tolerance)
        found += differences(ours[seen], stock[seen], max(tolerance, rounding), f"/{seen}")
    return found


def nudge(array):
    """Floating point numbers, each but 0 one unit in the last place higher; others as they are."""
    if array.dtype.kind != "f":
        return array
    return np.where(array == 0, array, np.nextafter(array, np.inf, dtype=array.dtype))


def _distance(nudged, stock):
    """The largest difference of floating point numbers, relative as in `differences`; 0 where more than numbers differs."""
    if differences(nudged, stock, np.inf):
        return 0.0
    pairs = zip(keras.tree.flatten(nudged), keras.tree.flatten(stock), strict=True)
    numbers = [(np.asarray(a), np.asarray(b)) for a, b in pairs if isinstance(b, (np.ndarray, np.generic, float))]
    floating = [_error_and_size(a, b) for a, b in numbers if np.issubdtype(b.dtype, np.floating)]
    return max((error / size for error, size in floating), default=0.0)


def _error_and_size(ours, stock):
    finite = np.isfinite(stock)
    error = np.max(np.abs(ours[finite] - stock[finite]), initial=0.0)
    return error, max(1.0, np.max(np.abs(stock[finite]), initial=0.0))


def _plain(value):
    """Nested data with tensors as arrays; what else there is stays."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (keras.Variable, tf.Tensor, np.ndarray)):
        return _array(value)
    if isinstance(value, numbers.Number) or value is None or isinstance(value, str):
        return value
    return str(value)


def _array(value):
    array = keras.ops.convert_to_numpy(value)
    return array.astype("float32") if array.dtype.name == "bfloat16" else array


def _about_numpy(warning):
    return "__array__ implementation doesn't accept a copy keyword" in str(warning.message)


def _without_class_names(text):
    """Texts name the model's class, which is what the two runs differ in by intent, and tensors by their number."""
    for ours, stock in (
        ("BackpropSequential", "Sequential"),
        ("BackpropModel", "Functional"),
        ("backprop_sequential", "sequential"),
        ("backprop_model", "functional"),
    ):
        text = text.replace(ours, stock)
    # Keras warns of it for each shape that is traced.
    text = re.sub(r"softmax over axis -1 of a tensor of shape \([^)]*\)", "softmax of a tensor", text)
    return re.sub(r"'[\w/]+:0'", "a tensor", text)
