"""Which examples a trial is made with: of as many labels as there are places, in batches whose labels are not alike.

What mixes examples may do so with some of them only: with positives of which it takes the mean, with those of one class. Data are
often sorted by class, so the first ones tell nothing.
"""

import itertools
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

WATCHED = 4
"""So many examples are watched, beside as many others."""

LOOKED_AT = 4096
"""Of so many examples, spread over all, the labels are looked at."""

BYTES = 2**24
"""And of no more than have so many bytes of labels."""


class Chosen(NamedTuple):
    """Numbers of examples, lists of equal length without repetition: those that are watched, and two sets of others."""

    watched: list[int]
    some: list[int]
    others: list[int]


def choose(y: Any, n: int) -> Chosen:
    """The examples of a trial.

    Args:
        y: nested tensors of targets with first axes of size n, or None.
        n: int, 3 or more.
    """
    leaves = [a for a in keras.tree.flatten(y) if a is not None]
    size = sum(a.dtype.size * int(np.prod(a.shape[1:])) for a in leaves)
    count = min(n, LOOKED_AT, max(3 * WATCHED, BYTES // max(size, 1)))
    rows = np.random.default_rng(0).permutation(np.linspace(0, n - 1, count).astype(int)).tolist()
    by_label: dict = {}
    for row, label in zip(rows, _labels(leaves, rows), strict=True):
        by_label.setdefault(label, []).append(row)
    by_turns = [row for turn in itertools.zip_longest(*by_label.values()) for row in turn if row is not None]
    k = min(WATCHED, n // 3)
    watched, some, rest = by_turns[:k], by_turns[k : 2 * k], by_turns[2 * k :]
    taken = {*watched, *some}
    alike = [row for row in next(iter(by_label.values())) if row not in taken][:k]  # as if no other label were there
    return Chosen(watched, some, [*alike, *(row for row in rest if row not in alike)][:k])


def _labels(leaves, rows):
    """A label of each row: of its values those that are no number of its own, if there are such; or else all."""
    keys = [[_key(value) for value in keras.ops.convert_to_numpy(tf.gather(a, rows))] for a in leaves]
    shared = [of_leaf for of_leaf in keys if 2 * len(set(of_leaf)) <= len(rows)]
    return list(zip(*(shared or keys), strict=True)) or rows


def _key(label):
    label = np.asarray(label)
    return repr(label.tolist()) if label.dtype == object else label.tobytes()
