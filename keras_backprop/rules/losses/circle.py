"""The circle loss of metric learning: pairs of the same label are pulled together, others pushed apart."""

import tensorflow as tf
from keras import losses

from keras_backprop.registry import backward_rule
from keras_backprop.rule import Gradients


@backward_rule(losses.circle)
def circle(call, dy):
    """y = softplus(log Σ_P eᵘ + log Σ_N eᵛ) over the pairs P of equal and N of different labels, d = max(1 − a·rᵀ, 0)

    u = −γ·[m + d]⁺·(m − d)          du/dd = γ·([m + d]⁺ − (m − d)·[m + d ≥ 0])
    v = γ·[1 + m − d]⁺·(1 − m − d)   dv/dd = −γ·([1 + m − d]⁺ + (1 − m − d)·[1 + m − d ≥ 0])
    dd = dy·σ(…)·(softmax_P(u)·du/dd + softmax_N(v)·dv/dd)        da = −dd·r        dr = −ddᵀ·a
    """
    a, gamma, margin = call.arguments["y_pred"], call["gamma"], call["margin"]
    given = call["ref_embeddings"]
    r = a if given is None else tf.convert_to_tensor(given)
    similarity = tf.matmul(a, r, transpose_b=True)
    d = tf.nn.relu(1 - similarity)
    same, different = _pairs(call)
    pull, push = tf.nn.relu(margin + d), tf.nn.relu(1 + margin - d)
    du = gamma * (pull - (margin - d) * tf.cast(margin + d >= 0, d.dtype))
    dv = -gamma * (push + (1 - margin - d) * tf.cast(1 + margin - d >= 0, d.dtype))
    share_u, sum_u = _softmax(-gamma * pull * (margin - d), same)
    share_v, sum_v = _softmax(gamma * push * (1 - margin - d), different)
    upstream = (dy * tf.sigmoid(sum_u + sum_v))[:, None]
    dd = upstream * (share_u * du + share_v * dv) * tf.cast(1 - similarity >= 0, d.dtype)
    da, dr = -tf.matmul(dd, r), lambda: -tf.matmul(dd, a, transpose_a=True)
    by_name = {"y_pred": da + dr() if given is None else da, "ref_embeddings": dr}
    return Gradients(*[by_name.get(name) for name, value in call.arguments.items() if tf.is_tensor(value)])


def _pairs(call):
    """Which pairs have equal labels, and which have not."""
    labels, references = call.arguments["y_true"], call["ref_labels"]
    references = labels if references is None else references
    labels, references = (tf.reshape(tf.cast(v, tf.int32), [-1, 1]) for v in (labels, references))
    same = tf.equal(labels, tf.transpose(references))
    if not call["remove_diagonal"]:
        return same, ~same
    return same & ~tf.eye(tf.size(labels), tf.size(references), dtype=tf.bool), ~same


def _softmax(u, pairs):
    """The softmax over the pairs of each row, 0 where a row has none, and the logarithm of its denominator."""
    total = tf.reduce_logsumexp(tf.where(pairs, u, float("-inf")), axis=1)
    finite = tf.where(tf.math.is_finite(total), total, tf.zeros_like(total))
    return tf.where(pairs, tf.exp(u - finite[:, None]), tf.zeros_like(u)), total
