"""One backward pass, which everything that wants gradients goes through, and its result as a value.

    result = backward(model, x, y)
    optimizer.apply(result.gradients, model.trainable_weights)

is what a `tf.GradientTape` is used for. It works eagerly and inside `tf.function`. Training makes the same pass.
"""

import functools
import html
from collections.abc import Callable
from typing import Any, overload

import keras
import tensorflow as tf

from keras_backprop import _keras, replicas
from keras_backprop._tensorflow import EagerTensor
from keras_backprop.chain.examples import Contributions
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from keras_backprop.chain.weights import Reads, weights_as_they_are
from keras_backprop.objective import Objective, record_objective
from keras_backprop.observers import ObservedLink, telling
from keras_backprop.weight_gradients import add, cast


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

    The forward pass is a call of the model like any other: in training mode batch statistics and seeds advance.

    Args:
        model: a Keras model, stock or `BackpropModel`; compiled, if neither `loss` nor `upstream` is given.
        x, y, sample_weight: a batch as `fit` takes it: arrays or tensors, nested as the model wants them.
        training: bool, the training flag of the forward pass.
        loss: what is differentiated, in the place of the compiled loss and all penalties: a function of `(y, y_pred)`, or of
            `y_pred` alone where `y` is None; anything that Keras or TensorFlow computes, or the name of a loss of Keras. The
            mean is taken of what it returns. Or a dict, name -> function: several errors over one forward pass, and a dict of
            results.
        upstream: in the place of a loss, ∂E/∂(predictions), nested and shaped as these: a vector–Jacobian product.
        weights: list of `keras.Variable`, the only ones whose gradients are wanted; by default the model's trainable weights.

    Returns:
        A `Backward`, or a dict of them.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: the model is not compiled, `loss` is no loss, it and `upstream` are both given, or data do not fit.
        MissingRuleError: something that the error depends on has no gradient, neither here nor in TensorFlow.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`backward` takes a `keras.Model`. Received: {model!r} (of type {type(model).__name__})")
    if loss is None and upstream is None and not model.compiled:
        raise ValueError(
            f"The model '{model.name}' is not compiled: it has no loss. Call `model.compile(loss=…)` first, or give a `loss`."
        )
    if loss is not None and (upstream is not None or sample_weight is not None):
        raise ValueError(
            "`loss` takes the place of the compiled loss: give neither `upstream` nor `sample_weight` beside it."
        )
    several = {n: keras.losses.get(f) for n, f in (loss if isinstance(loss, dict) else {None: loss}).items()}
    x, y, sample_weight, upstream = keras.tree.map_structure(
        lambda a: a if a is None or tf.is_tensor(a) else tf.convert_to_tensor(a), (x, y, sample_weight, upstream)
    )

    def errors(record, y_pred):
        if upstream is not None:
            return {None: _given(y_pred, upstream)}
        if loss is None:
            return {None: record_objective(model, record, x, y, y_pred, sample_weight, training)}
        arguments = (y_pred,) if y is None else (y, y_pred)
        values = {name: tf.reduce_mean(function(*arguments)) for name, function in several.items()}
        return {
            name: Objective(value, [(value, tf.ones_like(value))], reduction=getattr(several[name], "reduction", None))
            for name, value in values.items()
        }

    results = _passes(model, x, y, sample_weight, errors, training, of_inputs=True, weights=weights)
    return results if isinstance(loss, dict) else results[None]


def backward_pass(model: Any, x: Any, y: Any, sample_weight: Any, observers: Any = ()) -> "Backward":
    """The pass of a training step: with the compiled loss, and with the loss scale of the optimizer in all gradients.

    Args:
        model: a compiled Keras model.
        x, y, sample_weight: a batch of tensors.
        observers: list of `BackwardObserver`.

    Returns:
        A `Backward`.
    """

    def errors(record, y_pred):
        return {None: record_objective(model, record, x, y, y_pred, sample_weight)}

    return _passes(model, x, y, sample_weight, errors, scaled=True, observers=observers)[None]


def _given(y_pred, upstream):
    """The upstream gradients of predictions, as they were given."""
    keras.tree.assert_same_structure(y_pred, upstream)
    pairs = [
        (y, tf.cast(dy, y.dtype))
        for y, dy in zip(keras.tree.flatten(y_pred), keras.tree.flatten(upstream), strict=True)
    ]
    for y, dy in pairs:
        if not y.shape.is_compatible_with(dy.shape):
            raise ValueError(f"`upstream` must have the shape of the predictions, {y.shape}. Received: {dy.shape}")
    return Objective(None, pairs)


def _passes(
    model, x, y, sample_weight, errors, training=True, of_inputs=False, scaled=False, observers=(), weights=None
):
    """Record the forward pass and errors, scale, sweep.

    Args:
        errors: function (record, y_pred) -> dict, name -> `Objective`.
        of_inputs: bool, whether the gradients of the inputs are wanted as well.
        scaled: bool, whether the gradients carry the loss scale of the model's optimizer, as what it is to be given must.
        weights: list of `keras.Variable`, or None for the model's trainable weights.

    Returns:
        A dict, name -> `Backward`.
    """
    inputs = [tensor for tensor in keras.tree.flatten(x) if tensor is not None]
    floats = [tensor for tensor in inputs if tensor.dtype.is_floating] if of_inputs else []
    with Record(model.trainable_weights if weights is None else weights, floats) as record:
        y_pred = record.run(model, x, **({"training": training} if model._call_has_training_arg else {}))
        objectives = errors(record, y_pred)
        # Those too that the call has built.
        record.weights = list(model.trainable_weights if weights is None else weights)
    weights, calls = record.weights, record.calls
    batch = [tensor for tensor in keras.tree.flatten((x, y, sample_weight)) if tensor is not None]
    scale = loss_scale(model.optimizer) if scaled else None
    # Whoever asks a result for more, after an eager step, may have updated the weights.
    snapshot = weights_as_they_are(weights) if of_inputs and record.timeline.eager else None
    results = {}
    for name, objective in objectives.items():
        upstream, same_values = Reads(record.timeline).before(times(scale, objective.upstream), weights)
        links: list = []
        tell = [telling(observers, calls, scale)] if observers else []
        with same_values:
            swept = sweep(calls, upstream, weights, floats, [lambda *link, links=links: links.append(link), *tell])
        examples = Contributions(calls, links, upstream, record, batch, snapshot or same_values)
        dxs = [swept.input_gradient(tensor) for tensor in inputs]
        own = _own_factor(_reductions(model, objective), batch[0], y_pred, sample_weight)
        results[name] = Backward(objective.loss, y_pred, weights, dxs, swept, examples, own, scale)
    return results


class Backward:
    """What `backward` returns. E is the error of the batch, penalties included. What nobody asks for is not computed.

    Attributes:
        loss: scalar tensor, E; None where `upstream` was given.
        y_pred: the predictions.
        weights: list of the weights whose gradients were wanted.
        inputs: list of ∂E/∂x for each tensor in `x`; None for integers.
        scale: None, or a scalar tensor, the loss scale (mixed precision) that is in all gradients during training.
    """

    def __init__(
        self, loss: Any, y_pred: Any, weights: Any, inputs: Any, swept: Any, examples: Any, own: Any, scale: Any
    ) -> None:
        self.loss, self.y_pred, self.weights, self.inputs, self.scale = loss, y_pred, weights, inputs, scale
        self._swept, self._examples, self._own = swept, examples, own
        self._contributions: dict = {}

    @functools.cached_property
    def gradients(self) -> list[Any]:
        """∂E/∂W for each of `weights`, None where E does not depend on it: what `optimizer.apply` takes. A list."""
        return [self._swept.gradient(v) for v in self.weights]

    @functools.cached_property
    def deltas(self) -> dict[str, list[Any]]:
        """A dict, path of a layer -> list of ∂E/∂(the layer's output), one for each use of the layer, in forward order.

        Of a layer that ends in an activation it is δ = ∂E/∂z, z being what the activation is applied to.
        """
        deltas: dict = {}
        for call, dys, _, _ in self._examples.seen:
            if isinstance(call.op, keras.layers.Layer):
                deltas.setdefault(call.path, []).insert(0, dys[0] if len(dys) == 1 else tuple(dys))
        return deltas

    @functools.cached_property
    def links(self) -> list[ObservedLink]:
        """Every link that E went back through, a list of `ObservedLink` in forward order.

        Its `call.inputs` and `call.outputs` are what ran forward (of `hidden/tanh` z and a), `upstream` and `downstream` the
        gradients of these; the factors of a product are in `weight_gradients`.
        """
        seen: list = []
        tell = telling([_Collector(seen)], self._examples.calls, self.scale)
        for link in self._examples.seen:
            tell(*link)
        return seen[::-1]

    def _repr_html_(self) -> str:
        """For notebooks: E, and the norms of the gradients; without numbers while a function is traced."""
        rows = []
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            norm = "–" if gradient is None else _said(tf.norm(tf.convert_to_tensor(gradient)))
            cells = (weight.path, str(tuple(weight.shape)), norm)
            rows.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
        error = "" if self.loss is None else f"<p>$E = {_said(self.loss)}$</p>"
        head = "<tr><th>weight</th><th>shape</th><th>‖∂E/∂w‖</th></tr>"
        return f"{error}<table>{head}{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"

    def gradient(self, weight: Any) -> Any:
        """∂E/∂W of one weight, given as a variable or by its path.

        Raises:
            KeyError: no such weight.
        """
        return self.gradients[self._index(weight)]

    def per_example(self, weight: Any) -> Any:
        """What each example contributes to ∂E/∂W, shape `(n, *shape)`: they add up to it, but for penalties.

        The mean over n examples is in E, and so a factor 1/n is in each.

        Args:
            weight: a variable or its path.

        Returns:
            A tensor; None where E does not depend on the weight.

        Raises:
            KeyError: no such weight.
            ValueError: the gradient exists as a sum over the batch only, and why.
        """
        index = self._index(weight)
        return self._added(index, [part.per_example() for part in self._of_examples(index)])

    def squared_norms(self, weight: Any = None) -> Any:
        """The squared norm of what each example contributes, shape `(n,)`: of one weight, or of all together.

        Returns:
            A tensor; None where E does not depend on the weight, or on none of all.

        Raises:
            KeyError: no such weight.
            ValueError: a gradient exists as a sum over the batch only, and why.
        """
        indices = range(len(self.weights)) if weight is None else [self._index(weight)]
        norms = []
        for index in indices:
            parts = self._of_examples(index)
            if len(parts) == 1 and parts[0].dtype.size > 2:
                norms.append(parts[0].squared_norms())
            elif parts:  # the norm of a sum where a weight is used several times; squares overflow in half precision
                gradient = self._added(index, [part.per_example() for part in parts])
                norms.append(tf.reduce_sum(tf.square(gradient), axis=list(range(1, len(gradient.shape)))))
        widest = max((norm.dtype for norm in norms), key=lambda dtype: dtype.size, default=None)
        return tf.add_n([tf.cast(norm, widest) for norm in norms]) if norms else None

    def example_norms(self) -> Any:
        """The norm of the gradient of each example's own error, over all weights together, shape `(n,)`.

        The mean over the batch, sample weights, and a loss scale are taken out of what it contributes to E; an example of weight
        0 has the norm 0. None where E depends on no weight.

        Raises:
            ValueError: a gradient exists as a sum over the batch only, and why.
        """
        squares = self.squared_norms()
        if squares is None:
            return None
        norms = tf.sqrt(squares)
        norms *= tf.cast(self._own(), norms.dtype)
        return norms if self.scale is None else norms / tf.cast(self.scale, norms.dtype)

    def weighted(self, c: Any) -> list[Any]:
        """The gradients with the contribution of example n times cₙ, for `c` of shape `(n,)`; penalties as they are."""
        weighted = []
        for index in range(len(self.weights)):
            parts, penalties = self._parts(index)
            gradients = [*(part.weighted_total(c) for part in parts), *(part.total() for part in penalties)]
            weighted.append(self._added(index, gradients))
        return weighted

    def _added(self, index, gradients):
        """Gradients of one weight, added up in its dtype; None for none."""
        dtype = tf.as_dtype(self.weights[index].dtype)
        return add([cast(gradient, dtype) for gradient in gradients]) if gradients else None

    def _of_examples(self, index):
        return self._parts(index)[0]

    def _parts(self, index):
        """The gradient of a weight by examples, and its penalties: two lists of `WeightGradient`."""
        if index not in self._contributions:
            variable = self.weights[index]
            self._contributions[index] = self._examples.of(variable, self._swept.parts.get(id(variable), []))
        return self._contributions[index]

    def _index(self, weight):
        for index, variable in enumerate(self.weights):
            if variable is weight or (isinstance(weight, str) and variable.path == weight):
                return index
        paths = ", ".join(repr(v.path) for v in self.weights)
        raise KeyError(f"There is no weight {getattr(weight, 'path', weight)!r}. Available: {paths}")


def _reductions(model, objective):
    """The reductions of the losses in an error."""
    if not objective.compiled:
        return {objective.reduction}
    return {
        getattr(entry.loss, "reduction", None) for entry in getattr(model._compile_loss, "_flat_losses", None) or ()
    }


def _said(number):
    return f"{float(number):.4g}" if isinstance(number, EagerTensor) else "a tensor of the graph"


class _Collector:
    def __init__(self, links):
        self.observe = links.append


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


def _own_factor(reductions, x, y_pred, sample_weight):
    """A function without arguments: what turns a contribution to E into the gradient of the example's own error.

    Args:
        reductions: set, those of the losses.
        x: a tensor of the batch.
        y_pred: the predictions, which a mask may be on.
        sample_weight: as it was given.
    """

    def factor():
        if "sum" in reductions and len(reductions) > 1:
            raise ValueError(
                "The norm of each example's own gradient is not known where one loss is a sum over the examples and another a "
                f"mean. Received losses of the reductions {sorted(map(str, reductions))}"
            )
        n = tf.shape(x)[0]
        weights = _weights_of_examples(n, y_pred, sample_weight)
        if reductions == {"sum"}:
            return tf.math.divide_no_nan(tf.ones(()), weights)
        masked = sample_weight is None and _masks(y_pred)
        total = (
            tf.reduce_sum(weights) if masked or reductions == {"mean_with_sample_weight"} else tf.cast(n, tf.float32)
        )
        return tf.math.divide_no_nan(replicas.divisor_over_replicas(total), weights)

    return factor


def _weights_of_examples(n, y_pred, sample_weight):
    """What each example counts in the error, a tensor of shape `(n,)`: its sample weight, or the share of a mask."""
    masks = _masks(y_pred)
    given = [] if sample_weight is None else keras.tree.flatten(sample_weight)
    if len(given) > 1 or len(masks) > 1 or (given and masks):
        raise ValueError(
            "The norm of each example's own gradient is not known with sample weights or masks of several outputs, or with "
            "both."
        )
    if masks:
        return tf.reduce_sum(tf.reshape(tf.cast(masks[0], tf.float32), [n, -1]), 1)
    if not given:
        return tf.ones([n])
    (weights,) = given
    if weights.shape.rank not in (1, 2) or (weights.shape.rank == 2 and weights.shape[1] != 1):
        raise ValueError(
            "The norm of each example's own gradient is not known with several sample weights for each example. "
            f"Received: sample weights of shape {tuple(weights.shape)}"
        )
    return tf.abs(tf.cast(tf.reshape(weights, [-1]), tf.float32))


def _masks(y_pred):
    return [m for m in map(_keras.get_keras_mask, keras.tree.flatten(y_pred)) if m is not None]
