"""The note's error."""

from typing import Any

import keras
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.registry import backward_rule
from keras_backprop.rule import Gradients


@keras.saving.register_keras_serializable(package="keras_backprop")
def half_mean_squared_error(y_true: Any, y_pred: Any) -> Any:
    """½·mean (T − a)² over the last axis.

    Args:
        y_true: targets T, shape `(n, …, k)`.
        y_pred: predictions a, shape `(n, …, k)`.

    Returns:
        The error of each example, shape `(n, …)`.
    """
    return 0.5 * keras.losses.mean_squared_error(y_true, y_pred)


@keras.saving.register_keras_serializable(package="keras_backprop")
class HalfMeanSquaredError(_keras.LossFunctionWrapper):
    """Half the mean squared error, E = 1/(2m)·Σᵢ (Tᵢ − aᵢ)² over m data points.

    The half cancels the 2 of the derivative: ∂E/∂a = −(T − a)/m. With several outputs Keras's mean runs over the outputs as
    well as over the examples, as in `keras.losses.MeanSquaredError`, whose options it shares.

    Args:
        reduction: "sum_over_batch_size" (default), "sum", "mean", "mean_with_sample_weight" or None.
        name: str.
        dtype: the dtype of the computation; `keras.config.floatx()` by default.
    """

    def __init__(
        self, reduction: Any = "sum_over_batch_size", name: str = "half_mean_squared_error", dtype: Any = None
    ) -> None:
        super().__init__(half_mean_squared_error, name=name, reduction=reduction, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "reduction": self.reduction}


@backward_rule(half_mean_squared_error)
def half_mean_squared_error_backward(call: Any, dy: Any) -> Any:
    """y = ½·mean (T − a)²        da = dy·(a − T)/k over the k values of the last axis"""
    T, a = call.inputs[:2]
    k = tf.cast(tf.shape(a)[-1], a.dtype)
    return Gradients(None, dy[..., None] * (a - T) / k)
