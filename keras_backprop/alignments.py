"""The probability of a sequence of labels, over all its alignments with time. (Connectionist temporal classification.)

Graves, Fernández, Gomez and Schmidhuber, "Connectionist temporal classification" (2006), equations 5 to 15, class 0 being the
blank.
"""

from typing import Any

import numpy as np

__all__ = ["likelihood", "occupancy"]


def likelihood(labels: Any, p: Any) -> float:
    """p(labels): the sum over all alignments of the products of their probabilities.

    Args:
        labels: ints of shape `(L,)`, from 1; zeros are left out.
        p: probabilities of shape `(T, classes)`.
    """
    states, skips = _extended(labels)
    return float(_forward(states, skips, p)[-1, -2:].sum())


def occupancy(labels: Any, p: Any) -> Any:
    """How probable it is, given the labels, that an alignment is in a class at a time: shape `(T, classes)`, rows add up to 1."""
    states, skips = _extended(labels)
    before = _forward(states, skips, p)
    after = _forward(states[::-1], _extended(np.asarray(labels)[np.asarray(labels) > 0][::-1])[1], p[::-1])[::-1, ::-1]
    of_states = before * after / p[:, states]  # p of the state itself is in both
    of_states /= of_states.sum(1, keepdims=True)
    return np.stack([of_states[:, states == k].sum(1) for k in range(p.shape[1])], 1)


def _extended(labels):
    """The labels with blanks between and around them, and the states that can be reached past a blank."""
    labels = np.asarray(labels)
    labels = labels[labels > 0]
    states = np.zeros(2 * len(labels) + 1, int)
    states[1::2] = labels
    skips = np.zeros(len(states), bool)
    skips[3::2] = labels[1:] != labels[:-1]
    return states, skips


def _forward(states, skips, p):
    """α: the probability of being in a state at a time, having read all labels before it."""
    alpha = np.zeros((len(p), len(states)))
    alpha[0, :2] = p[0, states[:2]]
    for t in range(1, len(p)):
        come = alpha[t - 1].copy()
        come[1:] += alpha[t - 1, :-1]
        come[2:] += np.where(skips[2:], alpha[t - 1, :-2], 0)
        alpha[t] = come * p[t, states]
    return alpha
