"""What a backward pass returns: every gradient, δ, link and example of one batch. What nobody asks for is not computed."""

import copy
import functools
import html
from typing import Any

import keras
import tensorflow as tf

from keras_backprop import example_statistics
from keras_backprop._tensorflow import EagerTensor
from keras_backprop.observers import ObservedLink, telling
from keras_backprop.weight_gradients import add, cast


class Backward:
    """What `backward` returns. E is the error of the batch, penalties included. What nobody asks for is not computed.

    Attributes:
        loss: scalar tensor, E; None where `upstream` was given.
        y_pred: the predictions.
        weights: list of the weights whose gradients were wanted.
        inputs: list of ∂E/∂x for each tensor in `x`; None for integers and for sparse tensors.
        scale: None, or a scalar tensor, the loss scale (mixed precision) that is in all gradients during training.
        calls: list of every `Call` that ran, in forward order, those too that E does not depend on.
        seen: list of `(call, upstream, downstream, weight gradients)` of those that E depends on, in the order of the sweep.
        forward_calls: int, how many of the calls the model made; the others are of the error. None where nobody wanted to know.
        example_scale: `ExampleScale`, what turns contributions to E into gradients of the examples' own errors.
        losses_ran: int, how often a compiled loss was called for E: 0 if a `compute_loss` does without. None of other errors.
        added_losses: list of (path of a layer, what it added to the error).
    """

    y_pred: Any = None
    example_scale: Any = None
    losses_ran: Any = None
    added_losses: Any = ()
    forward_calls: Any = None

    def __init__(self, loss: Any, weights: Any, inputs: Any, swept: Any, examples: Any, scale: Any = None) -> None:
        self.loss, self.weights, self.inputs, self.scale = loss, weights, inputs, scale
        self.calls, self.seen = examples.calls, examples.seen
        self._swept, self._examples = swept, examples
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
        for call, dys, _, _ in self.seen:
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
        tell = telling([_Collector(seen)], self.calls, self.scale)
        for link in self.seen:
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
        return self.gradients[self.index(weight)]

    def per_example(self, weight: Any) -> Any:
        """What each example contributes to ∂E/∂W, shape `(n, *shape)`: they add up to it, but for penalties.

        The mean over n examples is in E, and so a factor 1/n is in each. If something further on mixes the examples
        (`mixing`), it is what passes through the rows of each.

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
            if len(parts) == 1:
                norms.append(parts[0].squared_norms())
            elif parts:  # the norm of a sum where a weight is used several times
                gradient = self._added(index, [part.per_example() for part in parts])
                norms.append(tf.reduce_sum(tf.square(gradient), axis=list(range(1, len(gradient.shape)))))
        widest = max((norm.dtype for norm in norms), key=lambda dtype: dtype.size, default=None)
        return tf.add_n([tf.cast(norm, widest) for norm in norms]) if norms else None

    def example_norms(self) -> Any:
        """The norm of the gradient of each example's own error, over all weights together, shape `(n,)`.

        The mean over the batch, sample weights, and a loss scale are taken out of what it contributes to E; an example of weight
        0 has the norm 0. None where E depends on no weight. Where the positions of an example, the steps of a sequence, cancel
        each other, what rounding may do is added: such a norm is rather too large.

        Raises:
            ValueError: a gradient exists as a sum over the batch only, and why; or the error is neither a mean nor
                a sum of errors of the examples.
        """
        squares = self.squared_norms()
        if squares is None:
            return None
        norms = tf.sqrt(squares)
        norms *= tf.cast(self.example_scale.own(), norms.dtype)
        return norms if self.scale is None else norms / tf.cast(self.scale, norms.dtype)

    def weighted(self, c: Any, penalties: bool = True, left_out: Any = None, least: Any = None) -> list[Any]:
        """The gradients with the contribution of example n times cₙ.

        Args:
            c: float tensor of shape `(n,)`; or a list of such tensors, one for each weight, None for one that is not wanted.
            penalties: bool, whether those of weights are in it, which are no example's.
            left_out: None, or a tensor of shape `(n,)`, 0 for examples whose numbers are not to be looked at, be they
                infinite or NaN, and 1 for the others.
            least: the dtype that results have at least; by default they have that of their weights.

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
            weighted.append(self._added(index, gradients, least))
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
        """The cosine of each example's own gradient to their mean, shape `(n,)`: see
        `keras_backprop.gradients.example_cosines`.
        """
        return example_statistics.example_cosines(self)

    @property
    def coupling(self) -> dict[str, str]:
        """The layers in which the examples of the batch depend on each other, and why: a dict, path -> reason."""
        whys = ((call, call.rule.couples and call.rule.couples(call)) for call in self.calls)
        return {call.path: why for call, why in whys if why}

    @property
    def mixing(self) -> dict[str, str]:
        """The links between weights and the error that mix the examples of the batch, and why: a dict, path -> reason.

        A mean over the batch is one, or the product of a batch with itself in a contrastive loss. Where there are any,
        `per_example` and what is made of it are what passes through the rows of an example, which is no gradient of its error
        alone. A link of which it is not known counts as one that mixes.
        """
        return self._examples.mixing() | self.coupling

    def reduction(self) -> Any:
        """What E is of the examples' own errors, as its links tell: "mean" or "sum" and None, or None and why neither."""
        return self._examples.reduction()

    @property
    def losses_of_examples(self) -> list[str]:
        """The paths of layers that have added something to the loss that depends on the examples: activity regularisers, for
        one.
        """
        return list(dict.fromkeys(path for path, loss in self.added_losses if self._examples.depends(loss)))

    def _added(self, index, gradients, least=None):
        """Gradients of one weight, added up in its dtype, or in a wider one; None for none."""
        dtype = tf.as_dtype(self.weights[index].dtype)
        dtype = least if least is not None and least.size > dtype.size else dtype
        return add([cast(gradient, dtype) for gradient in gradients]) if gradients else None

    def _of_examples(self, index):
        return self._parts(index)[0]

    def _parts(self, index):
        """The gradient of a weight by examples, and its penalties: two lists of `WeightGradient`."""
        if index not in self._contributions:
            variable = self.weights[index]
            parts, penalties = self._examples.of(variable, self._swept.parts.get(id(variable), []))
            # A sum in half precision would be rounded by more than one of many examples contributes.
            parts = [part.as_type(tf.float32) if part.dtype.size <= 2 else part for part in parts]
            self._contributions[index] = parts, penalties
        return self._contributions[index]

    def apart(self) -> "Backward":
        """The same, but what it computes of single examples it keeps to itself: for a function traced inside of another."""
        other = copy.copy(self)
        other._contributions = {}
        return other

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


def _said(number):
    return f"{float(number):.4g}" if isinstance(number, EagerTensor) else "a tensor of the graph"


class _Collector:
    def __init__(self, links):
        self.observe = links.append
