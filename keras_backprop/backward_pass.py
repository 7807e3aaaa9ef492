"""One backward pass, which everything that wants gradients goes through.

    result = backward(model, x, y)
    optimizer.apply(result.gradients, model.trainable_weights)

is what a `tf.GradientTape` is used for. It works eagerly and inside `tf.function`. Training makes the same pass, and so do
`explain` and the checks: nothing else opens a record.
"""

from collections.abc import Callable
from typing import Any, overload

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras, _tensorflow, replicas
from keras_backprop.backward_result import Backward
from keras_backprop.chain.examples import Contributions
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from keras_backprop.chain.weights import Reads, weights_as_they_are
from keras_backprop.example_scale import ExampleScale, weights_for
from keras_backprop.objective import Objective, given_upstream, mean_of, record_objective
from keras_backprop.observers import telling
from keras_backprop.required import require_compiled, require_model
from keras_backprop.scopes import entered_for


@overload
def backward(
    model: Any,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    training: bool = True,
    *,
    loss: dict[str, Any],
    upstream: Any = None,
    weights: Any = None,
) -> "dict[str, Backward]": ...


@overload
def backward(
    model: Any,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    training: bool = True,
    *,
    loss: Callable[..., Any] | str | None = None,
    upstream: Any = None,
    weights: Any = None,
) -> "Backward": ...


def backward(
    model: Any,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    training: bool = True,
    *,
    loss: Any = None,
    upstream: Any = None,
    weights: Any = None,
) -> Any:
    """The forward and the backward pass of a model on one batch. No weight is changed.

    The forward pass is a call of the model like any other: in training mode batch statistics and seeds advance. The rules hold
    that the model was compiled with.

    Args:
        model: a Keras model, stock or `BackpropModel`; compiled, if neither `loss` nor `upstream` is given.
        x, y, sample_weight: a batch as `fit` takes it: arrays or tensors, nested as the model wants them.
        training: bool, the training flag of the forward pass.
        loss: what is differentiated, in the place of the compiled loss and all penalties: a function of `(y, y_pred)`, or of
            `y_pred` alone where `y` is None; anything that Keras or TensorFlow computes, or the name of a loss of Keras. The
            mean is taken of what it returns. Or a dict, name -> function: several errors over one forward pass, and a dict of
            results.
        upstream: in the place of a loss, ∂E/∂(predictions), nested and shaped as these, None for those that E does not depend
            on: a vector–Jacobian product.
        weights: list of `keras.Variable`, the only ones whose gradients are wanted; by default the model's trainable weights.

    Returns:
        A `Backward`, or a dict of them.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: the model is not compiled, `loss` is no loss, it and `upstream` are both given, or data do not fit.
        MissingRuleError: something that the error depends on has no gradient, neither here nor in TensorFlow.
    """
    require_model(model, "backward")
    if loss is None and upstream is None:
        require_compiled(model, "backward", ", or give a `loss`")
    if sum(given is not None for given in (loss, upstream, sample_weight)) > 1:
        raise ValueError(
            "`loss` and `upstream` take the place of the compiled loss, and sample weights are the compiled loss's: give one of "
            "the three."
        )
    several = {n: keras.losses.get(f) for n, f in (loss if isinstance(loss, dict) else {None: loss}).items()}
    x, y, sample_weight, upstream = keras.tree.map_structure(
        lambda a: (
            a if a is None or (tf.is_tensor(a) and not isinstance(a, keras.Variable)) else tf.convert_to_tensor(a)
        ),
        (x, y, sample_weight, upstream),
    )

    def errors(record, y_pred):
        if upstream is not None:
            return {None: given_upstream(y_pred, upstream)}
        if loss is None:
            return {None: record_objective(model, record, x, y, y_pred, sample_weight, training)}
        targets = () if y is None else (y,)
        return {name: mean_of(function, record, y_pred, *targets) for name, function in several.items()}

    with entered_for(model):
        results = _passes_of(model, x, y, sample_weight, errors, training, weights=weights, of_inputs=True)
    return results if isinstance(loss, dict) else results[None]


def backward_pass(
    model: Any,
    x: Any,
    y: Any,
    sample_weight: Any,
    observers: Any = (),
    of_inputs: bool = False,
    weights_of_examples: bool = False,
    trains: bool = False,
) -> Backward:
    """The pass of a training step: with the compiled loss, and with the loss scale of the optimizer in all gradients.

    Args:
        model: a compiled Keras model.
        x, y, sample_weight: a batch of tensors, or of arrays.
        observers: list of `BackwardObserver`.
        of_inputs: bool, whether the gradients of the inputs are wanted too, and where the forward pass ended (for `explain`).
        weights_of_examples: bool, whether sample weights of shape `(n,)` are the examples', whatever shape their errors have.
        trains: bool, whether the step will update the weights: then the optimizer is built before its loss scale is asked for,
            which is a number before that and a variable from then on.

    Returns:
        A `Backward`.
    """

    forward_calls = None
    if getattr(model, "compiled_gradients", None) is not None:
        x, y, sample_weight = _of_tensors((x, y, sample_weight))

    def errors(record, y_pred):
        nonlocal forward_calls
        forward_calls = len(record.calls) if of_inputs else None
        weights = weights_for(y_pred, sample_weight) if weights_of_examples else sample_weight
        objective = record_objective(model, record, x, y, y_pred, weights)
        if trains:  # now that all weights are made: `compute_loss` may call layers that `call` does not
            _build_optimizer(model)
        return {None: objective}

    options = {"of_inputs": of_inputs, "observers": observers, "optimizer": model.optimizer}
    result = _passes_of(model, x, y, sample_weight, errors, **options)[None]
    result.forward_calls = forward_calls
    return result


def _build_optimizer(model):
    optimizer = model.optimizer
    if optimizer is not None and not optimizer.built and not replicas.on_several(model):
        with _tensorflow.only_variables():
            _keras.build_optimizer(optimizer, model.trainable_variables)


def _passes_of(
    model,
    x,
    y,
    sample_weight,
    errors,
    training=True,
    *,
    weights=None,
    of_inputs=False,
    observers=(),
    optimizer=None,
):
    """The passes of a model on a batch, from errors `(record, y_pred) -> dict`, name -> `Objective`. Returns a dict too."""
    x, sample_weight = _of_tensors((x, sample_weight))
    batch = [tensor for tensor in keras.tree.flatten((x, y, sample_weight)) if tf.is_tensor(tensor)]
    y_pred: Any = None
    added_losses: Any = ()

    def run(record):
        nonlocal y_pred, added_losses
        y_pred = record.run(model, x, **_keras.training_argument(model, training))
        of_pass, added_losses = errors(record, y_pred), _keras.added_losses(model)
        return of_pass

    results = passes(
        run,
        lambda: model.trainable_weights if weights is None else weights,
        [tensor for tensor in keras.tree.flatten(x) if tensor is not None] if of_inputs else [],
        observers=observers,
        optimizer=optimizer,
        batch=batch,
        asked_later=of_inputs,
    )
    for result, objective in results.values():
        result.y_pred, result.losses_ran = y_pred, objective.losses_ran
        # Of a loss that returns one number, or a `compute_loss` without losses, the links alone can tell.
        read = result.reduction if objective.whole or objective.losses_ran == 0 else None
        result.example_scale = ExampleScale(objective, batch[0], sample_weight, read)
        result.added_losses = added_losses
    return {name: result for name, (result, _) in results.items()}


def _of_tensors(arrays):
    """Tensors of the arrays that Keras gives in an eager step: a layer would make tensors of them that nobody here knows.

    A `compute_loss` gets the arrays themselves, as in stock Keras, unless the optimizer is given gradients that are made.
    """
    return keras.tree.map_structure(lambda a: tf.convert_to_tensor(a) if isinstance(a, np.ndarray) else a, arrays)


def passes(
    run: Callable, weights: Callable, inputs: list, *, isolate: Any = None, observers: Any = (), optimizer: Any = None,
    batch: Any = (), asked_later: bool = False,
) -> dict[Any, tuple[Backward, Objective]]:  # fmt: skip
    """Record, scale, sweep: the pass itself, from several errors back through one forward pass.

    Args:
        run: function `record -> dict`, name -> `Objective`: it runs what is to be differentiated through the record.
        weights: function without arguments, the list of `keras.Variable` whose gradients are wanted. It is asked before `run` and
            after, which may have built some.
        inputs: list of tensors. Of those that are floating-point the gradients are wanted as well.
        isolate: as for `Record`.
        observers: list of `BackwardObserver`.
        optimizer: whose loss scale (mixed precision) all gradients are to carry; None for none.
        batch: list of the tensors whose rows are the examples.
        asked_later: bool, whether the results may be asked for more after the weights have changed, in an eager program.

    Returns:
        A dict, name -> `Backward` and the `Objective` that it started from.
    """
    floats = [tensor for tensor in inputs if tensor.dtype.is_floating]
    with Record(weights(), floats, isolate) as record:
        objectives = run(record)
        record.weights = list(weights())
    wanted, calls, scale = record.weights, record.calls, loss_scale(optimizer)
    snapshot = weights_as_they_are(wanted) if asked_later and record.timeline.eager else None
    results = {}
    for name, objective in objectives.items():
        upstream, same_values = Reads(record.timeline).before(times(scale, objective.upstream), wanted)
        links: list = []
        tell = [telling(observers, calls, scale)] if observers else []
        with same_values:
            swept = sweep(calls, upstream, wanted, floats, [lambda *link, links=links: links.append(link), *tell])
        examples = Contributions(calls, links, upstream, record, batch, snapshot or same_values)
        dxs = [swept.input_gradient(tensor) for tensor in inputs]
        results[name] = Backward(objective.loss, wanted, dxs, swept, examples, scale), objective
    return results


def times(scale: Any, upstream: Any) -> Any:
    """The upstream gradients times a loss scale; as they are where there is none."""
    return upstream if scale is None else [(y, dy * tf.cast(scale, dy.dtype)) for y, dy in upstream]


def loss_scale(optimizer: Any) -> Any:
    """The optimizer's loss scale (mixed precision), a scalar tensor; None where there is none."""
    if optimizer is None:
        return None
    one = tf.ones(())
    scale = optimizer.scale_loss(one)
    return None if scale is one else scale
