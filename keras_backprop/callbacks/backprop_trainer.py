"""What callbacks that look at the backward pass say of a model that has none of ours."""

from typing import Any

from keras_backprop.trainer import BackpropTrainer


def require_backprop_trainer(model: Any, why: str) -> None:
    """Raise a `ValueError` where a model is no `BackpropTrainer`. `why`: what the callback lacks then, a clause."""
    if not isinstance(model, BackpropTrainer):
        raise ValueError(
            f"The model '{model.name}' ({type(model).__name__}) trains by the tape: {why}. "
            "Train `keras_backprop.BackpropModel.from_keras(model)`."
        )
