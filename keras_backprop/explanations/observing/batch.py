"""A batch to explain, checked and as tensors."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop.required import require_built, require_compiled, require_model
from keras_backprop.targets import shapes

__all__ = ["as_batch"]


def as_batch(model: Any, x: Any, y: Any, sample_weight: Any = None) -> Any:
    """A batch as tensors, checked: (x, y, sample_weight). It raises what `explain` raises."""
    require_model(model, "explain")
    require_built(model, "explain")
    require_compiled(model, "explain")
    x = _as_inputs(model, _as_tensors("x", x, _input_dtype(model)))
    y = _as_tensors("y", y, None)
    _check_sizes(model, x, y)
    if sample_weight is not None:
        sample_weight = _as_tensors("sample_weight", sample_weight, keras.config.floatx())
    return x, y, sample_weight


def _check_sizes(model, x, y):
    """As many targets as examples."""
    examples = next((t.shape[0] for t in keras.tree.flatten(x) if t is not None and t.shape.rank), None)
    if examples is None:
        raise ValueError(
            f"`x` must be a batch, of shape (n, …). The model '{model.name}' received x of shape {shapes(x)}."
        )
    for target in keras.tree.flatten(y):
        if target is not None and (not target.shape.rank or target.shape[0] != examples):
            raise ValueError(
                f"`y` must have one target for each of the {examples} examples in x. The model '{model.name}' received x of "
                f"shape {shapes(x)} and y of shape {shapes(y)}."
            )


def _as_tensors(name, data, dtype):
    """Arrays -> tensors; floating-point numbers in `dtype`, if one is given."""

    def tensor(value):
        if value is None:
            return None
        converted = keras.ops.convert_to_tensor(value)
        return tf.cast(converted, dtype) if dtype and converted.dtype.is_floating else converted

    if isinstance(data, (list, tuple)) and not any(hasattr(item, "shape") for item in data):
        data = np.asarray(data)  # plain numbers
    try:
        return keras.tree.map_structure(tensor, data)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"`{name}` must be one batch of arrays. Received: {name} of type {type(data).__name__}"
        ) from error


def _as_inputs(model, x):
    """In the dtypes of a graph's inputs, as the graph would cast them, so that the model's inputs are the links' inputs."""
    wanted, flat = keras.tree.flatten(getattr(model, "inputs", None) or []), keras.tree.flatten(x)
    if len(wanted) != len(flat) or isinstance(x, dict):
        return x
    cast = [None if t is None else keras.ops.cast(t, spec.dtype) for t, spec in zip(flat, wanted, strict=True)]
    return keras.tree.pack_sequence_as(x, cast)


def _input_dtype(model):
    """What `fit` would turn floating-point inputs into."""
    dtypes = [
        keras.backend.standardize_dtype(t.dtype) for t in keras.tree.flatten(getattr(model, "inputs", None) or [])
    ]
    return next((dtype for dtype in dtypes if "float" in dtype), model.variable_dtype)
