"""The links between layers: a tensor's copy, a weight that is read, and operations of TensorFlow."""

import tensorflow as tf

from keras_backprop import _tensorflow
from keras_backprop.registry import backward_rule, pullback
from keras_backprop.replicas import evened, factor_of
from keras_backprop.rule import Copy, Gradients, MissingRuleError, Operation, WeightRead
from keras_backprop.rules.operation_gradients import shortest

pullback(Copy, lambda call, dy: dy)


@backward_rule(WeightRead)
def weight_read(call, dy):
    """y = W        dW = dy"""
    return Gradients(weight=dy)


@backward_rule(evened)
def evened_backward(call, dy):
    """y = x        dx = f·dy        f: the examples of this replica over those of all, times the replicas"""
    factor = factor_of(call.arguments["divisor"], call.arguments["mask"])
    return Gradients(dy * tf.cast(factor, dy.dtype), *[None] * (len(call.inputs) - 1))


@backward_rule(Operation)
def tensorflow(call, dy):
    """y = f(x)        dx = dy·(dy/dx), by the gradient function that TensorFlow has registered for the type, or a shorter one"""
    operation, variables = call.op.operation, call.op.variables
    try:
        gradient = _tensorflow.registered_gradient(operation)
    except LookupError:
        raise MissingRuleError(
            f"'{call.path}' is an operation of type {operation.type!r}, for which TensorFlow has no gradient. Compute it from "
            "other operations; or give what calls it a gradient of its own, with `tf.custom_gradient` or as a rule of the layer "
            "(a method `backward(self, call, dy)`); or put `keras.ops.stop_gradient` around it."
        ) from None
    if gradient is None:  # declared not differentiable
        return Gradients(*[None] * len(call.inputs))
    gradient = shortest(gradient, dy)
    dys = dy if isinstance(dy, tuple) else (dy,)
    dys = [
        _tensorflow.zeros_like(y) if d is None and _tensorflow.is_trainable(y) else d
        for d, y in zip(dys, call.outputs, strict=True)
    ]
    for d, y in zip(dys, call.outputs, strict=True):
        _tensorflow.tell_what_it_holds(d, y)
    dxs = gradient(operation, *dys)
    dxs = list(dxs) if isinstance(dxs, (list, tuple)) else [dxs]
    weights = {name: dxs[int(name.removeprefix("input "))] for name in variables}
    return Gradients(*dxs, **weights)
