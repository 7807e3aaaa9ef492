"""Look without touching: everything a forward pass or an update changes is put back."""

import contextlib
import copy
import warnings

import keras
import tensorflow as tf

from keras_backprop import _keras


@contextlib.contextmanager
def unchanged(model):
    """On leaving the block, every variable of the model has its value again and every layer its added losses.

    Covers weights, seed generators, moving statistics and metrics.
    """
    values = _values(model.variables)
    losses = [(layer, _keras.added_losses_in(layer)) for layer in _keras.layers_in(model)]
    try:
        yield
    finally:
        _assign(values)
        for layer, added in losses:
            _keras.restore_added_losses(layer, added)


def new_values(optimizer, gradients, variables, update=None):
    """What `optimizer.apply(gradients, variables)` would make of the variables. All is left as it was.

    A copy of the optimizer is applied, with all its state: momentum, clipping, decay, schedules, constraints, loss scales
    and averages are in its `apply`, and need not be known here. The first `apply` of an optimizer also creates its slots;
    on a copy that leaves no trace.

    Args:
        optimizer: any Keras optimizer, built or not.
        gradients: list of tensors, None where there is none.
        variables: list of `keras.Variable`.
        update: function (optimizer, gradients, variables) that does it; by default `optimizer.apply`.

    Returns:
        list of NumPy arrays.
    """
    values = _values(variables)
    try:
        if any(gradient is not None for gradient in gradients):
            with warnings.catch_warnings():  # a weight without a gradient shows as such in the explanation
                warnings.filterwarnings("ignore", message="Gradients do not exist")
                own = copied(optimizer, shared=variables)
                own.apply(gradients, variables) if update is None else update(own, gradients, variables)
        return [keras.ops.convert_to_numpy(variable).copy() for variable in variables]
    finally:
        _assign(values)


def copied(optimizer, shared):
    """A copy with state of its own, of the same weights. (`copy.deepcopy` alone would go by way of a saved file.)"""
    memo = {id(variable): variable for variable in shared}
    memo.update({id(variable.value): variable.value for variable in shared})
    memo[id(tf.distribute.get_strategy())] = tf.distribute.get_strategy()
    pending, shells = [optimizer], []
    while pending:
        source = pending.pop()
        shell = memo[id(source)] = object.__new__(type(source))
        shells.append((source, shell))
        pending.extend(x for x in vars(source).values() if isinstance(x, keras.Optimizer) and id(x) not in memo)
    for source, shell in shells:
        vars(shell).update(copy.deepcopy(dict(vars(source)), memo))
    return shells[0][1]


def _values(variables):
    return [(variable, tf.identity(variable.value)) for variable in {id(v): v for v in variables}.values()]


def _assign(values):
    for variable, value in values:
        variable.value.assign(value)
