"""What can be recorded of each example of a step: functions of the model, its `Backward` and the targets, of shape `(n,)`.

Each raises a `ValueError` that says why where a model has no such thing.
"""

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.objective import both, is_of_each_example


def loss(model, result, y):
    """Each example's own loss, as Keras takes it of a batch of one, but for its sample weight: masked positions do not count."""
    compiled = _keras.compiled_loss(model)
    if compiled is not None and not result.losses_ran:
        raise ValueError(
            "no compiled loss was asked for the errors of the examples: the model's own `compute_loss` does without"
        )
    pairs = [] if compiled is None else _keras.losses_with_pairs(compiled, y, result.y_pred)
    if not pairs:
        raise ValueError("the model has no compiled loss")
    n, total = tf.shape(pairs[0][2])[0], 0.0
    for entry, target, prediction in pairs:
        in_mask = _keras.get_keras_mask(prediction)
        target, prediction = (
            keras.ops.convert_to_tensor(x, dtype=getattr(entry.loss, "dtype", None)) for x in (target, prediction)
        )
        if target.shape.rank == prediction.shape.rank - 1 and prediction.shape[-1] == 1:
            target = target[..., None]
        values = entry.loss.call(target, prediction)
        if not is_of_each_example(values, prediction):
            raise ValueError(
                f"the loss '{entry.loss.name}' returns a value of shape {tuple(values.shape)} for predictions of shape "
                f"{tuple(prediction.shape)}, and not one for each example"
            )
        (mask,) = both([in_mask], [_keras.get_keras_mask(values)])
        values = tf.cast(values, tf.float32)
        counted = tf.ones_like(values)
        if mask is not None:
            counted = tf.broadcast_to(tf.cast(mask, tf.float32), tf.shape(values))
        values, counted = (tf.reshape(a, [n, -1]) for a in (values, counted))
        own = tf.reduce_sum(tf.where(counted > 0, values, 0), 1)
        if getattr(entry.loss, "reduction", None) != "sum":
            own = tf.math.divide_no_nan(own, tf.reduce_sum(counted, 1))
        total += own * (1.0 if entry.loss_weights is None else entry.loss_weights)
    return total


def gradient_norm(model, result, y):
    """The norm of the gradient of each example's own error, over all weights."""
    return result.example_norms()


def error(model, result, y):
    """‖p − y‖ of each example, over the positions that are not masked and not ignored; NaN where all are ignored."""
    p, target = _probabilities(model, result, y)
    squares, mask = tf.square(p - target), _keras.get_keras_mask(keras.tree.flatten(result.y_pred)[0])
    if mask is not None and mask.shape.rank == p.shape.rank - 1:
        squares = tf.where(tf.cast(mask, tf.bool)[..., None], squares, 0)
    has_class = _has_class(target) if _ignores(model) else tf.ones(tf.shape(p)[:-1], tf.bool)
    squares, has_class = (
        tf.reshape(a, [tf.shape(p)[0], -1]) for a in (tf.where(has_class[..., None], squares, 0), has_class)
    )
    return tf.sqrt(tf.where(tf.reduce_any(has_class, 1), tf.reduce_sum(squares, 1), np.nan))


def correct(model, result, y):
    """1 where the most probable class is the given one, 0 where not, NaN where an example has no class."""
    p, target = _of_classes(model, result, y)
    if p.shape[-1] == 1:
        return tf.equal(p[:, 0] > 0.5, target[:, 0] > 0.5)
    right = tf.equal(tf.argmax(p, -1), tf.argmax(target, -1))
    return tf.where(_has_class(target), tf.cast(right, tf.float32), np.nan)


def margin(model, result, y):
    """The log-odds of the given class over the best other, NaN where an example has no class."""
    p, target = _of_classes(model, result, y)
    logits = tf.cast(keras.tree.flatten(result.y_pred)[0], tf.float32) if _from_logits(model) else None
    if p.shape[-1] == 1:
        smallest = keras.config.epsilon()  # as Keras bounds it
        odds = (
            tf.math.log(tf.maximum(p, smallest)) - tf.math.log(tf.maximum(1 - p, smallest))
            if logits is None
            else logits
        )
        return tf.where(target[:, 0] > 0.5, odds[:, 0], -odds[:, 0])
    log = tf.math.log(tf.maximum(p, 1e-30)) if logits is None else logits  # but for what all classes share
    given = tf.one_hot(tf.argmax(target, -1), p.shape[-1], on_value=True, off_value=False)
    margin = tf.reduce_sum(tf.where(given, log, 0), -1) - tf.reduce_max(tf.where(given, -np.inf, log), -1)
    return tf.where(_has_class(target), margin, np.nan)


def _has_class(target):
    """Whether an example is of a class at all: not if the loss ignores the one that is given."""
    return tf.reduce_any(target != 0, -1)


def _of_classes(model, result, y):
    p, target = _probabilities(model, result, y)
    if p.shape.rank != 2 or not _is_of_classes(model):
        raise ValueError("the model does not predict one class for each example by a cross-entropy")
    binary = "Binary" in type(_only_loss(model)).__name__
    if binary and p.shape[-1] != 1:
        raise ValueError(
            f"the loss is a binary cross-entropy of {p.shape[-1]} outputs, each of which may be right or wrong by "
            "itself; of classes that exclude each other it is a categorical one"
        )
    if not binary and p.shape[-1] == 1:
        raise ValueError("the loss is a categorical cross-entropy of a single class, which is always right")
    return p, target


def _probabilities(model, result, y):
    """The predictions, as probabilities if they are of classes, and the targets in the same shape."""
    if len(keras.tree.flatten(result.y_pred)) != 1 or len(keras.tree.flatten(y)) != 1:
        raise ValueError("the model has several outputs, or no targets")
    p, target = (tf.convert_to_tensor(keras.tree.flatten(a)[0]) for a in (result.y_pred, y))
    p = tf.cast(p, tf.float32)
    loss = _only_loss(model)
    if _from_logits(model):
        p = tf.sigmoid(p) if "Binary" in type(loss).__name__ or p.shape[-1] == 1 else tf.nn.softmax(p)
    if "Sparse" in type(loss).__name__:
        labels = tf.cast(tf.reshape(target, tf.shape(p)[:-1]), tf.int32)
        if _ignores(model):
            labels = tf.where(labels == loss.ignore_class, -1, labels)
        target = tf.one_hot(labels, p.shape[-1])  # of no class: zeros
    target = tf.cast(target, tf.float32)
    return p, tf.reshape(target, tf.shape(p))


def _only_loss(model):
    entries = _keras.loss_entries(_keras.compiled_loss(model))
    if len(entries) != 1:
        raise ValueError("the model has no compiled loss, or several")
    loss = entries[0].loss
    function = getattr(loss, "fn", None)
    names = {
        "sparse_categorical_crossentropy": keras.losses.SparseCategoricalCrossentropy,
        "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
        "binary_crossentropy": keras.losses.BinaryCrossentropy,
        "categorical_focal_crossentropy": keras.losses.CategoricalFocalCrossentropy,
        "binary_focal_crossentropy": keras.losses.BinaryFocalCrossentropy,
    }
    kind = names.get(getattr(function, "__name__", ""))
    return kind() if kind is not None and not isinstance(loss, kind) else loss


def _from_logits(model):
    return _is_of_classes(model) and getattr(_only_loss(model), "from_logits", False)


def _ignores(model):
    """Whether the loss ignores a class: examples of it are of none."""
    return getattr(_only_loss(model), "ignore_class", None) is not None


def _is_of_classes(model):
    return "rossentropy" in type(_only_loss(model)).__name__


QUANTITIES = {"loss": loss, "gradient_norm": gradient_norm, "error": error, "correct": correct, "margin": margin}
"""By the name that `ExampleRecorder` takes."""
