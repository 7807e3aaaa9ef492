"""One backward pass, which everything that wants gradients goes through, and its result as a value.

    result = backward(model, x, y)
    optimizer.apply(result.gradients, model.trainable_weights)

is what a `tf.GradientTape` is used for. It works eagerly and inside `tf.function`. Training makes the same pass.
"""

import functools
from collections.abc import Callable
from typing import Any, overload

import keras
import tensorflow as tf

from keras_backprop import example_statistics
from keras_backprop.chain.examples import Contributions
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from keras_backprop.chain.weights import Reads, weights_as_they_are
from keras_backprop.example_scale import ExampleScale, weights_for
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


def backward_pass(
    model: Any, x: Any, y: Any, sample_weight: Any, observers: Any = (), weights_of_examples: bool = False
) -> "Backward":
    """The pass of a training step: with the compiled loss, and with the loss scale of the optimizer in all gradients.

    Args:
        model: a compiled Keras model.
        x, y, sample_weight: a batch of tensors.
        observers: list of `BackwardObserver`.
        weights_of_examples: bool, whether sample weights of shape `(n,)` are the examples', whatever shape their errors have.

    Returns:
        A `Backward`.
    """

    def errors(record, y_pred):
        weights = weights_for(y_pred, sample_weight) if weights_of_examples else sample_weight
        return {None: record_objective(model, record, x, y, y_pred, weights)}

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
    added = [(layer.path, loss) for layer in model._flatten_layers() for loss in getattr(layer, "_losses", ())]
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
        own = ExampleScale(_reductions(model, objective), batch[0], y_pred, sample_weight)
        results[name] = Backward(objective.loss, y_pred, weights, dxs, swept, examples, own, scale, added)
    return results


class Backward:
    """What `backward` returns. E is the error of the batch, penalties included. What nobody asks for is not computed.

    Attributes:
        loss: scalar tensor, E; None where `upstream` was given.
        y_pred: the predictions.
        weights: list of the weights whose gradients were wanted.
        inputs: list of ∂E/∂x for each tensor in `x`; None for integers.
        scale: None, or a scalar tensor, the loss scale (mixed precision) that is in all gradients during training.
        example_scale: `ExampleScale`, what turns contributions to E into gradients of the examples' own errors.
    """

    def __init__(
        self, loss: Any, y_pred: Any, weights: Any, inputs: Any, swept: Any, examples: Any, example_scale: Any, scale: Any,
        added: Any = (),
    ) -> None:  # fmt: skip
        self.loss, self.y_pred, self.weights, self.inputs, self.scale = loss, y_pred, weights, inputs, scale
        self.example_scale = example_scale
        self._swept, self._examples, self._added_losses = swept, examples, added
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

    def gradient(self, weight: Any) -> Any:
        """∂E/∂W of one weight, given as a variable or by its path.

        Raises:
            KeyError: no such weight.
        """
        return self.gradients[self.index(weight)]

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
        index = self.index(weight)
        return self._added(index, [part.per_example() for part in self._of_examples(index)])

    def squared_norms(self, weight: Any = None) -> Any:
        """The squared norm of what each example contributes, shape `(n,)`: of one weight, of several, or of all together.

        Args:
            weight: a variable or its path, or a list of them; None for all.

        Returns:
            A tensor; None where E does not depend on the weight, or on none of all.

        Raises:
            KeyError: no such weight.
            ValueError: a gradient exists as a sum over the batch only, and why.
        """
        several = self.weights if weight is None else weight if isinstance(weight, (list, tuple)) else [weight]
        indices = [self.index(one) for one in several]
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
        norms *= tf.cast(self.example_scale.own(), norms.dtype)
        return norms if self.scale is None else norms / tf.cast(self.scale, norms.dtype)

    def weighted(self, c: Any, penalties: bool = True, left_out: Any = None) -> list[Any]:
        """The gradients with the contribution of example n times cₙ.

        Args:
            c: float tensor of shape `(n,)`; or a list of such tensors, one for each weight, None for one that is not wanted.
            penalties: bool, whether those of weights are in it, which are no example's.
            left_out: None, or a tensor of shape `(n,)`, 0 for examples whose numbers are not to be looked at, be they
                infinite or NaN, and 1 for the others.

        Returns:
            list of tensors, `tf.IndexedSlices` and None.
        """
        cs = list(c) if isinstance(c, (list, tuple)) else [c] * len(self.weights)
        weighted: list = []
        for index, of_weight in enumerate(cs):
            parts, numbers = self._parts(index)
            if of_weight is None:
                weighted.append(None)
                continue
            if left_out is not None:
                parts = [part.only(left_out) for part in parts]
            gradients = [part.weighted_total(of_weight) for part in parts]
            gradients += [part.total() for part in numbers] if penalties else []
            weighted.append(self._added(index, gradients))
        return weighted

    def penalties(self) -> list[Any]:
        """What of the gradients is no example's: those of penalties on weights. A list, None where there is none."""
        return [
            self._added(index, [part.total() for part in self._parts(index)[1]]) for index in range(len(self.weights))
        ]

    def squared_total(self, weight: Any, c: Any) -> Any:
        """Σₙ (cₙ·dWₙ)², entry by entry, of what the examples contribute to one weight; None where E does not depend on it."""
        index = self.index(weight)
        parts = self._of_examples(index)
        if len(parts) == 1:
            return parts[0].squared_total(c)
        single = self.per_example(weight)
        return None if single is None else tf.tensordot(tf.square(tf.cast(c, single.dtype)), tf.square(single), axes=1)

    def inner_products(self, weight: Any, V: Any) -> Any:
        """⟨dWₙ, V⟩ of what each example contributes to one weight, shape `(n,)`; None where E does not depend on it."""
        parts = self._of_examples(self.index(weight))
        return tf.add_n([part.inner_products(V) for part in parts]) if parts else None

    def gradient_variance(self, weight: Any) -> Any:
        """The variance of the examples' own gradients, entry by entry: see `keras_backprop.gradients.gradient_variance`."""
        return example_statistics.gradient_variance(self, weight)

    def noise_scale(self, weights: Any = None) -> Any:
        """The gradient noise scale tr Σ/‖G‖², a scalar: see `keras_backprop.gradients.gradient_noise_scale`."""
        return example_statistics.gradient_noise_scale(self, weights)[0]

    def example_cosines(self) -> Any:
        """The cosine of each example's own gradient to their mean, shape `(n,)`: see `keras_backprop.gradients.example_cosines`."""
        return example_statistics.example_cosines(self)

    @property
    def coupling(self) -> dict[str, str]:
        """The layers in which the examples of the batch depend on each other, and why: a dict, path -> reason."""
        whys = ((call, call.rule.couples and call.rule.couples(call)) for call in self._examples.calls)
        return {call.path: why for call, why in whys if why}

    @property
    def losses_of_examples(self) -> list[str]:
        """The paths of layers that have added something to the loss that depends on the examples: activity regularisers, for one."""
        return list(dict.fromkeys(path for path, loss in self._added_losses if self._examples.depends(loss)))

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

    def index(self, weight: Any) -> int:
        """The place of a weight, given as a variable or by its path, among `weights`.

        Raises:
            KeyError: no such weight.
        """
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
