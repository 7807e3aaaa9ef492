"""Names of ours for the inside of Keras's iterator over the epochs of a `fit`."""

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from keras.src.trainers.epoch_iterator import EpochIterator


def dataset_of(epochs: Any) -> Any:
    """The data set that an epoch iterates over."""
    return epochs._distributed_dataset


def batches_in_all(epochs: Any) -> Any:
    """The number of batches of the data, None or negative where it is not known."""
    return epochs._num_batches


def steps_seen(epochs: Any) -> int:
    """How many batches have been asked for, in all epochs together."""
    return epochs._steps_seen


def steps_to_come(epochs: Any) -> Any:
    """The iterator over what is left of the steps of the epoch that has begun."""
    return epochs._epoch_iterator


@contextlib.contextmanager
def out_of_data_caught() -> Iterator[None]:
    """A context for an epoch over data in memory: whoever says in it that there are no more, a callback too, ends the epoch.

    As Keras's iterator of epochs does it, with its warning.
    """
    try:
        yield
    except (StopIteration, tf.errors.OutOfRangeError):
        EpochIterator._interrupted_warning(None)
