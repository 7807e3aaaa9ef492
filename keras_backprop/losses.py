"""The errors of textbooks: half the squared error, as a mean or as a sum over the outputs."""

from typing import Any

import keras
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.formula import LossFormula, written
from keras_backprop.registry import backward_rule
from keras_backprop.rule import Gradients

__all__ = ["HalfMeanSquaredError", "HalfSquaredError", "half_mean_squared_error", "half_squared_error"]


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


@keras.saving.register_keras_serializable(package="keras_backprop")
def half_squared_error(y_true: Any, y_pred: Any) -> Any:
    """½·Σ (T − a)² over the last axis.

    Args:
        y_true: targets T, shape `(n, …, k)`.
        y_pred: predictions a, shape `(n, …, k)`.

    Returns:
        The error of each example, shape `(n, …)`.
    """
    y_pred = keras.ops.convert_to_tensor(y_pred)
    y_true = keras.ops.convert_to_tensor(y_true, dtype=y_pred.dtype)
    y_true, y_pred = _keras.squeeze_or_expand_to_same_rank(y_true, y_pred)
    return 0.5 * keras.ops.sum(keras.ops.square(y_true - y_pred), axis=-1)


@keras.saving.register_keras_serializable(package="keras_backprop")
class HalfSquaredError(_keras.LossFunctionWrapper):
    """Half the squared error, summed over the outputs: E = 1/(2m)·Σₙ Σₖ (Tₙₖ − aₙₖ)² over m examples and k outputs.

    The error of most textbooks: for one example ½·Σₖ (Tₖ − aₖ)², and ∂E/∂aₖ = −(Tₖ − aₖ). `HalfMeanSquaredError` divides by the
    number of outputs as well; with one output the two are the same.

    Args:
        reduction: "sum_over_batch_size" (default: the mean over the examples), "sum" (over the examples too), "mean",
            "mean_with_sample_weight" or None.
        name: str.
        dtype: the dtype of the computation; `keras.config.floatx()` by default.
    """

    def __init__(
        self, reduction: Any = "sum_over_batch_size", name: str = "half_squared_error", dtype: Any = None
    ) -> None:
        super().__init__(half_squared_error, name=name, reduction=reduction, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "reduction": self.reduction}


@backward_rule(half_squared_error)
@written(LossFormula("(T - a)**2", "-(T - a)", times=2, factor=0.5, mean=False))
def half_squared_error_backward(call: Any, dy: Any) -> Any:
    """y = ½·Σ (T − a)²        da = dy·(a − T)"""
    T, a = call.inputs[:2]
    return Gradients(None, dy[..., None] * (a - T))


@backward_rule(half_mean_squared_error)
@written(LossFormula("(T - a)**2", "-(T - a)", times=2, factor=0.5))
def half_mean_squared_error_backward(call: Any, dy: Any) -> Any:
    """y = ½·mean (T − a)²        da = dy·(a − T)/k over the k values of the last axis"""
    T, a = call.inputs[:2]
    k = tf.cast(tf.shape(a)[-1], a.dtype)
    return Gradients(None, dy[..., None] * (a - T) / k)
