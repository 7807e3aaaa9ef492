"""The figures of single tensors, by TensorFlow's operations: what is neither joined with others nor measured natively."""

from typing import Any

import tensorflow as tf

from keras_backprop.example_statistics import example_cosines, gradient_noise_scale
from keras_backprop.watch.layout import Column
from keras_backprop.watch.moments import moment


class Numbers:
    """Figures in one graph. What several of them need, a tensor in single precision or its mean, is computed once."""

    def __init__(self) -> None:
        self._plain: dict = {}  # by the identity of tensors, with these, lest another be given it
        self._means: dict = {}

    def of(self, column: Column, x: Any, scale: Any) -> Any:
        """A figure.

        Args:
            column: `Column`, what it is of.
            x: tensor or variable; of "change" (weight, its value before), of "saturated" ((lower, upper), tensor), of "noise"
                (`Backward`, weights…), of "cosine" (`Backward`,).
            scale: the loss scale, which histograms are without; None where there is none.

        Returns:
            A tensor of single or double precision, of `column.width` entries.

        Raises:
            ValueError: gradients of single examples are wanted, and there are none.
        """
        if column.moment == "change":
            weight, before = x
            return moment("squares", plain(weight.value - before))
        if column.moment == "noise":
            return _noise(x[0], list(x[1:]))
        if column.moment == "cosine":
            return tf.reduce_mean(example_cosines(x[0]))
        if column.moment == "saturated":
            (lower, upper), y = x[0], self._of_tensor(x[1])  # in half precision the limits would be rounded
            return moment("true", (y <= lower) | (y >= upper))
        x = self._of_tensor(x)
        if column.scalar is not None:
            return x
        if column.moment == "spread":
            return tf.nn.l2_loss(x - self._mean(x))
        if column.moment == "mean":
            return self._mean(x)
        if column.moment == "unscaled histogram":
            return moment("histogram", x if scale is None else x / tf.cast(scale, x.dtype))
        return moment(column.moment, x)

    def _of_tensor(self, x):
        if id(x) not in self._plain:
            self._plain[id(x)] = x, plain(x)
        return self._plain[id(x)][1]

    def _mean(self, x):
        if id(x) not in self._means:
            self._means[id(x)] = x, moment("mean", x)
        return self._means[id(x)][1]


def plain(x: Any) -> Any:
    """A dense tensor of single or double precision."""
    x = tf.convert_to_tensor(x)
    return tf.cast(x, tf.float32) if x.dtype.size < 4 else x


def _noise(result, weights):
    """tr Σ and ‖G‖² of some weights, a tensor of shape `(2,)`."""
    try:
        return tf.stack(gradient_noise_scale(result, weights)[1:])
    except ValueError as error:
        raise ValueError(
            f"What the gradients of single examples are asked for, of {', '.join(repr(w.path) for w in weights)}: {error} Choose "
            "weights that have such gradients, by `layers`."
        ) from error
