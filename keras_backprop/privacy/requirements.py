"""What a model must be for its examples' gradients to be kept apart: otherwise one example changes what the others contribute."""

from typing import Any

from keras_backprop import _keras
from keras_backprop.chain.rows import MIXING_LAYERS


def require_private(result: Any) -> None:
    """Look at a backward pass.

    Args:
        result: a `Backward`.

    Raises:
        ValueError: no weights are trained; layers that mix the examples of a batch, or penalties that depend on them; which
            ones, and what to use instead.
    """
    if not result.weights:
        raise ValueError(
            "The model has no trainable weights: there is nothing to train privately. Unfreeze a layer "
            "(`layer.trainable = True`) before `compile`."
        )
    coupling = result.coupling
    if coupling:
        layers = "; ".join(f"'{path}' ({why})" for path, why in coupling.items())
        raise ValueError(
            f"The gradients of single examples do not exist: in these layers examples depend on each other: {layers}. Use "
            "`keras.layers.GroupNormalization` or `keras.layers.LayerNormalization` in the place of `BatchNormalization`, or "
            "freeze it (`layer.trainable = False`), so that it uses the statistics that it has."
        )
    added = result.losses_of_examples
    if added:
        raise ValueError(
            "What these layers add to the loss depends on the examples, and is the contribution of none alone: "
            f"{', '.join(map(repr, added))}. Leave out `activity_regularizer` and `add_loss` of activations, or compute them in "
            "the loss function, example by example. Penalties on weights (`kernel_regularizer`) may stay."
        )


def require_private_model(model: Any) -> None:
    """Look at a model before it is trained.

    Raises:
        ValueError: it has layers that keep a state of the examples from step to step, or that mix them.
    """
    mixing = [layer for layer in _keras.layers_in(model) if isinstance(layer, MIXING_LAYERS)]
    if mixing:
        raise ValueError(
            "These layers put something of one example into others, the gradients of which would tell about it: "
            f"{', '.join(f'{layer.path or layer.name!r} ({type(layer).__name__})' for layer in mixing)}. Leave them out; layers "
            "that change every image by itself (`RandomFlip`, `RandomBrightness`) may stay."
        )
    stateful = [layer for layer in _keras.layers_in(model) if getattr(layer, "stateful", False)]
    if stateful:
        raise ValueError(
            "What an example leaves behind in a layer with `stateful=True` takes part in the next step, in the gradient of "
            f"another example: {', '.join(repr(layer.path or layer.name) for layer in stateful)}. Leave `stateful` out."
        )
