"""Figures of several small tensors of one shape at once.

An operation on a few thousand numbers takes TensorFlow half a microsecond, of which the numbers are a fifth. Where a tensor has
many figures, it pays to copy it next to others first: a copy is an operation's worth, and each figure after that is one operation
for all of them. What is joined stays within the cache, and within what one thread works on.
"""

from typing import Any

import tensorflow as tf

from keras_backprop.watch.moments import JOINED

LARGEST = 8192
"""Elements of a tensor, above which the numbers are most of the time."""

TOGETHER = 2**14
"""Elements of all tensors that are joined: 64 KiB of single precision. Of more, Eigen makes work for several threads."""

WORTH = 3
"""So many figures, and the copy pays."""


def may_join(x: Any) -> bool:
    """Whether a tensor can be joined with others: its shape is known, and it is small."""
    return isinstance(x, tf.Tensor) and x.shape.is_fully_defined() and 1 < x.shape.num_elements() <= LARGEST


def groups(wanted: dict) -> list[Any]:
    """What can be measured together.

    Args:
        wanted: dict, a key for each tensor -> (tensor, list of names of moments, see `moments.moment`).

    Returns:
        list of (keys, names of moments): tensors of the same shape, of each of which these moments are wanted.
    """
    alike: dict = {}
    for key, (x, names) in wanted.items():
        if may_join(x) and len(names) >= WORTH and JOINED.issuperset(names):
            alike.setdefault((x.dtype, tuple(x.shape), tuple(sorted(names))), []).append(key)
    found = []
    for (_, shape, names), keys in alike.items():
        count = max(TOGETHER // tf.TensorShape(shape).num_elements(), 2)
        found += [(keys[i : i + count], names) for i in range(0, len(keys), count) if len(keys) > i + 1]
    return found
