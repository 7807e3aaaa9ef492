"""Names of ours for the inside of Keras's iterator over the epochs of a `fit`."""

from typing import Any


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
