"""Examples that lie in memory, cut into batches."""

import math
import os

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.training.inputs.batches import Batches

MEMORY_SHARE = 0.25
"""The largest part of the machine's memory that examples may take to be kept inside a compiled function."""


class NotInMemoryError(Exception):
    """The data cannot be kept in memory as tensors. The message says why."""


class Examples:
    """All examples of a data set, as tensors.

    Args:
        x, y, sample_weight, batch_size, class_weight: as `keras.Model.fit` takes them.
        beside: other `Examples` that are kept at the same time, or None.
        limited: bool, whether they may take a part of the machine's memory only.
        positions: bool, whether a batch says which examples it is of: then `tensors` is `(x, y, sample_weight, positions)`.

    Attributes:
        tensors: nested `(x,)`, `(x, y)` or `(x, y, sample_weight)` of tensors, in Keras's dtypes, with the same first axis n.
        n: int, the number of examples.
        bytes: int, what they take in memory, with those beside them.
        batch_size: int.
        steps: int, the number of batches; the last one may be smaller.
        batch: what Keras's data set says of a batch: nested like `tensors`, `tf.TensorSpec`. If one batch is smaller than
            `batch_size`, their size is unknown.

    Raises:
        NotInMemoryError: something else than arrays, or arrays that are too large.
        ValueError: what Keras says of data that do not fit together.
    """

    def __init__(
        self, x, y=None, sample_weight=None, batch_size=None, class_weight=None, beside=None, limited=True,
        positions=False,
    ):  # fmt: skip
        if keras.tree.flatten(x) == [] or not _keras.can_convert_arrays((x, y, sample_weight)):
            raise NotInMemoryError(f"the data are no arrays but of type {type(x).__name__}")
        adapter = _keras.ArrayDataAdapter(x, y, sample_weight, batch_size=batch_size, class_weight=class_weight)
        arrays = keras.tree.lists_to_tuples(_keras.convert_to_sliceable(adapter._inputs, target_backend="tensorflow"))
        keras.tree.map_structure(_refuse_what_is_no_array, arrays)
        size = sum(_bytes(array) for array in keras.tree.flatten(arrays) if array is not None)
        self.bytes = size = size + (beside.bytes if beside is not None else 0)
        if limited and size > MEMORY_SHARE * _memory():
            raise NotInMemoryError(
                f"the data take {size / 2**20:,.0f} MiB, more than {MEMORY_SHARE:.0%} of the machine's memory"
            )
        self.tensors = keras.tree.map_structure(
            lambda array: None if array is None else tf.convert_to_tensor(array), arrays
        )
        self.n = n = next(array.shape[0] for array in keras.tree.flatten(arrays) if array is not None)
        if positions:
            self.tensors = (*_keras.unpack_x_y_sample_weight(self.tensors), tf.range(n))
        self.batch_size = min(adapter.batch_size, self.n)
        self.steps = adapter.num_batches
        size = None if adapter.has_partial_batch else adapter.batch_size
        self.batch = keras.tree.map_structure(
            lambda x: None if x is None else tf.TensorSpec([size, *x.shape[1:]], x.dtype), self.tensors
        )

    @property
    def steps_left(self):
        """How many batches may still be trained on."""
        return math.inf

    def dataset(self, shuffle):
        """The batches of an epoch as a `tf.data.Dataset`, for Keras's own loop, in the order in which it would take them."""
        present = tuple(x for x in self.tensors if x is not None)
        adapter = _keras.ArrayDataAdapter(present, batch_size=self.batch_size, shuffle=shuffle)

        def filled(batch):
            rest = iter(batch)
            return tuple(None if x is None else next(rest) for x in self.tensors)

        return adapter.get_tf_dataset().map(filled).apply(tf.data.experimental.assert_cardinality(self.steps))

    def batches(self, shuffle, for_xla):
        """`Batches` like these."""
        return Batches(self, shuffle, for_xla)

    @property
    def ragged(self):
        """Whether the last batch is smaller than the others."""
        return self.n % self.batch_size != 0


def _refuse_what_is_no_array(array):
    if array is None:
        return
    if not isinstance(array, np.ndarray) and not (tf.is_tensor(array) and isinstance(array, tf.Tensor)):
        raise NotInMemoryError(f"the data hold a {type(array).__name__}")
    if not (tf.as_dtype(array.dtype).is_numeric or tf.as_dtype(array.dtype).is_bool):
        raise NotInMemoryError(f"the data are of dtype {tf.as_dtype(array.dtype).name}")


def _bytes(array):
    return int(np.prod(array.shape, dtype=np.int64)) * tf.as_dtype(array.dtype).size


def _memory():
    """The machine's memory in bytes."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on every system
        return 8 * 2**30
