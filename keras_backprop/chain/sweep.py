"""Run backward: apply the rules in reverse, add up.

    ∂E/∂x = Σ over the calls that x went into of (what the call's rule makes of ∂E/∂y)

That is the chain rule. Un-broadcasting, casting back and accumulation are done here, once; rules are pure.
"""

import contextlib
import operator
import re

import keras
import tensorflow as tf

from keras_backprop import _keras, _tensorflow
from keras_backprop.chain.operations import weights_of
from keras_backprop.chain.settings import set_as_then
from keras_backprop.chain.weights import SameValues, applied_out_of_same_values
from keras_backprop.rule import Gradients, Operation, WeightRead
from keras_backprop.shapes import summed_at_run_time, summed_by_shape
from keras_backprop.weight_gradients import Repeated, Total, WeightGradient, add, cast


class Sweep:
    """The result of a backward pass.

    Attributes:
        parts: dict, `id(variable)` -> list of `WeightGradient`, one for each use of the weight.
    """

    def __init__(self, parts, tensors):
        self.parts = parts
        self._tensors = tensors

    def gradient(self, variable):
        """∂E/∂W in the variable's dtype, the sum over its uses; None where the error does not depend on it."""
        parts = self.parts.get(id(variable))
        if not parts:
            return None
        totals = [_total(part, variable) for part in parts]
        return add(totals)

    def input_gradient(self, tensor):
        """∂E/∂x for a tensor that was asked for with `inputs=`; None where the error does not depend on it."""
        return self._tensors.get(id(tensor))


def sweep(calls, upstream, weights=(), inputs=(), observers=()):
    """Apply the rules of `calls` in reverse.

    Args:
        calls: list of `Call`, in the order they ran.
        upstream: list of (tensor, gradient): ∂E/∂y where the error starts from.
        weights: the `keras.Variable`s whose gradients are wanted.
        inputs: tensors whose gradients are wanted.
        observers: functions `(call, dys, dxs, weight_gradients)`, told of every link: the upstream gradients (one for
            each output), the downstream ones (one for each input, None where nobody needs it) and a dict name ->
            `WeightGradient`.

    Returns:
        A `Sweep`.
    """
    wanted_weights = {id(v) for v in weights}
    needed = reachable(calls, wanted_weights, {id(x) for x in inputs})
    gradients: dict = {}
    parts: dict = {}
    for tensor, gradient in upstream:
        if id(tensor) in needed:
            gradients.setdefault(id(tensor), []).append(gradient)
    for call in reversed(calls):
        dys = [gradients.get(id(y)) for y in call.outputs]
        if not any(dys):
            continue
        dys = [None if dy is None else _densified(call, add(dy)) for dy in dys]
        try:
            with _as_it_ran(call, calls), _autocast(call.op):
                returned = _apply(call, dys, needed)
                dxs = _input_gradients(call, returned, needed)
        except Exception as error:
            error.add_note(f"Raised by the rule '{call.rule.name}' in the backward pass of {call!r}.")
            raise
        call.deltas = returned.deltas
        for x, dx in zip(call.inputs, dxs, strict=True):
            if dx is not None:
                gradients.setdefault(id(x), []).append(dx)
        named = _weight_gradients(call, returned)
        for variable, part in named.values():
            if id(variable) in wanted_weights:
                parts.setdefault(id(variable), []).append(part)
        for observe in observers:
            observe(call, dys, dxs, {name: part for name, (_, part) in named.items()})
    return Sweep(parts, {key: add(value) for key, value in gradients.items() if key in {id(x) for x in inputs}})


def reachable(calls, weights, inputs):
    """The ids of the tensors through which the error depends on something whose gradient is wanted.

    Args:
        calls: list of `Call`, in the order they ran.
        weights, inputs: sets of the ids of the variables and tensors whose gradients are wanted.
    """
    needed = set(inputs)
    for call in calls:
        if any(id(x) in needed for x in call.inputs) or any(id(v) in weights for v in weights_of(call.op)):
            needed.update(id(y) for y in call.outputs if _tensorflow.is_trainable(y))
    return needed


def weight_named(call, name):
    """The weight that a rule of a call calls `name`.

    An attribute of the layer, as it was in the call, dotted into a sublayer; or the variable's path.
    """
    op = call.op
    if isinstance(op, WeightRead):
        return op.variable
    if isinstance(op, Operation):
        return op.variables[name]
    if "/" in name:
        return next(v for v in op.trainable_variables if v.path == name)
    with set_as_then(call.settings):
        return operator.attrgetter(name)(op)


def _total(part, variable):
    """One part of a weight's gradient, summed over the batch, in the variable's dtype."""
    try:
        total = cast(part.total(), tf.as_dtype(_keras.dtype_of(variable)))
    except Exception as error:
        error.add_note(f"Raised by the gradient of the weight '{variable.path}' that {part.whose} returned.")
        raise
    if not total.shape.is_compatible_with(variable.shape):
        raise ValueError(
            f"{part.whose[0].upper()}{part.whose[1:]} returned a gradient of shape {total.shape} for the weight "
            f"'{variable.path}' of shape {tuple(variable.shape)}. They must be equal."
        )
    return total


def _apply(call, dys, needed):
    """One rule: upstream in, `Gradients` out."""
    rule = call.rule
    if len(dys) == 1:
        dy = dys[0]
    elif isinstance(call.op, Operation):
        dy = tuple(dys)
    else:
        dy = tuple(tf.zeros_like(y) if d is None else d for d, y in zip(dys, call.outputs, strict=True))
    with _name_scope(call):
        if isinstance(call.op, Operation):
            unwanted = [
                i for i, x in enumerate(call.inputs) if id(x) not in needed and f"input {i}" not in call.op.variables
            ]
            with _tensorflow.without_gradients_of(unwanted, call.op.operation):
                returned = applied_out_of_same_values(rule, call, dy)
        else:
            returned = rule.backward(call, dy)
    if not isinstance(returned, Gradients):
        raise TypeError(
            f"The rule '{rule.name}' of '{call.path}' must return `Gradients(dx, …, weight=dW, …)`. "
            f"It returned {type(returned).__name__}."
        )
    if len(returned.inputs) > len(call.inputs) or (len(returned.inputs) < len(call.inputs) and not rule.reads_logits):
        raise ValueError(
            f"The rule '{rule.name}' of '{call.path}' must return one gradient for each of the {len(call.inputs)} input "
            f"tensors of the call (None where there is none). It returned {len(returned.inputs)}."
        )
    return returned


def _input_gradients(call, returned, needed):
    dxs: list = []
    for position, x in enumerate(call.inputs):
        dx = returned.inputs[position] if position < len(returned.inputs) else None
        if dx is None or id(x) not in needed or not _tensorflow.is_trainable(x):
            dxs.append(None)
            continue
        dx = dx() if callable(dx) else dx
        if isinstance(call.op, Operation):  # TensorFlow's own gradient functions sum back and cast themselves
            if isinstance(dx, tf.Tensor) and not isinstance(dx, _tensorflow.EagerTensor) and dx.shape.rank is None:
                dx.set_shape(x.shape)  # what Python computes says no shape
            dxs.append(dx)
            continue
        dxs.append(cast(_unbroadcast(call, _tensor(call, dx), x), x.dtype))
    return dxs


def _tensor(call, gradient):
    """What a rule gave as a gradient, as a tensor or `tf.IndexedSlices`; integers are refused, a cast would hide a mistake."""
    if not isinstance(gradient, tf.IndexedSlices):
        gradient = tf.convert_to_tensor(gradient)
    if not gradient.dtype.is_floating and not gradient.dtype.is_complex:
        raise TypeError(
            f"The rule '{call.rule.name}' of '{call.path}' returned a gradient of dtype {gradient.dtype.name}. Gradients are "
            "floating-point numbers."
        )
    return gradient


def _weight_gradients(call, returned):
    """Name -> (variable, WeightGradient), for the weights the rule spoke of."""
    named: dict = {}
    for name, part in returned.weights.items():
        if part is None:
            continue
        try:
            variable = weight_named(call, name)
        except (AttributeError, StopIteration) as error:
            raise ValueError(
                f"The rule '{call.rule.name}' of '{call.path}' returned a gradient for {name!r}, which is no weight of the "
                f"layer. Its weights: {[v.path for v in weights_of(call.op)]}."
            ) from error
        part = part if isinstance(part, WeightGradient) else Total(_tensor(call, part))
        part = part if call.repeats is None else Repeated(part, steps=call.repeats)
        part.shape, part.dtype = variable.shape, call.output.dtype
        part.whose = f"the rule '{call.rule.name}' of '{call.path}'"
        named[name] = (variable, part)
    return named


def _unbroadcast(call, dx, x):
    """Sum dx over the axes along which x was broadcast; refuse any other difference of shape."""
    if isinstance(dx, tf.IndexedSlices) or _tensorflow.have_same_sizes(dx, x):
        return dx
    shapeless = None in (dx.shape.rank, x.shape.rank)  # what Python computes says no shape
    if shapeless and not call.rule.broadcasts:
        return tf.ensure_shape(dx, x.shape)
    extra = 0 if shapeless else len(dx.shape) - len(x.shape)
    if not call.rule.broadcasts or extra < 0:
        return _of_shape(call, dx, dx, x)
    if shapeless or (None in x.shape.as_list() and len(call.inputs) > 1):
        return summed_at_run_time(dx, x, dx)
    return _of_shape(call, dx, summed_by_shape(dx, x, dx), x)


def _of_shape(call, dx, summed, x):
    if summed.shape.is_compatible_with(x.shape):
        return summed
    raise ValueError(
        f"The rule '{call.rule.name}' of '{call.path}' returned a gradient of shape {dx.shape} for an input of shape "
        f"{x.shape}. They must be equal. For operations that broadcast, register the rule with `broadcasts=True`."
    )


def _densified(call, dy):
    keeps_slices = isinstance(call.op, (WeightRead, Operation))
    return tf.convert_to_tensor(dy) if isinstance(dy, tf.IndexedSlices) and not keeps_slices else dy


_NOTHING = contextlib.nullcontext()


def _as_it_ran(call, calls):
    """What a rule reads of a layer is what it was in the call: other calls of it may have had other weights or settings."""
    return _with_its_own(call, calls) if call.values or call.settings else _NOTHING


@contextlib.contextmanager
def _with_its_own(call, calls):
    """What a rule writes on its layer, such as a count, is from then on no setting of any call."""
    with (
        SameValues(call.values) if call.values else _NOTHING,
        set_as_then(call.settings) as written,
    ):
        yield
    places = {(id(attributes), name) for attributes, name, _ in written}
    for other in calls if written else ():
        other.settings = [setting for setting in other.settings if (id(setting[0]), setting[1]) not in places]


def _autocast(op):
    """Weights read by the rule of a layer have the dtype they had in its forward pass."""
    if isinstance(op, keras.layers.Layer) and op.autocast and op.compute_dtype != op.variable_dtype:
        return _keras.AutocastScope(op.compute_dtype)
    return _NOTHING


def _name_scope(call):
    if tf.executing_eagerly():
        return _NOTHING
    return tf.name_scope(re.sub(r"[^A-Za-z0-9_./-]", "_", f"backward/{call.path or call.rule.name}"))
