"""What is said of targets that cannot belong to the predictions."""

import keras

from keras_backprop import _keras


def wrong_targets(model, y, y_pred, error=None):
    """What is said of targets that do not fit the predictions."""
    reason = f" Keras says: {str(error).strip().splitlines()[0]}" if error is not None else ""
    return (
        f"The targets do not fit the predictions of the model '{model.name}'. Received: y of shape {shapes(y)} for "
        f"predictions of shape {shapes(y_pred)}. Give every prediction its target, or choose another loss.{reason}"
    )


def shapes(structure):
    """The shapes of the tensors in a structure, in words; of an unknown batch size None."""
    found = [tuple(t.shape) if hasattr(t, "shape") else t for t in keras.tree.flatten(structure)]
    return str(found[0]) if len(found) == 1 else ", ".join(map(str, found))


def misfit(model, y, y_pred):
    """Whether an error may be put down to targets that cannot belong to the predictions: Keras's own losses, other shapes."""
    if type(model).compute_loss is not _keras.Trainer.compute_loss:
        return False
    compiled = _keras.compiled_loss(model)
    losses = _keras.losses_of(compiled)
    functions = [_keras.current(loss, "fn") or type(loss) for loss in losses]
    if compiled is None or not all(function.__module__.startswith("keras.") for function in functions):
        return False
    targets, predictions = keras.tree.flatten(y), keras.tree.flatten(y_pred)
    if len(targets) != len(predictions) or all(t is None for t in targets):
        return True
    sparse = any(function.__name__.startswith("sparse") for function in functions)
    axes = [_keras.options_of(loss).get("axis", -1) for loss in losses] if sparse else []
    if any(axis not in (-1, len(p.shape) - 1) for axis in axes for p in predictions):
        return False  # which Keras does not support, whatever the targets
    pairs = [(t, p) for t, p in zip(targets, predictions, strict=True) if hasattr(t, "shape")]
    return any(_misfit(tuple(t.shape), tuple(p.shape), sparse) for t, p in pairs)


def _misfit(target, prediction, sparse):
    if sparse or (len(target) + 1 == len(prediction) and prediction[-1] == 1):
        prediction = prediction[:-1]
        target = target[:-1] if len(target) > len(prediction) and target[-1] == 1 else target
    return len(target) != len(prediction) or any(
        t != p and None not in (t, p) for t, p in zip(target, prediction, strict=True)
    )
