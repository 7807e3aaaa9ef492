"""What `train_step` does with `compile(gradients=…)`."""

import tensorflow as tf

from keras_backprop import _keras


def made_gradients(function, result):
    """What a function makes of the gradients of a `Backward`, checked.

    Raises:
        TypeError, ValueError: it does not return one gradient of the weight's shape, or None, for each weight.
    """
    gradients = function(result)
    if not isinstance(gradients, (list, tuple)) or len(gradients) != len(result.weights):
        count = f"{len(gradients)}" if isinstance(gradients, (list, tuple)) else f"a {type(gradients).__name__}"
        raise TypeError(
            f"`compile(gradients=…)`: {function!r} must return a list of one gradient (or None) for each of the "
            f"{len(result.weights)} trainable weights. It returned {count}."
        )
    tensors = [g if g is None or isinstance(g, tf.IndexedSlices) else tf.convert_to_tensor(g) for g in gradients]
    for gradient, weight in zip(tensors, result.weights, strict=True):
        if gradient is not None and not tf.TensorShape(gradient.shape).is_compatible_with(weight.shape):
            raise ValueError(
                f"`compile(gradients=…)`: {function!r} returned a gradient of shape {tuple(gradient.shape)} for the weight "
                f"'{weight.path}' of shape {tuple(weight.shape)}."
            )
        if gradient is not None and not gradient.dtype.is_floating and not gradient.dtype.is_complex:
            raise TypeError(
                f"`compile(gradients=…)`: {function!r} returned a gradient of dtype {gradient.dtype.name} for the weight "
                f"'{weight.path}'. Gradients are floating-point numbers."
            )
    return tensors


def held(function, gradients, weights, optimizer_averages=False):
    """The gradients, and a function that puts back after the update what is not to move.

    Args:
        function: what `compile(gradients=…)` was given; has it a method `held`, this says of a weight which entries are held.
        gradients: list of gradients or None.
        weights: list of `keras.Variable`.
        optimizer_averages: bool, whether the optimizer keeps averages of weights.

    Returns:
        `gradients`, and a function without arguments.

    Raises:
        ValueError: something is held, and the optimizer averages weights.
    """
    ask = getattr(function, "held", None)
    masks = [] if ask is None else [(i, ask(weight)) for i, weight in enumerate(weights)]
    if optimizer_averages and any(mask is not None for _, mask in masks):
        raise ValueError(
            "A weight cannot be held where the optimizer averages weights (`use_ema=True`): the average would move. Leave one of "
            "the two out."
        )
    kept = [(weights[i], mask, tf.identity(weights[i].value)) for i, mask in masks if mask is not None]
    if not kept:
        return gradients, lambda: None
    with tf.control_dependencies([before for _, _, before in kept]):  # what is put back was read before the update
        gradients = [g if g is None else _identity(g) for g in gradients]

    def put_back(strategy=None):
        for weight, mask, before in kept:
            if strategy is None:
                weight.assign(tf.where(mask, before, weight.value))
            else:
                strategy.extended.update(_keras.stored_in(weight), _assign, (before, mask))

    if not tf.distribute.has_strategy():
        return gradients, put_back
    return gradients, lambda: tf.distribute.get_replica_context().merge_call(put_back)


def _assign(variable, before, mask):
    return variable.assign(tf.where(mask, before, variable))


def _identity(gradient):
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(tf.identity(gradient.values), gradient.indices, gradient.dense_shape)
    return tf.identity(gradient)
