"""What turns an example's contribution to the error of a batch into the gradient of its own error.

The error is a mean over the batch: a contribution has a factor 1/D in it, and D depends on the others. What D is depends on the
reduction of the loss, on masks and on sample weights.
"""

from typing import Any

import keras
import tensorflow as tf

from keras_backprop import replicas


class ExampleScale:
    """The scale of the examples of one backward pass.

    Args:
        objective: the `Objective` of the pass.
        x: a tensor of the batch.
        sample_weight: as it was given.
        read: None, or, where the reductions of losses say nothing of the error, a function that reads off its links what it
            is of the examples' errors: "mean" or "sum" and None, or None and why neither.
    """

    def __init__(self, objective: Any, x: Any, sample_weight: Any, read: Any) -> None:
        self._reductions, self._counted, self._whole = objective.reductions, objective.counted, objective.whole
        self._shared, self._x, self._sample_weight, self._read = objective.shared, x, sample_weight, read

    def own(self) -> Any:
        """What turns contributions into gradients of the examples' own errors, sample weights taken out: shape `(n,)`.

        An error that is not made by losses of Keras heeds weights or not: there they stay in.
        """
        if self._read is not None:
            return tf.fill([self._n()], tf.cast(self._divisor_read(), tf.float32))
        self._require_one_kind()
        weights = self._weights()
        if self._reductions == {"sum"}:
            return tf.math.divide_no_nan(tf.ones(()), weights)
        mask = self._mask()
        sizes = tf.ones([self._n()]) if mask is None else tf.reduce_sum(mask, 1)
        by_weight = self._reductions == {"mean_with_sample_weight"}
        total = tf.reduce_sum(sizes * weights if by_weight else sizes)
        return tf.math.divide_no_nan(self._over_replicas(total), sizes * weights)

    def weighted(self) -> tuple[Any, Any, Any]:
        """The same with the sample weights left in, in three factors, D·shareᵢ·presentᵢ.

        Returns:
            D, a scalar; the shares, which are 1 but for masks, of which each example has valid ones of its own; and 1 for an
            example, 0 for one whose sample weights are all 0. float64, the last two of shape `(n,)`.
        """
        if self._whole:
            self._refuse_whole()
        n, given = self._n(), self._given()
        present = tf.cast(self._present(n), tf.float64)
        if self._read is not None:
            return tf.cast(self._divisor_read(), tf.float64), tf.ones([n], tf.float64), present
        self._require_one_kind()
        if self._reductions == {"sum"}:
            return tf.ones((), tf.float64), tf.ones([n], tf.float64), present
        by_weight = self._reductions == {"mean_with_sample_weight"}
        mask = self._mask(tf.float64)
        if mask is None:
            divisor = tf.cast(n, tf.float64)
            if by_weight and given:
                divisor = tf.reduce_sum(tf.reduce_mean(tf.reshape(tf.cast(given[0], tf.float64), [n, -1]), 1))
            return self._over_replicas(divisor), tf.ones([n], tf.float64), present
        valid = tf.reduce_sum(mask, 1)
        divisor = tf.reduce_sum(valid)
        if by_weight and given:
            divisor = tf.reduce_sum(mask * tf.reshape(tf.cast(given[0], tf.float64), [n, -1]))
        return self._over_replicas(divisor), tf.math.divide_no_nan(tf.ones((), tf.float64), valid), present

    def padding_factor(self, count: Any) -> Any:
        """What the error of the batch is to be multiplied by for the mean over its first `count` examples, all others having the
        weight 0."""
        kind = None if self._read is None else self._read()[0]
        if kind == "sum" or self._reductions & {"sum", "mean_with_sample_weight"}:
            return tf.ones(())
        mask = self._mask()
        if mask is None:
            return tf.cast(self._n(), tf.float32) / tf.maximum(tf.cast(count, tf.float32), 1)
        sizes = tf.reduce_sum(mask, 1)
        return tf.math.divide_no_nan(tf.reduce_sum(sizes), tf.reduce_sum(sizes[:count]))

    def _divisor_read(self):
        """What the sum of the examples' errors is divided by in an error that losses of Keras have not made."""
        kind, why = self._read()
        if kind is None and self._whole:
            self._refuse_whole(f" ({why})")
        if kind is None:
            raise ValueError(
                f"The gradients of the examples' own errors are not known: {why}. Let `compute_loss` return the mean "
                "(`keras.ops.mean`) or the sum of an error for each example."
            )
        return self._over_replicas(tf.cast(self._n(), tf.float32)) if kind == "mean" else tf.ones([])

    def _refuse_whole(self, why=""):
        raise ValueError(
            "The gradients of the examples' own errors are not known: a loss returned something else than an error for each "
            f"example, such as one number for the batch{why}. Let it return an error for each; the mean is taken of these."
        )

    def _require_one_kind(self):
        if "sum" in self._reductions and len(self._reductions) > 1:
            raise ValueError(
                "The norm of each example's own gradient is not known where one loss is a sum over the examples and another a "
                f"mean. Received losses of the reductions {sorted(map(str, self._reductions))}"
            )
        if "mean_with_sample_weight" in self._reductions and max(len(self._given()), len(self._reductions)) > 1:
            raise ValueError(
                "The gradients of the examples' own errors are not known with `mean_with_sample_weight` and several losses or "
                "sample weights."
            )

    def _over_replicas(self, divisor):
        """Losses of Keras are means over the batch of all replicas, other means over the part of this one."""
        return replicas.divisor_over_replicas(divisor) if self._shared else divisor

    def _n(self):
        return tf.shape(self._x)[0]

    def _given(self):
        given = [] if self._sample_weight is None else keras.tree.flatten(self._sample_weight)
        return [weights for weights in given if weights is not None]

    def _present(self, n):
        """Which examples have a weight that is not 0, for whatever output."""
        given = [None] if self._sample_weight is None else keras.tree.flatten(self._sample_weight)
        if any(weights is None for weights in given):
            return tf.fill([n], True)
        return tf.reduce_any([tf.reduce_any(tf.reshape(weights, [n, -1]) != 0, 1) for weights in given], 0)

    def _mask(self, dtype=tf.float32):
        """1 for each position that counts in the mean of the losses, else 0: shape `(n, ·)`; None where all count."""
        masks = {id(mask): mask for mask in self._counted}
        if len(masks) > 1:
            raise ValueError(
                "The gradients of the examples' own errors are not known where the losses of several outputs do not count the "
                "same positions: each is a mean over its own, by the mask of its output or `ignore_class`. Take sums "
                "(`reduction='sum'`) of losses, or train with one of them."
            )
        mask = next(iter(masks.values()), None)
        return None if mask is None else tf.reshape(tf.cast(mask, dtype), [self._n(), -1])

    def _weights(self):
        """The sample weights without their signs, a tensor of shape `(n,)`."""
        given = [] if self._sample_weight is None else keras.tree.flatten(self._sample_weight)
        if len(given) > 1:  # weights for one of several outputs count as well: the others have none
            raise ValueError(
                "The norm of each example's own gradient is not known with sample weights of several outputs."
            )
        if not given:
            return tf.ones([self._n()])
        (weights,) = given
        if weights.shape.rank not in (1, 2) or (weights.shape.rank == 2 and weights.shape[1] != 1):
            raise ValueError(
                "The norm of each example's own gradient is not known with several sample weights for each example. "
                f"Received: sample weights of shape {tuple(weights.shape)}"
            )
        return tf.abs(tf.cast(tf.reshape(weights, [-1]), tf.float32))


def weights_for(y_pred: Any, sample_weight: Any) -> Any:
    """Weights of examples, one for each, in the shapes that Keras's losses want for these predictions.

    Keras multiplies the errors of all positions, `(n, t)`, with the weights as they are: `(n,)` would be weights of positions.
    """
    shapes = [y.shape.rank for y in keras.tree.flatten(y_pred)]
    if sample_weight is None or max(shapes) <= 2:
        return sample_weight

    def fitted(weights, y):
        return tf.reshape(weights, [-1] + [1] * max(0, y.shape.rank - 2)) if weights.shape.rank == 1 else weights

    if not tf.is_tensor(sample_weight):  # for each output its own
        weights, predictions = keras.tree.flatten(sample_weight), keras.tree.flatten(y_pred)
        if len(weights) != len(predictions):  # Keras says what it thinks of it
            return sample_weight
        pairs = zip(weights, predictions, strict=True)
        return keras.tree.pack_sequence_as(sample_weight, [w if w is None else fitted(w, y) for w, y in pairs])
    if sample_weight.shape.rank != 1:
        return sample_weight
    return keras.tree.map_structure(lambda y: fitted(sample_weight, y), y_pred)
