"""The error that `fit` minimises, recorded: the compiled losses and the penalties, as links of the chain.

Keras computes the error, and what it or the user's own `compute_loss` does on the way is followed as everything else is: weights,
masks, averages over the batch. Losses and regularisers that have rules are links with these.
"""

import contextlib
import functools
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_backprop import _keras, replicas
from keras_backprop.chain.arguments import name_of
from keras_backprop.targets import misfit, wrong_targets


class Objective(NamedTuple):
    """The error of a batch.

    Attributes:
        loss: the total loss, as `compute_loss` returned it.
        upstream: list of (tensor, ∂loss/∂tensor): where the backward pass starts.
        reductions: set, by what E is made of the examples' errors, as Keras's losses name it; several of losses that differ.
        losses_ran: int, how often a compiled loss was called for it; None of an error that is not compiled.
        counted: list, one entry for each loss: a bool tensor, which positions count in its mean, or None where all do.
        whole: bool, whether a loss returned something else than a value for each example.
        shared: bool, whether it is of losses of Keras, whose means are over the batch of all replicas.
    """

    loss: Any
    upstream: list
    reductions: Any = frozenset()
    losses_ran: Any = None
    counted: Any = ()
    whole: bool = False
    shared: bool = True


def record_objective(model, record, x, y, y_pred, sample_weight=None, training=True):
    """Compute the model's total loss, and record its links.

    Args:
        model: a compiled Keras model.
        record: the open `Record` of the forward pass that gave `y_pred`.
        x, y, y_pred, sample_weight, training: as `keras.Model.compute_loss` takes them.

    Returns:
        An `Objective`.

    Raises:
        ValueError: the targets do not fit the predictions.
    """
    returned: list = []
    scaled: list = []
    with contextlib.ExitStack() as stack:
        if replicas.several():
            stack.enter_context(_keras.scaled_losses_noted(scaled))
        _record_penalties(model, record, stack)
        compiled = _keras.compiled_loss(model)
        if compiled is not None:

            def record_losses():
                for loss in {id(loss): loss for loss in _keras.losses_of(compiled)}.values():
                    stack.enter_context(_recorded(loss, record, returned))

            if compiled.built or replicas.several():
                _build(compiled, y, y_pred, sample_weight)
                record_losses()
            else:
                stack.enter_context(_building(compiled, record_losses))
            if replicas.several() and compiled.built:
                evened = _keras.with_losses(compiled, lambda loss: _Evened(loss, record))
                stack.enter_context(_keras.replaced(model, _compile_loss=evened))
        try:
            loss = _keras.compute_loss(model, x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            if not misfit(model, y, y_pred):
                raise
            raise ValueError(wrong_targets(model, y, y_pred, error)) from error
    counted = both(_masks_of_predictions(compiled, y_pred), _masks_of(returned))
    return Objective(
        loss,
        [(loss, tf.ones_like(loss))],
        _reductions(_keras.losses_of(_keras.compiled_loss(model))),
        losses_ran=len(returned),
        counted=counted,
        whole=_is_whole(returned),
        shared=bool(scaled or not replicas.several()),
    )


def _record_penalties(model, record, stack):
    """Penalties on weights are links where Keras adds them up. Whoever else asks for a regulariser gets that itself."""
    runs = []
    for variable in model.trainable_weights:
        regularizer = _keras.current(variable, "_regularizer")
        if regularizer is not None:
            runs.append((variable, functools.partial(record.run_function, regularizer, name_of(regularizer))))
    for layer in _keras.layers_in(model) if runs else ():
        add_up = functools.partial(_recorded_penalties, _keras.current(layer, "_get_regularization_losses"), runs)
        stack.enter_context(_keras.replaced(layer, _get_regularization_losses=add_up))


def _recorded_penalties(add_up, runs):
    with contextlib.ExitStack() as stack:
        for variable, run in runs:
            stack.enter_context(_keras.replaced(variable, _regularizer=run))
        return add_up()


def _reductions(losses):
    """How these are made of the errors of examples. Keras adds up what a loss has not reduced."""
    reductions = (getattr(loss, "reduction", None) for loss in losses)
    return {"sum" if reduction in (None, "none") else reduction for reduction in reductions}


def mean_of(loss, record, y_pred, *y):
    """The mean of what a loss or a function of `(y, y_pred)`, or of `y_pred` alone, returns, as an `Objective`."""
    if not isinstance(loss, keras.losses.Loss):  # it heeds no masks
        values = tf.convert_to_tensor(loss(*y, y_pred))
        return _mean(values, "sum_over_batch_size", not is_of_each_example(values, y_pred), shared=False)
    returned: list = []
    with _recorded(loss, record, returned):
        values = loss(*y, y_pred)
    whole = _is_whole(returned or [(y_pred, values)])
    if loss.reduction in (None, "none"):
        return _mean(values, "sum_over_batch_size", whole)  # also over what a mask leaves out
    counted = both([_keras.get_keras_mask(y_pred)], _masks_of(returned))
    return _mean(values, loss.reduction, whole, counted)


def _mean(values, reduction, whole, counted=(), shared=True):
    loss = tf.reduce_mean(values)
    return Objective(loss, [(loss, tf.ones_like(loss))], {reduction}, counted=counted, whole=whole, shared=shared)


def given_upstream(y_pred, upstream):
    """The upstream gradients of predictions, as they were given, as an `Objective` without a loss.

    Raises:
        ValueError: one has not the shape of its prediction.
    """
    keras.tree.assert_same_structure(y_pred, upstream)
    pairs = [
        (y, tf.cast(dy, y.dtype))
        for y, dy in zip(keras.tree.flatten(y_pred), keras.tree.flatten(upstream), strict=True)
        if dy is not None
    ]
    for y, dy in pairs:
        if not y.shape.is_compatible_with(dy.shape):
            raise ValueError(f"`upstream` must have the shape of the predictions, {y.shape}. Received: {dy.shape}")
    return Objective(None, pairs, {"sum"})


def both(of_predictions, of_values):
    """The positions that count, of each loss: those that neither its predictions' mask nor that of its values leaves out.

    Returns:
        list of bool tensors, and of None where all count.
    """
    if len(of_predictions) != len(of_values):  # of an error that is computed in another way nobody knows which is whose
        pairs = [(mask, None) for mask in (*of_predictions, *(mask for mask in of_values if mask is not None))]
    else:
        pairs = list(zip(of_predictions, of_values, strict=True))
    masks = [[tf.cast(mask, tf.bool) for mask in pair if mask is not None] for pair in pairs]
    return [functools.reduce(tf.logical_and, pair) if pair else None for pair in masks]


def is_of_each_example(values, y_pred):
    """Whether what a loss returns for predictions, or a structure of them, has a row for each example, if that is known."""
    pair = values, keras.tree.flatten(y_pred)[0]
    values, prediction = (x if isinstance(x, tf.RaggedTensor) else tf.convert_to_tensor(x) for x in pair)
    if None in (values.shape.rank, prediction.shape.rank):
        return True
    return values.shape.rank > 0 and values.shape[0] in (None, prediction.shape[0])


def _is_whole(returned):
    """Whether a loss has returned something else than a value for each example, from pairs (predictions, what it returned)."""
    return not all(is_of_each_example(values, y_pred) for y_pred, values in returned)


def _masks_of(returned):
    """The masks of what losses have returned: `ignore_class` makes one."""
    return [_keras.get_keras_mask(values) for _, values in returned]


def _masks_of_predictions(compiled, y_pred):
    try:
        predictions = _keras.predictions_of_losses(compiled, y_pred)
    except (IndexError, KeyError, TypeError):  # a `compute_loss` gave other predictions to the losses
        predictions = None
    return [_keras.get_keras_mask(prediction) for prediction in predictions or keras.tree.flatten(y_pred)]


def _build(compiled, y, y_pred, sample_weight):
    if not compiled.built and y is not None:  # to call it would update the metrics that it holds
        with contextlib.suppress(Exception):  # whatever is wrong, the real call says so
            _keras.compute_output_spec(compiled, *keras.tree.map_structure(_symbolic, (y, y_pred, sample_weight)))


def _symbolic(x):
    """A symbolic tensor like `x`, of any number of examples; what is no tensor stays."""
    if not hasattr(x, "shape"):
        return x
    return keras.KerasTensor((None, *x.shape[1:]), keras.backend.standardize_dtype(x.dtype))


@contextlib.contextmanager
def _building(compiled, built):
    """For the duration of the block, a `CompileLoss` is built of what a `compute_loss` gives it; then `built()`."""
    build = compiled.build

    def build_and_tell(*given):
        build(*given)
        built()

    with _keras.replaced(compiled, build=build_and_tell):
        yield


class _Evened:
    """A loss whose gradient is that of its mean over all replicas: this replica's part counts by its share of the examples."""

    def __init__(self, loss, record):
        self.loss, self.record = loss, record

    def __getattr__(self, name):
        return getattr(vars(self)["loss"], name)

    def __call__(self, y_true, y_pred, sample_weight=None):
        loss, seen = self.loss, []
        call: Any = _keras.standing(loss, "call")
        with _keras.replaced(loss, call=_noting(call, seen)) if call is not None else contextlib.nullcontext():
            value = loss(y_true, y_pred, sample_weight)
        reduction = getattr(loss, "reduction", None)
        if not seen or reduction in (None, "none", "sum") or not len(seen[-1][1].shape):
            return value
        divisor = self._divisor(seen[-1][1], y_pred, sample_weight, reduction)
        return self.record.run_function(replicas.evened, loss.name, value, *divisor)

    def _divisor(self, values, y_pred, sample_weight, reduction):
        (mask,) = both([_keras.get_keras_mask(y_pred)], [_keras.get_keras_mask(values)])
        divisor = tf.size(values)
        if reduction == "mean_with_sample_weight" and (sample_weight is not None or mask is not None):
            dtype = values.dtype
            if sample_weight is not None:
                sample_weight = keras.ops.convert_to_tensor(sample_weight, dtype=self.loss.dtype)
            weights = None if mask is None else keras.ops.convert_to_tensor(mask, dtype=self.loss.dtype)
            sample_weight = _keras.apply_mask(sample_weight, weights, dtype=dtype.name, reduction=reduction)
            return tf.reduce_sum(sample_weight), None
        return divisor, mask


def _recorded(loss, record, returned):
    """For the duration of the block, what a loss computes for each example is a link, and noted."""
    run = _noting(record.run_as, returned)
    if isinstance(loss, _keras.LossFunctionWrapper) and type(loss).call is _keras.LossFunctionWrapper.call:
        function = _keras.current(loss, "fn")
        return _keras.replaced(loss, fn=functools.partial(run, loss, function, function, loss.name))
    call = _keras.current(loss, "call")
    if call is None:
        return contextlib.nullcontext()
    return _keras.replaced(loss, call=functools.partial(run, loss, call, loss, loss.name))


def _noting(call, returned):
    """A function of `(…, y_true, y_pred)` that notes its predictions and what it returns."""

    def noted(*args, **kwargs):
        returned.append((kwargs["y_pred"] if "y_pred" in kwargs else args[-1], call(*args, **kwargs)))
        return returned[-1][1]

    return noted
