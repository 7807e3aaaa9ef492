"""What a callback can ask of the model that it is set on."""

from typing import Any

from keras_backprop.trainer import BackpropTrainer


def require_explicit_gradients(model: Any, why: str) -> None:
    """Raise a `ValueError` where a model is none of ours. `why`: what the callback lacks then, a clause."""
    if not isinstance(model, BackpropTrainer):
        raise ValueError(
            f"The model '{model.name}' ({type(model).__name__}) trains by the tape: {why}. "
            "Train `keras_backprop.BackpropModel.from_keras(model)`."
        )
