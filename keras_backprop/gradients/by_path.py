"""Gradients that are changed by where their weights stand in the model."""

import numbers
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop.scopes import matches


@keras.saving.register_keras_serializable(package="keras_backprop")
class ByPath:
    """Gradients, some of them changed: those of the weights whose paths match a pattern.

        ByPath({"encoder/*": 0.1, "*/embeddings": 0, "head/kernel": mask, "*/kernel": centralized})

    Args:
        changes: dict, pattern -> what to do. A pattern is a weight's path (`variable.path`, with or without the model's name in
            front) in which `*` stands for anything and `?` for one character. What to do is a factor, a number or an array
            that fits the weight's shape; or a function `(gradient, weight) -> gradient` of a dense tensor and a
            `keras.Variable`. Where several patterns match, all apply, in their order.

    Where a factor is 0 the weight is held: neither momentum nor weight decay nor a constraint moves it.

    Raises:
        TypeError: `changes` is no dict of that kind.
        ValueError: (in training) a pattern matches no trainable weight, or a factor does not fit a weight.
    """

    def __init__(self, changes: Any) -> None:
        if not isinstance(changes, dict) or not changes:
            raise TypeError(f"`changes` must be a dict of pattern -> factor or function. Received: changes={changes!r}")
        for pattern, change in changes.items():
            if not isinstance(pattern, str) or not (callable(change) or _is_factor(change)):
                raise TypeError(
                    "`changes` must be a dict of pattern (a string) -> factor (a number or an array) or function. "
                    f"Received: {pattern!r} -> {change!r}"
                )
        self.changes = dict(changes)

    def __call__(self, result: Any) -> Any:
        """The gradients of a `Backward`, a list."""
        self._check(result.weights)
        gradients = list(result.gradients)
        for i, weight in enumerate(result.weights):
            for change in self._of(weight):
                if gradients[i] is not None:
                    gradients[i] = _changed(gradients[i], change, weight, result.scale)
        return gradients

    @property
    def variables(self) -> list[Any]:
        """The variables of the changes: factors, and states of random numbers."""
        own = [change for change in self.changes.values() if isinstance(change, keras.Variable)]
        return own + [v for change in self.changes.values() for v in getattr(change, "variables", ())]

    def held(self, weight: Any) -> Any:
        """Which entries of a weight are not to move: a tensor of booleans that fits its shape, or None for none."""
        factors = [change for change in self._of(weight) if not callable(change)]
        zeros = [tf.equal(_tensor(f), 0) for f in factors if isinstance(f, keras.Variable) or not np.all(np.asarray(f))]
        held = None
        for zero in zeros:
            held = zero if held is None else held | zero
        return held

    def _of(self, weight):
        return [change for pattern, change in self.changes.items() if matches(pattern, weight.path)]

    def _check(self, weights):
        for pattern, change in self.changes.items():
            matched = [v for v in weights if matches(pattern, v.path)]
            if not matched:
                paths = ", ".join(repr(v.path) for v in weights)
                raise ValueError(f"ByPath: the pattern {pattern!r} matches no trainable weight. There are: {paths}")
            for v in matched:
                shape = () if callable(change) else _tensor(change).shape
                if tf.broadcast_static_shape(tf.TensorShape(shape), tf.TensorShape(v.shape)) != v.shape:
                    raise ValueError(
                        f"ByPath: a factor of shape {tuple(shape)} for {pattern!r} does not fit the weight '{v.path}' of shape "
                        f"{tuple(v.shape)}"
                    )

    def get_config(self) -> dict[str, Any]:
        return {"changes": {pattern: keras.saving.serialize_keras_object(c) for pattern, c in self.changes.items()}}

    @classmethod
    def from_config(cls, config: Any) -> Any:
        return cls({pattern: keras.saving.deserialize_keras_object(c) for pattern, c in config["changes"].items()})


@keras.saving.register_keras_serializable(package="keras_backprop")
def centralized(gradient: Any, weight: Any) -> Any:
    """A gradient minus its mean over all axes but the last: over what goes into each unit. Vectors stay as they are.

    (Yong et al., "Gradient Centralization", 2020.)
    """
    axes = list(range(len(weight.shape) - 1))
    return gradient - tf.reduce_mean(gradient, axes, keepdims=True) if axes else gradient


@keras.saving.register_keras_serializable(package="keras_backprop")
class Noise:
    """A change for `ByPath`: Gaussian noise is added to the gradient.

    Args:
        stddev: float ≥ 0, the noise's standard deviation.
        seed: int or None.

    Raises:
        ValueError: another `stddev`.
    """

    def __init__(self, stddev: Any, seed: Any = None) -> None:
        if isinstance(stddev, bool) or not isinstance(stddev, numbers.Real) or not float(stddev) >= 0:
            raise ValueError(f"`stddev` must be a number, 0 or more. Received: stddev={stddev!r}")
        self.stddev, self.seed = float(stddev), seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def __call__(self, gradient: Any, weight: Any) -> Any:
        """`gradient` with noise, of its shape and dtype."""
        noise = keras.random.normal(gradient.shape, stddev=self.stddev, dtype="float32", seed=self.seed_generator)
        return gradient + tf.cast(noise, gradient.dtype)

    @property
    def variables(self) -> list[Any]:
        """The state of the random numbers."""
        return [self.seed_generator.state]

    def get_config(self) -> dict[str, Any]:
        return {"stddev": self.stddev, "seed": self.seed}

    @classmethod
    def from_config(cls, config: Any) -> Any:
        return cls(**config)


def _is_factor(change):
    if isinstance(change, keras.Variable) or tf.is_tensor(change):
        return True
    dtype = np.asarray(change).dtype
    return np.issubdtype(dtype, np.number) or (dtype.kind == "b" and np.ndim(change) > 0)


def _tensor(factor):
    """A factor as a tensor of numbers."""
    factor = tf.convert_to_tensor(factor)
    return factor if factor.dtype.is_floating else tf.cast(factor, tf.float32)


def _changed(gradient, change, weight, scale):
    if callable(change):  # a function sees gradients without the loss scale
        scale = tf.cast(1.0 if scale is None else scale, gradient.dtype)
        return change(tf.convert_to_tensor(gradient) / scale, weight) * scale
    factor = tf.cast(_tensor(change), gradient.dtype)
    if isinstance(gradient, tf.IndexedSlices):
        if factor.shape.rank == 0:
            return tf.IndexedSlices(gradient.values * factor, gradient.indices, gradient.dense_shape)
        gradient = tf.convert_to_tensor(gradient)
    return gradient * factor
