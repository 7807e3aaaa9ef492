"""How each example's gradient is clipped: what bounds what one example can change.

flat        gᵢ·min(1, C/‖gᵢ‖), ‖gᵢ‖ over all weights together (Abadi et al., "Deep Learning with Differential Privacy", 2016)
per layer   the same for the weights of each layer l with a norm C_l of its own; C = √Σ C_l² (McMahan et al., 2018)
adaptive    flat, with C ← C·exp(−η·(b̃ − γ)), b̃ a private estimate of the share of examples that are not clipped, so that C
            approaches their γ-quantile (Andrew et al., "Differentially Private Learning with Adaptive Clipping", 2021)
"""

import math
import numbers
from typing import Any

import keras
import tensorflow as tf

from keras_backprop.scopes import matches


class Flat:
    """One norm for all weights together.

    Args:
        norm: float > 0, C.
    """

    variables: Any = ()
    norm: Any
    noise_factor = 1.0
    """The gradients' noise multiplier over the plan's."""

    def __init__(self, norm: Any) -> None:
        self.norm = norm

    def groups(self, weights: Any) -> list[Any]:
        """list of (indices of weights, their norm)."""
        return [(list(range(len(weights))), self.norm)]

    def stddev(self) -> Any:
        """What the gradients' noise multiplier is multiplied by: C."""
        return self.norm

    def observe(self, fits: Any, noise: Any, last: Any, expected: int) -> list[Any]:
        """Is told which examples are not clipped; returns what must happen besides, a list of functions."""
        return []

    def forget(self) -> None:
        """Is told that the parts of a batch that it has seen are given up."""


class PerLayer(Flat):
    """A norm for the weights of each layer.

    Args:
        norm: float, C, of which each of L layers has the share C/√L; or a dict, pattern of layers' paths -> norm. Every
            weight must be of one pattern; the first counts.
    """

    def __init__(self, norm: Any) -> None:
        self.given, self.norm = norm, norm

    def groups(self, weights: Any) -> list[Any]:
        by_layer: dict = {}
        for index, weight in enumerate(weights):
            layer = weight.path.rpartition("/")[0] or weight.path
            by_layer.setdefault(layer, []).append(index)
        if not isinstance(self.given, dict):
            return [(indices, self.given / math.sqrt(len(by_layer))) for indices in by_layer.values()]
        groups: dict = {}
        for layer, indices in by_layer.items():
            pattern = next((p for p in self.given if matches(p, layer)), None)
            if pattern is None:
                raise ValueError(
                    f"`clipping_norm` has no pattern for the layer '{layer}'. Received: {list(self.given)}. Add '*' for all "
                    "others."
                )
            groups.setdefault(layer, (indices, self.given[pattern]))
        return list(groups.values())

    def of(self, weights: Any) -> float:
        """C, the norm of all together."""
        return math.sqrt(sum(norm**2 for _, norm in self.groups(weights)))


class Adaptive(Flat):
    """One norm, which follows a quantile of the examples' norms. The private count that it goes by costs a part of the budget.

    Args:
        quantile: float, γ: this share of the examples is to stay as it is.
        learning_rate: float, η.
        count_stddev: float, the standard deviation of the noise of the count; by default a twentieth of the expected batch
            size, and at least two and a half times the noise multiplier.
    """

    def __init__(self, quantile: float = 0.5, learning_rate: float = 0.2, count_stddev: Any = None) -> None:
        if not _is_number(quantile) or not 0 < quantile < 1:
            raise ValueError(f"`quantile` must be a number between 0 and 1. Received: quantile={quantile!r}")
        if not _is_number(learning_rate) or not learning_rate > 0:
            raise ValueError(f"`learning_rate` must be a positive number. Received: learning_rate={learning_rate!r}")
        if count_stddev is not None and (not _is_number(count_stddev) or not count_stddev > 0):
            raise ValueError(f"`count_stddev` must be a positive number. Received: count_stddev={count_stddev!r}")
        self.quantile, self.learning_rate, self.count_stddev = quantile, learning_rate, count_stddev

    def begin(self, norm: float, noise_multiplier: float, expected: int) -> None:
        """Take the first norm, and divide the noise: z⁻² = z_Δ⁻² + (2σ_b)⁻², z being the plan's noise multiplier (theorem 1
        there).

        Raises:
            ValueError: the count would need less noise than it may have.
        """
        self.stddev_of_count = self.count_stddev or max(expected / 20, 2.5 * noise_multiplier)
        share = 1 - (noise_multiplier / (2 * self.stddev_of_count)) ** 2 if noise_multiplier else 1.0
        if share <= 0:
            raise ValueError(
                f"`count_stddev` must be more than half the noise multiplier ({noise_multiplier:g}): the count of clipped "
                f"examples would use up the whole budget. Received: count_stddev={self.stddev_of_count:g}"
            )
        self.noise_factor = 1 / math.sqrt(share)
        self.norm = keras.Variable(norm, dtype="float32", trainable=False, name="clipping_norm")
        self._count = keras.Variable(0.0, dtype="float32", trainable=False, name="unclipped")

    @property
    def variables(self) -> Any:
        return [self.norm, self._count]

    def stddev(self) -> Any:
        return tf.convert_to_tensor(self.norm.value)

    def groups(self, weights: Any) -> list[Any]:
        return [(list(range(len(weights))), self.stddev())]

    def observe(self, fits: Any, noise: Any, last: Any, expected: int) -> list[Any]:
        # Centred, each counts ±½: that is what one more or less changes, and what the noise's share was computed for.
        count = tf.convert_to_tensor(self._count.value) + fits
        share = (count + noise * self.stddev_of_count) / expected + 0.5
        norm = self.stddev()
        new = norm * tf.exp(-self.learning_rate * (tf.clip_by_value(share, 0.0, 1.0) - self.quantile))
        return [
            lambda: self.norm.assign(tf.where(last, new, norm)),
            lambda: self._count.assign(tf.where(last, 0.0, count)),
        ]

    def forget(self) -> None:
        self._count.assign(0.0)

    def get_config(self) -> dict[str, Any]:
        return {"quantile": self.quantile, "learning_rate": self.learning_rate, "count_stddev": self.count_stddev}


def _is_number(x):
    return isinstance(x, numbers.Real) and not isinstance(x, bool) and math.isfinite(x)
