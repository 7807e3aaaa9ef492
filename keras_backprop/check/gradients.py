"""`check_gradients` and `check_layer`: explicit gradients against `tf.GradientTape` and central differences, in float64."""

import contextlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.backward_pass import passes
from keras_backprop.chain.sweep import reachable, weight_named, weights_of
from keras_backprop.check.differences import compare_directions
from keras_backprop.check.problem import LayerProblem, ModelProblem
from keras_backprop.check.report import Culprit, Report, Row
from keras_backprop.check.tolerances import RELATIVE_TOLERANCE
from keras_backprop.objective import Objective
from keras_backprop.required import require_built, require_compiled, require_model
from keras_backprop.rule import Copy, Operation
from keras_backprop.scopes import entered_for
from keras_backprop.targets import misfit, wrong_targets


def check_gradients(model: Any, x: Any, y: Any, sample_weight: Any = None, finite_differences: bool = True) -> Report:
    """Check the gradients of a compiled model's loss on one batch.

    The model is any Keras model; it is not changed. Computation is in float64, with the same dropout masks throughout, and by the
    rules of `compile(rules=…)`.

    Args:
        model: a compiled and built Keras model.
        x, y, sample_weight: a batch, as `fit` takes it: arrays or tensors, nested as the model wants them.
        finite_differences: bool; without them the check is faster.

    Returns:
        A `Report`: a row for each trainable weight and each floating-point input, and which rule is wrong, if any.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: the model is not built or not compiled, or the data do not fit it.
        MissingRuleError: something in the model has no rule.
    """
    require_model(model, "check_gradients")
    require_built(model, "check_gradients")
    require_compiled(model, "check_gradients")
    batch = keras.tree.map_structure(lambda a: None if a is None else tf.convert_to_tensor(a), (x, y, sample_weight))
    try:
        _keras.build_all(model, batch)
    except (ValueError, tf.errors.InvalidArgumentError) as error:
        y_pred = model(batch[0])
        if not misfit(model, batch[1], y_pred):
            raise
        raise ValueError(wrong_targets(model, batch[1], y_pred, error)) from error
    with entered_for(model):
        return _check(ModelProblem(model, x, y, sample_weight), finite_differences)


def check_layer(layer: Any, *inputs: Any, finite_differences: bool = True, **call_arguments: Any) -> Report:
    """Check the gradients of a layer, of a random linear combination of its outputs.

    Args:
        layer: any Keras layer, built or not (then it is built here). It is not changed otherwise.
        *inputs: as the layer is called: arrays or tensors, nested structures included.
        finite_differences: bool; without them the check is faster.
        **call_arguments: as the layer is called: `training=True`, `mask=…`.

    Returns:
        A `Report`. A layer with a dtype written into its code, so that it cannot compute in float64, is checked in its own,
        with the tolerance of that and without finite differences.

    Raises:
        TypeError: `layer` is no Keras layer.
        ValueError: the layer has no floating-point output.
        MissingRuleError: something in the layer has no gradient, neither here nor in TensorFlow.
    """
    if not isinstance(layer, keras.layers.Layer):
        raise TypeError(
            f"`check_layer` takes a `keras.layers.Layer`. Received: {layer!r} (of type {type(layer).__name__})"
        )
    inputs, call_arguments = keras.tree.map_structure(
        lambda x: tf.convert_to_tensor(x) if isinstance(x, (np.ndarray, np.generic)) else x, (inputs, call_arguments)
    )
    if not all(one.built for one in _keras.layers_in(layer)):
        layer(*inputs, **call_arguments)
    try:
        return _check(LayerProblem(layer, inputs, call_arguments), finite_differences)
    except Exception:  # perhaps the layer insists on the dtype it is written for; if not, it fails again
        return _check(LayerProblem(layer, inputs, call_arguments, double=False), finite_differences=False)


def _check(problem, finite_differences):
    explicit, dtypes = explicit_gradients(problem)
    references = tape_gradients(problem)
    lowest = max(dtypes, key=lambda name: RELATIVE_TOLERANCE[name])
    tolerance = RELATIVE_TOLERANCE[lowest]
    same = _same_forward(problem, tolerance)
    random = not same and _draws_anew(problem, tolerance)
    # A gradient that is zero by symmetry is rounding noise: measure it against the largest gradient of all.
    scale = max([_largest(g) for g in references if g is not None] + [1e-30])
    names = [v.path for v in problem.weights] + [f"input {i}" for i in range(len(problem.inputs))]
    differences = (
        compare_directions(problem, explicit, lowest) if finite_differences and not random else [None] * len(names)
    )
    beside = differences
    if any(difference is not None and difference.kinks for difference in differences):
        nearby = problem.beside()  # a kink spoils the differences at one point, a wrong derivative everywhere
        beside = compare_directions(nearby, explicit_gradients(nearby)[0], lowest)
    report = Report(problem.name, tolerance=tolerance, forward=None if same or random else _told(problem))
    tensors = [problem.values[id(v)] for v in problem.weights] + problem.inputs
    for name, tensor, ours, theirs, difference, other in zip(
        names, tensors, explicit, references, differences, beside, strict=True
    ):
        absolute, relative = _distance(ours, theirs, tensor, floor=1e-4 * scale)
        verdict = "ok" if relative <= tolerance else "wrong"
        if ours is None and theirs is None:
            verdict = "no gradient"
        kinks = 0 if difference is None else difference.kinks
        if verdict == "ok" and theirs is not None and not bool(tf.reduce_all(tf.math.is_finite(theirs))):
            verdict = "not finite"
        if difference is not None and verdict == "ok" and not difference.agrees:
            believed = kinks and (other.agrees or other.kinks)
            verdict = "kink" if believed else "held" if problem.holds_something_constant else "wrong"
        if verdict == "wrong" and random:
            verdict = "random"
        row = Row(name, tuple(tensor.shape), absolute, relative, verdict=verdict, kinks=kinks)
        if difference is not None:
            row.difference_absolute, row.difference_relative = difference.absolute, difference.relative
        report.rows.append(row)
    if random or not report.passed:
        report.culprits = _culprits(problem, tolerance)
    return report


def explicit_gradients(problem):
    """The rules' gradients of weights and inputs, and the dtypes in which the forward pass computed."""
    with problem.scope():
        result, objective = _pass(problem)
        gradients = [_dense(g) for g in (*result.gradients, *result.inputs)]
        problem.terms = [tf.cast(y, tf.float64) * tf.cast(dy, tf.float64) for y, dy in objective.upstream]
    calls = result.calls
    problem.forward_rules = [call.path for call in calls if call.rule.forward is not None]
    problem.links = [call.op for call in calls]
    problem.holds_something_constant = any(_holds_something_constant(call) for call in calls)
    dtypes = {y.dtype.name for call in calls for y in call.outputs if y.dtype.name in RELATIVE_TOLERANCE}
    if any(getattr(call.op, "interpolation", "nearest") != "nearest" or _interpolates(call) for call in calls):
        dtypes.add("float32")  # TensorFlow interpolates in single precision, whatever the dtype
    return gradients, dtypes or {"float64"}


def _pass(problem, isolate=None, around=contextlib.nullcontext):
    """The backward pass of a problem, a `Backward` and its `Objective`; `around` is a context for its forward pass."""

    def run(record):
        with around():
            return {None: Objective(None, problem.record(record))}

    return passes(run, lambda: problem.weights, problem.inputs, isolate=isolate)[None]


def _same_forward(problem, tolerance):
    """Whether the forward pass of the rules gives the error that stock Keras gives."""
    return _same(problem, _error_of_rules(problem), tolerance)


def _draws_anew(problem, tolerance):
    """Whether stock Keras itself gives another error when asked again, as with a `tf.random` in a layer."""
    with problem.scope():
        return not _same(problem, float(problem.error(problem.inputs)), tolerance)


def _same(problem, error, tolerance):
    if not (np.isfinite(error) and np.isfinite(problem.stock_error)):
        return np.isfinite(error) == np.isfinite(problem.stock_error)
    size = float(sum(tf.reduce_sum(tf.abs(term)) for term in problem.terms))
    return abs(error - problem.stock_error) <= tolerance * size


def _error_of_rules(problem):
    return float(sum(tf.reduce_sum(term) for term in problem.terms))


def _told(problem):
    """What is wrong with the forward pass of the rules, a sentence."""
    paths = ", ".join(map(repr, dict.fromkeys(problem.forward_rules)))
    return (
        f"The forward pass of the rules gives {_error_of_rules(problem):.8g}, that of the layers themselves "
        f"{problem.stock_error:.8g}: "
        + (f"one of the forward rules of {paths} is wrong." if paths else "what was recorded is not what they compute.")
    )


def _interpolates(call):
    return isinstance(call.op, Operation) and call.op.name.startswith(("ImageProjectiveTransform", "ResizeBi"))


def _holds_something_constant(call):
    """Whether the gradient is by intention not the derivative.

    Some of what depends on the inputs may count as a constant; and TensorFlow goes back through a projective transform of
    pictures by the inverse transform, which at their borders is not the adjoint.
    """
    if isinstance(call.op, Operation) and call.op.name.startswith("ImageProjectiveTransform"):
        return True
    masks = isinstance(call.op, keras.layers.Masking)
    return masks or call.rule.kind == "not differentiable" or getattr(call.op, "renorm", False)


def tape_gradients(problem):
    """The tape's gradients of the same, through stock Keras."""
    values = {id(v): tf.identity(problem.values[id(v)]) for v in problem.weights}
    inputs = [tf.identity(x) for x in problem.inputs]
    sources = [*values.values(), *inputs]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(sources)
        with problem.scope(values):
            error = problem.error(inputs)
    problem.stock_error = float(error)
    return [_dense(g) for g in tape.gradient(error, sources)]


def _culprits(problem, tolerance):
    """Feed every rule with the upstream gradient and compare it with the tape's derivative of that call alone."""
    values = {id(v): tf.identity(problem.values[id(v)]) for v in problem.weights}
    tape = tf.GradientTape(persistent=True, watch_accessed_variables=False)

    def isolate(x):
        with tape.stop_recording():  # a `stop_gradient` would end the chain for the record as well
            copy = tf.identity(x)
        tape.watch(copy)
        return copy

    @contextlib.contextmanager
    def taped():
        with tape:
            tape.watch(list(values.values()))
            yield

    with problem.scope(values):
        result, _ = _pass(problem, isolate, taped)
    needed = reachable(result.calls, set(values), {id(x) for x in problem.inputs})
    culprits: list = []
    for call, dys, dxs, parts in result.seen:
        if isinstance(call.op, (Copy, Operation)):
            continue
        pairs = [(y, dy) for y, dy in zip(call.outputs, dys, strict=True) if dy is not None]
        reach = [
            (f"the gradient of input {i}", x, dx)
            for i, (x, dx) in enumerate(zip(call.inputs, dxs, strict=True))
            if dx is not None or (id(x) in needed and x.dtype.is_floating)
        ]
        named = {id(weight_named(call, name)): part.total() for name, part in parts.items()}
        for variable in weights_of(call.op):
            if id(variable) in values:
                what = f"the gradient of '{variable.path}'"
                reach.append((what, values[id(variable)], named.get(id(variable))))
        ys, dys = zip(*pairs, strict=True)
        references = tape.gradient(list(ys), [x for _, x, _ in reach], output_gradients=list(dys))
        for (what, x, ours), theirs in zip(reach, references, strict=True):
            theirs = tf.zeros_like(x) if theirs is None else _dense(theirs)
            _, relative = _distance(_dense(ours), theirs, x, floor=1e-12)
            if relative > tolerance:
                culprits.append(Culprit(call.path, call.rule.name, what, relative, missing=ours is None))
    return sorted(culprits, key=lambda c: -c.relative)


def _dense(gradient):
    return None if gradient is None else tf.convert_to_tensor(gradient)


def _distance(ours, theirs, tensor, floor):
    """Largest absolute and relative difference. A missing gradient counts as zeros."""
    zeros = tf.zeros(tensor.shape, tf.float64)
    ours = zeros if ours is None else tf.cast(ours, tf.float64)
    theirs = zeros if theirs is None else tf.cast(theirs, tf.float64)
    if not tf.size(theirs):
        return 0.0, 0.0
    same = (ours == theirs) | (tf.math.is_nan(ours) & tf.math.is_nan(theirs))
    absolute = float(tf.reduce_max(tf.where(same, 0.0, tf.abs(ours - theirs))))
    if absolute != absolute:
        return float("inf"), float("inf")
    return absolute, absolute / max(_largest(theirs), floor)


def _largest(gradient):
    """The largest absolute value of those that are finite."""
    gradient = tf.cast(gradient, tf.float64)
    finite = tf.where(tf.math.is_finite(gradient), tf.abs(gradient), 0.0)
    return float(tf.reduce_max(finite)) if tf.size(gradient) else 0.0
