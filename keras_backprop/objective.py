"""From the compiled loss to the first upstream gradients.

The error that `fit` minimises is the sum of the compiled losses, each weighted and averaged in its own way, and of the
penalties: regularisers, activity regularisers and what layers `add_loss`. Keras computes it; we note on the way which
per-example errors it is made of and with which coefficient each enters. The error is linear in them, so the coefficients are
the first upstream gradients, and from there on rules take over.
"""

import contextlib
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.registry import backward_rule, composition
from keras_backprop.replicas import divisor_over_replicas
from keras_backprop.rule import Gradients, MissingRuleError


class Objective(NamedTuple):
    """The error of a batch.

    Attributes:
        loss: the total loss, as `compute_loss` returned it.
        upstream: list of (tensor, ∂loss/∂tensor): where the backward pass starts.
    """

    loss: Any
    upstream: list


def record_objective(model, record, x, y, y_pred, sample_weight=None, training=True):
    """Compute the model's total loss, record its links, and find the first upstream gradients.

    Args:
        model: a compiled Keras model.
        record: the `Record` of the forward pass that gave `y_pred`.
        x, y, y_pred, sample_weight, training: as `keras.Model.compute_loss` takes them.

    Returns:
        An `Objective`.

    Raises:
        MissingRuleError: a loss, a penalty or an overridden `compute_loss` cannot be differentiated.
        ValueError: the targets do not fit the predictions.
    """
    upstream: list = []
    hooks = _Hooks(model, record, upstream)
    with hooks:
        if type(model).compute_loss is not _keras.Trainer.compute_loss:
            loss = _overridden(model, record, x, y, y_pred, sample_weight, training)
            upstream[:] = [(loss, tf.ones_like(loss))]
        else:
            try:
                loss = model._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
            except (ValueError, tf.errors.InvalidArgumentError) as error:
                if fit_together(y, y_pred):
                    raise
                raise ValueError(wrong_targets(model, y, y_pred, error)) from error
    # Replicas wait for each other in some of these. Before, they would have mixed up what their layers `add_loss`.
    return Objective(loss, _computed(upstream))


def _computed(upstream):
    return [(tensor, gradient() if callable(gradient) else gradient) for tensor, gradient in upstream]


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


def fit_together(y, y_pred):
    """Whether every prediction has a target of its own shape."""
    targets, predictions = keras.tree.flatten(y), keras.tree.flatten(y_pred)
    return [getattr(t, "shape", None) for t in targets] == [p.shape for p in predictions]


class _Hooks:
    """For the duration of `compute_loss`: record the losses and penalties it computes."""

    def __init__(self, model, record, upstream):
        self.model, self.record, self.upstream = model, record, upstream

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        model, record = self.model, self.record
        for variable in model.trainable_weights:
            if variable.regularizer is not None:
                self._replace(variable, _regularizer=self._regularizer(variable))
        aggregate = _keras.current(model, "_aggregate_additional_loss")

        def aggregate_recorded(loss):
            if isinstance(loss, keras.KerasTensor):  # inside a user's own `compute_loss`
                return aggregate(loss)
            known = any(loss is y for call in record.calls for y in call.outputs)
            if not known:
                raise MissingRuleError(
                    f"The model '{model.name}' has a loss of shape {loss.shape} from `add_loss` that the backward pass "
                    "cannot follow. Compute it from the layer's inputs in a layer without a rule of its own, with "
                    "`keras.ops` only, or as an `activity_regularizer`."
                )
            ones = tf.ones_like(loss)
            self.upstream.append((loss, ones * aggregate(ones) / tf.cast(tf.size(loss), loss.dtype)))
            return aggregate(loss)

        self._replace(model, _aggregate_additional_loss=aggregate_recorded)
        compiled = _keras.current(model, "_compile_loss")
        if compiled is not None:
            self._replace(model, _compile_loss=self._compiled_loss(compiled))
        return self

    def __exit__(self, *exception):
        return self.stack.__exit__(*exception)

    def _replace(self, owner, **replacements):
        self.stack.enter_context(_keras.replaced(owner, **replacements))

    def _regularizer(self, variable):
        regularizer = _keras.current(variable, "_regularizer")
        return lambda value: self.record.run(regularizer, self.record.read(variable))

    def _compiled_loss(self, compiled):
        """The compiled loss, with each of its losses recorded."""

        def call(y, y_pred, sample_weight=None):
            if any(isinstance(x, keras.KerasTensor) for x in keras.tree.flatten(y_pred)):
                return CompiledLoss(self, compiled, y, sample_weight)(y_pred)
            return self.run_compiled_loss(compiled, self.upstream, y, y_pred, sample_weight)

        return call

    def run_compiled_loss(self, compiled, upstream, y, y_pred, sample_weight):
        """The value of the compiled loss; where the gradient starts is added to `upstream`."""
        if not compiled.built:  # to call it would update the metrics that it holds
            _keras.compute_output_spec(compiled, *keras.tree.map_structure(_keras.symbolic, (y, y_pred, sample_weight)))
        shadow = object.__new__(type(compiled))  # Keras objects refuse `copy.copy`
        vars(shadow).update(vars(compiled))
        shadow._flat_losses = [
            entry._replace(loss=RecordedLoss(entry.loss, entry.loss_weights, self.record, upstream, compiled.dtype))
            for entry in compiled._flat_losses
        ]
        return shadow(y, y_pred, sample_weight)


class RecordedLoss:
    """A loss that, when called, records how its value comes about."""

    def __init__(self, loss, weight, record, upstream, dtype):
        self.loss, self.weight, self.record, self.upstream, self.dtype = loss, weight, record, upstream, dtype

    def __call__(self, y_true, y_pred, sample_weight=None):
        if type(self.loss).__call__ is not keras.losses.Loss.__call__:
            return self._whole(y_true, y_pred, sample_weight)
        recorded = []

        def call(targets, predictions):
            recorded.append(tf.convert_to_tensor(self._values(targets, y_pred, predictions)))
            return recorded[-1]

        self.original = _keras.current(self.loss, "call")
        with _keras.replaced(self.loss, call=call):
            value = self.loss(y_true, y_pred, sample_weight)
        values = recorded[-1]
        self.upstream.append((values, lambda: self._gradient(values, y_pred, sample_weight)))
        return value

    def _gradient(self, values, y_pred, sample_weight):
        gradient = self._coefficients(values, y_pred, sample_weight)
        if self.weight is None:
            return gradient
        return gradient * keras.ops.convert_to_tensor(self.weight, gradient.dtype.name)  # tf.cast would round it first

    def _whole(self, y_true, y_pred, sample_weight):
        """A loss with a `__call__` of its own, which weights and reduces in its own way."""
        loss = self.loss
        value = self.record.run_as(loss, loss.__call__, loss, loss.name, y_true, y_pred, sample_weight)
        factor = 1.0 if self.weight is None else self.weight
        self.upstream.append((value, tf.ones_like(value) * tf.cast(factor, value.dtype)))
        return value

    def _values(self, targets, source, predictions):
        """The per-example errors, recorded."""
        record, loss = self.record, self.loss
        if keras.tree.is_nested(predictions) or not isinstance(loss, _keras.LossFunctionWrapper):
            for a, b in zip(keras.tree.flatten(source), keras.tree.flatten(predictions), strict=True):
                record.convert(a, b)
            return record.run_as(loss, self.original, loss, loss.name, targets, predictions)
        record.convert(source, predictions)
        targets, aligned = _keras.squeeze_or_expand_to_same_rank(targets, predictions)
        record.convert(predictions, aligned)
        return record.run_as(loss, loss.fn, loss.fn, loss.name, targets, aligned, **loss._fn_kwargs)

    def _coefficients(self, values, y_pred, sample_weight):
        """∂(reduced loss)/∂values: the sample weight and mask of each value, over the divisor of the reduction."""
        loss, dtype = self.loss, values.dtype
        masks = [_keras.get_keras_mask(y_pred), _keras.get_keras_mask(values)]
        masks = [tf.convert_to_tensor(m) for m in masks if m is not None]
        mask = masks[0] & masks[1] if len(masks) == 2 else masks[0] if masks else None
        weights = tf.ones_like(values)
        if sample_weight is not None or mask is not None:
            if sample_weight is not None:
                sample_weight = keras.ops.convert_to_tensor(sample_weight, dtype=loss.dtype)
            if mask is not None:
                mask = keras.ops.convert_to_tensor(mask, dtype=loss.dtype)
            sample_weight = _keras.apply_mask(sample_weight, mask, dtype=dtype.name, reduction=loss.reduction)
            aligned, sample_weight = _keras.squeeze_or_expand_to_same_rank(values, tf.cast(sample_weight, dtype))
            weights = tf.ones_like(aligned) * sample_weight
        if loss.reduction not in (None, "none", "sum") and len(weights.shape):
            divisor = tf.cast(tf.size(weights), dtype)
            if loss.reduction == "mean_with_sample_weight" and sample_weight is not None:
                divisor, mask = tf.reduce_sum(sample_weight), None
            weights = tf.math.divide_no_nan(weights, divisor_over_replicas(divisor, mask))
        return _summed_to(weights, values)


def _summed_to(weights, values):
    """Sum the coefficients of a value that was broadcast against its weights."""
    if weights.shape == values.shape and values.shape.is_fully_defined():
        return weights
    axes = tf.raw_ops.BroadcastGradientArgs(s0=tf.shape(values), s1=tf.shape(weights)).r0
    return tf.reshape(tf.reduce_sum(weights, axes), tf.shape(values))


class CompiledLoss(keras.Operation):
    """The compiled loss as an operation, for a user's `compute_loss` that calls Keras's and adds to it."""

    def __init__(self, hooks, compiled, y, sample_weight):
        super().__init__(name="compiled_loss")
        self.hooks, self.compiled, self.y, self.sample_weight = hooks, compiled, y, sample_weight

    def compute_output_spec(self, y_pred):
        return keras.KerasTensor((), self.compiled.dtype)


@composition(CompiledLoss)
def compiled_loss(record, op, y_pred):
    """E = Σ c·e over the errors e of the compiled losses, with the coefficients c that Keras gives them"""
    upstream: list = []
    value = op.hooks.run_compiled_loss(op.compiled, upstream, op.y, y_pred, op.sample_weight)
    errors, coefficients = zip(*_computed(upstream), strict=True)
    return record.run_as(op, weighted_total, weighted_total, "compiled_loss", value, coefficients, errors)


def weighted_total(value, coefficients, errors):
    """The value of Σ c·e, computed already."""
    return value


@backward_rule(weighted_total)
def weighted_total_backward(call, dy):
    """E = Σ c·e        de = c·dy"""
    coefficients = call.arguments["coefficients"]
    return Gradients(None, *[None] * len(coefficients), *[c * tf.cast(dy, c.dtype) for c in coefficients])


def _overridden(model, record, x, y, y_pred, sample_weight, training):
    """A user's own `compute_loss`: expanded into operations.

    Symbolic are the predictions, the added losses and what layers keep of the forward pass in their attributes. Metrics
    that it updates are updated when its values are there.
    """
    x, y, sample_weight = keras.tree.map_structure(_as_tensor, (x, y, sample_weight))
    produced = {id(tensor) for call in record.calls for tensor in call.outputs}
    layers = model._flatten_layers()
    kept = [
        (vars(layer), name, value)
        for layer in layers
        for name, value in vars(layer).items()
        if tf.is_tensor(value) and id(value) in produced
    ]
    metrics = [metric for layer in layers for metric in layer._metrics]

    def compute_loss(predictions, losses, symbols):
        updates: list = []
        for value, symbol in zip(keras.tree.flatten(y_pred), keras.tree.flatten(predictions), strict=True):
            if _keras.get_keras_mask(value) is not None:
                _keras.set_keras_mask(symbol, _keras.get_keras_mask(value))
        model._losses_override = losses
        for (attributes, name, _), symbol in zip(kept, symbols, strict=True):
            attributes[name] = symbol
        with contextlib.ExitStack() as stack:
            for metric in metrics:
                stack.enter_context(_keras.replaced(metric, update_state=_noted(metric, updates)))
            try:
                loss = model._compute_loss(x=x, y=y, y_pred=predictions, sample_weight=sample_weight, training=training)
            finally:
                model._losses_override = []
                for attributes, name, value in kept:
                    attributes[name] = value
        return loss, updates

    values = [value for _, _, value in kept]
    path = f"{model.name}.compute_loss"
    loss, updates = record.run_as(model, compute_loss, compute_loss, path, y_pred, model.losses, values)
    for metric, args, kwargs in updates:
        metric.update_state(*args, **kwargs)
    return loss


def _as_tensor(x):
    """`train_on_batch` hands NumPy arrays through in eager mode; they do not compute with symbolic predictions."""
    if not isinstance(x, np.ndarray):
        return x
    return tf.convert_to_tensor(x, keras.config.floatx() if x.dtype == "float64" else None)


def _noted(metric, updates):
    return lambda *args, **kwargs: updates.append((metric, args, kwargs))
