"""What turns an example's contribution to the error of a batch into the gradient of its own error.

The error is a mean over the batch: a contribution has a factor 1/D in it, and D depends on the others. What D is depends on the
reduction of the loss, on masks and on sample weights.
"""

from typing import Any

import keras
import tensorflow as tf

from keras_backprop import _keras, replicas


class ExampleScale:
    """The scale of the examples of one backward pass.

    Args:
        reductions: set, those of the losses.
        x: a tensor of the batch.
        y_pred: the predictions, which a mask may be on.
        sample_weight: as it was given.
    """

    def __init__(self, reductions: Any, x: Any, y_pred: Any, sample_weight: Any) -> None:
        self._reductions, self._x, self._y_pred, self._sample_weight = reductions, x, y_pred, sample_weight

    def own(self) -> Any:
        """What turns contributions into gradients of the examples' own errors, sample weights taken out: shape `(n,)`."""
        self._require_one_kind()
        weights = self._weights()
        if self._reductions == {"sum"}:
            return tf.math.divide_no_nan(tf.ones(()), weights)
        masked = self._sample_weight is None and self._masks()
        by_weight = masked or self._reductions == {"mean_with_sample_weight"}
        total = tf.reduce_sum(weights) if by_weight else tf.cast(self._n(), tf.float32)
        return tf.math.divide_no_nan(replicas.divisor_over_replicas(total), weights)

    def weighted(self) -> tuple[Any, Any, Any]:
        """The same with the sample weights left in, in three factors, D·shareᵢ·presentᵢ.

        Returns:
            D, a scalar; the shares, which are 1 but for masks, of which each example has valid ones of its own; and 1 for an example,
            0 for one whose sample weights are all 0. float64, the last two of shape `(n,)`.
        """
        self._require_one_kind()
        n, given, masks = self._n(), self._given(), self._masks()
        present = tf.ones([n], tf.float64)
        for weights in given:
            present *= tf.cast(tf.reduce_any(tf.reshape(weights, [n, -1]) != 0, 1), tf.float64)
        if self._reductions == {"sum"}:
            return tf.ones((), tf.float64), tf.ones([n], tf.float64), present
        by_weight = "mean_with_sample_weight" in self._reductions
        if by_weight and (len(given) > 1 or len(self._reductions) > 1):
            raise ValueError(
                "The gradients of the examples' own errors are not known with `mean_with_sample_weight` and several losses or sample "
                "weights."
            )
        if len(masks) > 1:
            raise ValueError("The gradients of the examples' own errors are not known with masks of several outputs.")
        if not masks:
            divisor = tf.cast(n, tf.float64)
            if by_weight and given:
                divisor = tf.reduce_sum(tf.reduce_mean(tf.reshape(tf.cast(given[0], tf.float64), [n, -1]), 1))
            return replicas.divisor_over_replicas(divisor), tf.ones([n], tf.float64), present
        mask = tf.reshape(tf.cast(masks[0], tf.float64), [n, -1])
        valid = tf.reduce_sum(mask, 1)
        divisor = tf.reduce_sum(valid)
        if by_weight and given:
            divisor = tf.reduce_sum(mask * tf.reshape(tf.cast(given[0], tf.float64), [n, -1]))
        return replicas.divisor_over_replicas(divisor), tf.math.divide_no_nan(tf.ones((), tf.float64), valid), present

    def padding_factor(self, count: Any) -> Any:
        """What the error of the batch is to be multiplied by for the mean over its first `count` examples, all others having the
        weight 0."""
        if self._reductions & {"sum", "mean_with_sample_weight"}:
            return tf.ones(())
        masks = self._masks()
        sizes = tf.reduce_sum(tf.reshape(tf.cast(masks[0], tf.float32), [self._n(), -1]), 1) if masks else None
        if sizes is None:
            return tf.cast(self._n(), tf.float32) / tf.maximum(tf.cast(count, tf.float32), 1)
        return tf.math.divide_no_nan(tf.reduce_sum(sizes), tf.reduce_sum(sizes[:count]))

    def _require_one_kind(self):
        if "sum" in self._reductions and len(self._reductions) > 1:
            raise ValueError(
                "The norm of each example's own gradient is not known where one loss is a sum over the examples and another a "
                f"mean. Received losses of the reductions {sorted(map(str, self._reductions))}"
            )

    def _n(self):
        return tf.shape(self._x)[0]

    def _given(self):
        given = [] if self._sample_weight is None else keras.tree.flatten(self._sample_weight)
        return [weights for weights in given if weights is not None]

    def _masks(self):
        return [m for m in map(_keras.get_keras_mask, keras.tree.flatten(self._y_pred)) if m is not None]

    def _weights(self):
        """What each example counts in the error, a tensor of shape `(n,)`: its sample weight, or the share of a mask."""
        masks, n = self._masks(), self._n()
        given = [] if self._sample_weight is None else keras.tree.flatten(self._sample_weight)
        if len(given) > 1 or len(masks) > 1 or (given and masks):
            raise ValueError(
                "The norm of each example's own gradient is not known with sample weights or masks of several outputs, or with "
                "both."
            )
        if masks:
            return tf.reduce_sum(tf.reshape(tf.cast(masks[0], tf.float32), [n, -1]), 1)
        if not given:
            return tf.ones([n])
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
    if not tf.is_tensor(sample_weight) or sample_weight.shape.rank != 1 or max(shapes) <= 2:
        return sample_weight
    return keras.tree.map_structure(lambda y: tf.reshape(sample_weight, [-1] + [1] * max(0, y.shape.rank - 2)), y_pred)
