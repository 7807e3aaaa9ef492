"""What a function can ask of the model that it is given."""

from typing import Any

import keras


def require_model(model: Any, function: str) -> None:
    """Raise a `TypeError` where something is no Keras model. `function`: who asks."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"`{function}` takes a `keras.Model`. Received: {model!r} (of type {type(model).__name__})")


def require_built(model: Any, function: str) -> None:
    """Raise a `ValueError` where a model has no weights yet."""
    if not model.built:
        raise ValueError(
            f"The model '{model.name}' is not built: its layers have no weights yet. Call it on a batch of data, or give it "
            f"an input shape (`keras.Input`, `model.build(…)`), before `{function}`."
        )


def require_compiled(model: Any, function: str, otherwise: str = "") -> None:
    """Raise a `ValueError` where a model has no loss. `otherwise`: what would do instead."""
    if not model.compiled:
        raise ValueError(
            f"The model '{model.name}' is not compiled: it has no loss. Call `model.compile(optimizer, loss=…)` before "
            f"`{function}`{otherwise}."
        )
