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
    if compiled is None or not all(_function_of(loss).__module__.startswith("keras.") for loss in losses):
        return False
    targets, predictions = keras.tree.flatten(y), keras.tree.flatten(y_pred)
    if len(targets) != len(predictions) or all(t is None for t in targets):
        return True
    triples = [(entry.loss, *pair) for entry, *pair in _keras.losses_with_pairs(compiled, y, y_pred)]
    if not triples:  # the losses are not built yet
        triples = [(None, *pair) for pair in zip(targets, predictions, strict=True)]
    triples = [(loss, t, p) for loss, t, p in triples if hasattr(t, "shape")]
    if not all(_has_supported_axis(loss, len(p.shape)) for loss, _, p in triples):
        return False  # whatever the targets
    return any(_misfit(tuple(t.shape), tuple(p.shape), _is_sparse(loss)) for loss, t, p in triples)


def _function_of(loss):
    return _keras.current(loss, "fn") or type(loss)


def _is_sparse(loss):
    return _function_of(loss).__name__.startswith("sparse")


def _has_supported_axis(loss, rank):
    return not _is_sparse(loss) or _keras.options_of(loss).get("axis", -1) in (-1, rank - 1)


def _misfit(target, prediction, sparse):
    if sparse or (len(target) + 1 == len(prediction) and prediction[-1] == 1):
        prediction = prediction[:-1]
        target = target[:-1] if len(target) > len(prediction) and target[-1] == 1 else target
    return len(target) != len(prediction) or any(
        t != p and None not in (t, p) for t, p in zip(target, prediction, strict=True)
    )
