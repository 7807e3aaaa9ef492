"""Run one training step's forward and backward pass and note everything, changing nothing."""

import functools
import itertools
import operator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.explanations.explanation import Explanation
from keras_backprop.explanations.numbers.jacobian import jacobian_of
from keras_backprop.explanations.observing.batch import as_batch
from keras_backprop.explanations.observing.errors import errors_in_one
from keras_backprop.explanations.observing.link import Link, Weight
from keras_backprop.explanations.observing.names import Names
from keras_backprop.explanations.observing.one_step import apply, gradients_for, pass_of
from keras_backprop.explanations.observing.options import options_of
from keras_backprop.explanations.observing.repeated import examples_first, jacobian_of_steps, turns_of
from keras_backprop.explanations.observing.unchanged import new_values, unchanged
from keras_backprop.explanations.writing.optimizers import optimizer_formula
from keras_backprop.formula_value import evaluate
from keras_backprop.registry import rule_for
from keras_backprop.rule import Operation, WeightRead
from keras_backprop.rules.formulas import of_tensorflow
from keras_backprop.targets import wrong_targets


def explain(model: Any, x: Any, y: Any, sample_weight: Any = None) -> Explanation:
    """The chain rule of one training step on one batch, link by link. The model is left exactly as it was.

    The forward pass runs in training mode, as in `fit`: dropout draws the mask that the next step would draw.

    Args:
        model: a compiled and built Keras model, stock or `BackpropModel`.
        x: the inputs, as for `model.fit`, of one batch: shape `(n, …)`, nested as the model takes them.
        y: the targets, shape `(n, …)`. None for a model whose losses need none.
        sample_weight: weights of the examples, shape `(n,)`, or None.

    Returns:
        An `Explanation`.

    Raises:
        TypeError: `model` is no Keras model, or `x` is no batch of arrays.
        ValueError: the model is not compiled or not built, or targets do not fit the inputs or the predictions.
        MissingRuleError: something that the error depends on has no gradient, neither here nor in TensorFlow.
    """
    x, y, sample_weight = as_batch(model, x, y, sample_weight)
    with unchanged(model):
        inputs = [tensor for tensor in keras.tree.flatten(x) if tensor is not None]
        result = pass_of(model, x, y, sample_weight, of_inputs=True)
        weights, forward = result.weights, result.forward_calls
        calls = _without_averages(result.calls, forward)
        kinds = [_kind(call, position >= forward) for position, call in enumerate(calls)]
        _check_targets(model, calls, kinds, y)
        seen = {id(link.call): link for link in result.links}
        reached = [not isinstance(call.op, (Operation, WeightRead)) or id(call) in seen for call in calls]
        calls, kinds = list(itertools.compress(calls, reached)), list(itertools.compress(kinds, reached))
        gradients = result.gradients
        update = functools.partial(apply, model)
        given = gradients_for(model, result)
        updated = new_values(model.optimizer, given, weights, update) if model.optimizer else _numpy(weights)
        scale = 1.0 if result.scale is None else float(result.scale)
        targets = [tensor for tensor in keras.tree.flatten(y) if tensor is not None]
        turns = turns_of(calls, inputs[0].shape[0])
        names = Names(calls, kinds, inputs, targets, turns)
        noted = _Noted(names, scale, seen, weights, updated, with_steps=bool(turns))
        kept = [id(call) not in turns for call in calls]
        calls, kinds = list(itertools.compress(calls, kept)), list(itertools.compress(kinds, kept))
        after = sum(any(call is one for one in calls) for call in result.calls[:forward])
        links = [noted.link(call, kind) for call, kind in zip(calls, kinds, strict=True)]
        return Explanation(
            model=model.name,
            links=errors_in_one(links, after),
            weights=[noted.weight(*each) for each in zip(weights, gradients, updated, strict=True)],
            frozen=[noted.frozen(variable) for variable in _keras.frozen_weights(model)],
            loss=float(result.loss),
            examples=inputs[0].shape[0],
            targets=_numpy(targets),
            loss_scale=scale,
            optimizer=_described(model.optimizer),
            update=_with_remark(
                optimizer_formula(model.optimizer, weights), getattr(model, "compiled_gradients", None)
            ),
        )


def _with_remark(formula, gradients):
    if formula is not None and gradients is not None:
        for group in formula.groups:
            group.remarks.append(f"g goes through compile(gradients={gradients!r}) before")
    return formula


class _Noted:
    """From what was recorded and observed to links and weights, as NumPy arrays."""

    def __init__(self, names, scale, seen, weights, updated, with_steps):
        self.names, self.scale, self.seen, self.with_steps = names, scale, seen, with_steps
        self.updated = {id(v): value for v, value in zip(weights, updated, strict=True)}
        self.uses: dict = {}

    def link(self, call, kind):
        """The `Link` of a call. Gradients of frozen weights, which go nowhere, are left out."""
        rule: Any = call.rule or rule_for(call.op)
        link = self.seen.get(id(call))
        dys = link.upstream if link else [None] * len(call.outputs)
        dxs = link.downstream if link else [None] * len(call.inputs)
        parts = link.weight_gradients if link else {}
        variables = {name: _attribute(call.op, name) for name in parts} | _variables(call.op)
        trained = tuple(name for name, v in variables.items() if id(v) in self.updated)
        weight_gradients = {name: tf.convert_to_tensor(parts[name].total()) for name in parts if name in trained}
        for name in weight_gradients:
            self.uses[id(variables[name])] = self.uses.get(id(variables[name]), 0) + 1
        upstream, downstream = tuple(map(self._unscaled, dys)), tuple(map(self._unscaled, dxs))
        options = options_of(call, dxs)
        local, formula = _local_derivative(call, rule, kind, options, upstream, downstream)
        steps = call.repeats if self.with_steps else None
        has_jacobian = kind in ("layer", "op", "activation") and link and not variables and not parts

        def examples(arrays):
            return tuple(examples_first(array, steps) for array in arrays)

        return Link(
            path=_path(call),
            kind=kind,
            rule=rule.name,
            op=call.op,
            inputs=examples(map(_numpy, call.inputs)),
            outputs=examples(map(_numpy, call.outputs)),
            input_symbols=tuple(map(self.names.of, call.inputs)),
            output_symbols=tuple(map(self.names.of, call.outputs)),
            upstream=examples(upstream),
            downstream=examples(downstream),
            local_derivative=examples_first(local, steps),
            weights={name: _numpy(v) for name, v in variables.items()},
            weight_gradients={name: self._unscaled(dW) for name, dW in weight_gradients.items()},
            updates={name: self.updated[id(variables[name])] for name in trained},
            weight_symbols={name: self.names.of_weight(v) for name, v in variables.items()},
            deltas=tuple(map(self._unscaled, call.deltas)),
            formula=formula,
            known=rule.formula is not None,
            options=options,
            trained=trained,
            jacobian=jacobian_of_steps(jacobian_of(call, rule), steps) if has_jacobian else None,
            steps=steps,
        )

    def frozen(self, variable):
        """A weight that is not trained."""
        value = _numpy(variable)
        return Weight(variable.path, self.names.of_weight(variable), value, None, value, 0, trained=False)

    def weight(self, variable, gradient, updated):
        return Weight(
            path=variable.path,
            symbol=self.names.of_weight(variable),
            value=_numpy(variable),
            gradient=self._unscaled(gradient),
            updated=updated,
            uses=self.uses.get(id(variable), 0),
        )

    def _unscaled(self, gradient):
        """A gradient without the factor that mixed precision puts on it."""
        if gradient is None:
            return None
        if self.scale == 1:
            return _numpy(tf.convert_to_tensor(gradient))
        return _numpy(tf.cast(gradient, tf.float32)) / np.float32(self.scale)


def _formula_of_tensorflow(op):
    turned = op.name == "MatMul" and any(op.operation.get_attr(f"transpose_{side}") for side in "ab")
    return None if turned else of_tensorflow(op.name)


def _local_derivative(call, rule, kind, options, upstream, downstream):
    """dy/dx entry by entry, an array or None, and the formula that stands for it.

    The rule says it, or its formula does. Of a loss with neither it is the downstream gradient ∂E/∂a, sample weights and the
    mean over the examples included.
    """
    formula = _formula_of_tensorflow(call.op) if isinstance(call.op, Operation) else rule.formula
    formula = formula and formula.of(options)
    if rule.derivative is not None:
        return _numpy(rule.derivative(call)), formula
    varied = next((n for n, dx in enumerate(downstream) if dx is not None), None)
    if getattr(formula, "derivative", None) is None:
        return (downstream[varied] if kind == "loss" and varied is not None else None), formula
    varied = varied or 0
    local = _written_derivative(formula, call.inputs[varied], call, upstream[0], downstream[varied], options)
    return local, (None if local is None else formula)


def _written_derivative(formula, x, call, dy, dx, options):
    """dy/dx by the formula, if the rule's gradient is the same."""
    if dy is None or dx is None:
        return None
    x, y = _numpy(x), _numpy(call.outputs[0])
    with np.errstate(all="ignore"):
        local = evaluate(formula.derivative, {**options, "x": x, "y": y}) * np.ones_like(y)
        rounding = 1e-4 * np.abs(dx) + 1e-7 * np.abs(dy)  # of the derivative, however small the gradient is
        near = (np.abs(local * dy - dx) <= rounding) | (local * dy == dx)  # inf as well
    return local if np.all(near) else None


def _without_averages(calls, forward):
    """The chain up to the errors and penalties: what comes after them, weights, masks, averages, is linear.

    With which coefficient each of them enters E is the gradient that comes to it. An error of one's own, which is more than a sum
    of errors, keeps all its operations.
    """
    last = [call for call in calls[forward:] if not _is_operation(call.op)]
    penalties = [call for call in calls[:forward] if isinstance(call.op, keras.regularizers.Regularizer)]
    ends = {id(y) for call in (*penalties, *last) for y in call.outputs}
    rest, seen = [], set(ends)
    for call in calls:
        after = _is_operation(call.op) and any(id(x) in seen for x in call.inputs)
        seen.update(id(y) for y in call.outputs if after)
        if not after:
            rest.append(call)
    return calls if not last or any(id(x) in seen - ends for call in rest for x in call.inputs) else rest


def _is_operation(op):
    is_node = isinstance(op, keras.Operation) and not isinstance(op, keras.layers.Layer)
    return is_node or isinstance(op, (Operation, WeightRead))


def _kind(call, after_forward):
    if isinstance(call.op, Operation):
        return "op"
    if isinstance(call.op, keras.regularizers.Regularizer):
        return "regularizer"
    if isinstance(call.op, keras.layers.Layer):
        return "layer"
    if isinstance(call.op, keras.losses.Loss):
        return "loss"
    if callable(call.op) and not isinstance(call.op, keras.Operation) and not after_forward:
        return "activation"
    return "op"


def _path(call):
    return call.path or getattr(call.op, "name", None) or type(call.op).__name__


def _variables(op):
    """Attribute name -> weight."""
    if isinstance(op, WeightRead):
        return {"weight": op.variable}
    if not isinstance(op, keras.layers.Layer):
        return {}
    own = {id(v) for v in op.weights}
    return {name.lstrip("_"): v for name, v in vars(op).items() if isinstance(v, keras.Variable) and id(v) in own}


def _attribute(op, name):
    """The weight that a rule speaks of: `kernel`, or `cell.kernel` of a sublayer, or `weight` of a weight that is read."""
    return op.variable if isinstance(op, WeightRead) else operator.attrgetter(name)(op)


def _check_targets(model, calls, kinds, y):
    """Keras broadcasts targets against predictions of another shape, without a word."""
    for call, kind in zip(calls, kinds, strict=True):
        name = getattr(getattr(call.op, "fn", None), "__name__", "")
        if kind == "loss" and rule_for(getattr(call.op, "fn", call.op)) and name not in _WITH_LABELS:
            targets, predictions = call.inputs[:2]
            if targets.shape != predictions.shape:
                raise ValueError(wrong_targets(model, y, predictions))


_WITH_LABELS = ("sparse_categorical_crossentropy", "categorical_generalized_cross_entropy", "circle", "ctc")
"""Losses whose targets are numbers of classes, not of the shape of the predictions."""


def _described(optimizer):
    """The optimizer in words."""
    if optimizer is None:
        return "no optimizer"
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    rate = float(keras.ops.convert_to_numpy(inner.learning_rate))
    scale = "" if inner is optimizer else f", loss scale {float(optimizer.scale_loss(tf.ones(()))):g}"
    return f"{type(inner).__name__}, learning rate {rate:g}{scale}"


def _numpy(value):
    if isinstance(value, list):
        return [_numpy(item) for item in value]
    return np.array(keras.ops.convert_to_numpy(value))
