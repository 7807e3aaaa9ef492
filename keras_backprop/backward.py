"""One backward pass as a value, for training loops and research of one's own: gradients, deltas, single examples.

    result = backward(model, x, y)
    optimizer.apply(result.gradients, model.trainable_weights)

is what a `tf.GradientTape` is used for. It works eagerly and inside `tf.function`.
"""

import keras
import tensorflow as tf

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from keras_backprop.chain.weights import Reads
from keras_backprop.objective import record_objective
from keras_backprop.rule import Operation
from keras_backprop.weight_gradients import add


def backward(model, x, y=None, sample_weight=None, training=True):
    """The forward and the backward pass of a compiled model on one batch. No weight is changed.

    The forward pass is a call of the model like any other: in training mode batch statistics and seeds advance.

    Args:
        model: a compiled Keras model, stock or `BackpropModel`.
        x, y, sample_weight: a batch as `fit` takes it: arrays or tensors, nested as the model wants them.
        training: bool, the training flag of the forward pass.

    Returns:
        A `Backward`.

    Raises:
        TypeError: `model` is no Keras model.
        ValueError: the model is not compiled, or the targets do not fit the predictions.
        MissingRuleError: something that the error depends on has no gradient, neither here nor in TensorFlow.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`backward` takes a `keras.Model`. Received: {model!r} (of type {type(model).__name__})")
    if not model.compiled:
        raise ValueError(
            f"The model '{model.name}' is not compiled: it has no loss. Call `model.compile(loss=…)` first."
        )
    x, y, sample_weight = keras.tree.map_structure(
        lambda a: a if a is None or tf.is_tensor(a) else tf.convert_to_tensor(a), (x, y, sample_weight)
    )
    inputs = [tensor for tensor in keras.tree.flatten(x) if tensor is not None]
    floats = [tensor for tensor in inputs if tensor.dtype.is_floating]
    with Record(model.trainable_weights, floats) as record:
        y_pred = record.run(model, x, **({"training": training} if model._call_has_training_arg else {}))
        objective = record_objective(model, record, x, y, y_pred, sample_weight, training)
        record.weights = weights = model.trainable_weights  # those too that the call has built
    calls = record.calls
    deltas: dict = {}
    penalised: set = set()

    def observe(call, dys, dxs, parts):
        passes = isinstance(call.op, Operation) and call.op.name in ("Identity", "Cast")  # a weight, to its penalty
        if isinstance(call.op, keras.regularizers.Regularizer) or (passes and id(call.output) in penalised):
            penalised.update(map(id, call.inputs))
        for part in parts.values():
            part.penalty = id(call.output) in penalised
        if isinstance(call.op, keras.layers.Layer):
            deltas.setdefault(call.path, []).insert(0, dys[0] if len(dys) == 1 else tuple(dys))

    upstream, same_values = Reads(record.timeline).before(objective.upstream, weights)
    with same_values:
        result = sweep(calls, upstream, weights, floats, [observe])
    return Backward(objective.loss, y_pred, weights, result, deltas, [result.input_gradient(t) for t in inputs])


class Backward:
    """What `backward` returns. E is the error of the batch, penalties included.

    Attributes:
        loss: scalar tensor, E.
        y_pred: the predictions.
        weights: list of the model's trainable weights.
        gradients: list of ∂E/∂W for each of them, None where E does not depend on it: what `optimizer.apply` takes.
        inputs: list of ∂E/∂x for each tensor in `x`; None for integers.
        deltas: dict, path of a layer -> list of ∂E/∂(the layer's output), one for each use of the layer, in forward order.
            Of a layer that ends in an activation it is δ = ∂E/∂z, z being what the activation is applied to.
    """

    def __init__(self, loss, y_pred, weights, result, deltas, inputs):
        self.loss, self.y_pred, self.weights, self.deltas, self.inputs = loss, y_pred, weights, deltas, inputs
        self.gradients = [result.gradient(v) for v in weights]
        self._parts = [result.parts.get(id(v), []) for v in weights]

    def gradient(self, weight):
        """∂E/∂W of one weight, given as a variable or by its path.

        Raises:
            KeyError: no trainable weight of the model.
        """
        return self.gradients[self._index(weight)]

    def per_example(self, weight):
        """What each example contributes to ∂E/∂W, shape `(n, *shape)`: they add up to it, but for penalties.

        The mean over n examples is in E, and so a factor 1/n is in each.

        Args:
            weight: a variable or its path.

        Returns:
            A tensor; None where E does not depend on the weight.

        Raises:
            KeyError: no trainable weight of the model.
            ValueError: the gradient exists as a sum over the batch only, and why.
        """
        parts = [part.per_example() for part in self._of_examples(self._index(weight))]
        return add(parts) if parts else None

    def squared_norms(self, weight=None):
        """The squared norm of each example's gradient, shape `(n,)`: of one weight, or of all together.

        Returns:
            A tensor; None where E does not depend on the weight, or on none of all.

        Raises:
            KeyError: no trainable weight of the model.
            ValueError: a gradient exists as a sum over the batch only, and why.
        """
        indices = range(len(self.weights)) if weight is None else [self._index(weight)]
        norms = []
        for index in indices:
            parts = self._of_examples(index)
            if len(parts) == 1:
                norms.append(parts[0].squared_norms())
            elif parts:  # a weight that is used several times: the norm of a sum
                gradient = add([part.per_example() for part in parts])
                norms.append(tf.reduce_sum(tf.square(gradient), axis=list(range(1, len(gradient.shape)))))
        return tf.add_n(norms) if norms else None

    def weighted(self, c):
        """The gradients with the contribution of example n times cₙ, for `c` of shape `(n,)`; penalties as they are."""
        return [
            add([part.total() if part.penalty else part.weighted_total(c) for part in parts]) if parts else None
            for parts in self._parts
        ]

    def _of_examples(self, index):
        return [part for part in self._parts[index] if not part.penalty]

    def _index(self, weight):
        for index, variable in enumerate(self.weights):
            if variable is weight or (isinstance(weight, str) and variable.path == weight):
                return index
        paths = ", ".join(repr(v.path) for v in self.weights)
        raise KeyError(f"There is no trainable weight {getattr(weight, 'path', weight)!r}. Available: {paths}")
