"""Variables of a step beside those of the model, each replica its own; and the batch of a fault, kept in such."""

import itertools
import threading
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop.watch.table import outside, parts


class KeptBatch:
    """The batch of one step, kept inside of the step and read afterwards."""

    def __init__(self) -> None:
        self._of_kind: dict = {}
        self._structure: Any = None
        self._lock = threading.Lock()

    def keep(self, data: Any, wanted: Any) -> None:
        """Inside the step: keep a batch if a boolean tensor is true.

        Args:
            data: nested tensors.
            wanted: scalar tensor of bool.
        """
        tensors = [x for x in tf.nest.flatten(data, expand_composites=True) if x is not None]
        tensors = [tf.convert_to_tensor(x) for x in tensors]
        numbers = itertools.count()
        with self._lock:
            self._structure = tf.nest.map_structure(lambda x: None if x is None else next(numbers), data)
        static = all(x.shape.is_fully_defined() for x in tensors)
        key = tuple((x.dtype, tuple(x.shape) if static else x.shape.rank) for x in tensors)
        if key not in self._of_kind:
            self._of_kind[key] = [
                new_variable(x.dtype, x.shape.as_list() if static else [None] * x.shape.rank) for x in tensors
            ] + [new_variable(tf.bool, [])]
        *kept, used = self._of_kind[key]
        used.assign(tf.logical_or(used, wanted))
        if static:
            for variable, x in zip(kept, tensors, strict=True):
                variable.assign(tf.where(wanted, x, variable))
            return

        def assign():
            for variable, x in zip(kept, tensors, strict=True):
                variable.assign(x)

        tf.cond(wanted, assign, lambda: None)

    def read(self) -> Any:
        """The batch that was kept since it was last read, arrays of all replicas together; None if there is none."""
        for *kept, used in self._of_kind.values():
            flags = [bool(u.numpy()) for u in parts(used)]
            if not any(flags):
                continue
            used.assign(False)
            arrays = [np.concatenate([keras.ops.convert_to_numpy(p) for p in parts(v)]) for v in kept]
            return _filled(self._structure, arrays)
        return None


def _filled(structure, arrays):
    return tf.nest.map_structure(lambda i: None if i is None else arrays[i], structure)


def new_variable(dtype: Any, shape: Any, value: Any = None, name: str = "kept") -> Any:
    """A variable of which every replica has its own, made while a step is traced.

    Args:
        dtype: of its entries.
        shape: list of int or None; None for sizes that may change.
        value: array of its first entries, by default zeros or empty strings.
        name: str.
    """
    strategy = tf.distribute.get_strategy()
    dtype = tf.as_dtype(dtype)
    if value is None:
        value = np.zeros([size or 0 for size in shape], object if dtype == tf.string else dtype.as_numpy_dtype)
        value = np.full(value.shape, "", object) if dtype == tf.string else value

    def make():
        with strategy.scope():
            return tf.Variable(
                value, trainable=False, dtype=dtype, shape=tf.TensorShape(shape), name=name.replace(" ", "_"),
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )  # fmt: skip

    return outside(make)


def value_of(variable: Any) -> Any:
    """The value in the first replica, an array."""
    return parts(variable)[0].numpy()
