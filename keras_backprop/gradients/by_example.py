"""Each example's own gradient clipped, then the mean of the clipped."""

import numbers
from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="keras_backprop")
class ClippedByExample:
    """Gradients in which no example counts more than a gradient of the given norm, times its sample weight.

    The norm is that of the gradient of the example's own error, over all weights together, as `Backward.example_norms` tells it.
    A longer gradient is shortened to it; the mean over the batch is taken of what results. Penalties are no example's, and stay
    as they are. (Abadi et al., "Deep Learning with Differential Privacy", 2016, without the noise.)

    Args:
        norm: float > 0.

    Raises:
        ValueError: another `norm`; and in training a gradient that exists as a sum over the batch only, and why.
    """

    def __init__(self, norm: Any) -> None:
        if isinstance(norm, bool) or not isinstance(norm, numbers.Real) or not float(norm) > 0:
            raise ValueError(f"`norm` must be a positive number. Received: norm={norm!r}")
        self.norm = float(norm)

    def __call__(self, result: Any) -> Any:
        """The gradients of a `Backward`, a list."""
        norms = result.example_norms()
        return result.weighted(self.norm / tf.maximum(norms, tf.cast(self.norm, norms.dtype)))

    def get_config(self) -> dict[str, Any]:
        return {"norm": self.norm}

    @classmethod
    def from_config(cls, config: Any) -> Any:
        return cls(**config)
