"""A layer or function without a rule -> the graph of operations it is made of.

Keras can call a layer on symbolic tensors and then knows which operations it consists of. We do that while the layer's own
weights are symbolic too: an expression of weights alone, `exp(self.b)`, would otherwise be computed on the spot, and
the weight's gradient would silently disappear. State that the call assigns (a counter, the seed of random numbers) is kept
back and assigned when the graph has run. What cannot be followed this way (random numbers of an unknown batch size, Python
control flow on values, raw TensorFlow) is an error that says so.
"""

import contextlib
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.rule import MissingRuleError


class Graph(NamedTuple):
    """What a call expands to.

    Attributes:
        inputs: the symbolic tensors that stand for the tensors among the arguments, in order.
        weights: list of (symbolic tensor, `keras.Variable`).
        steps: list of Keras nodes, in the order to run them.
        outputs: what the call returned, with symbolic tensors in it.
        losses: list of (layer, symbolic tensor) that `add_loss` was called with.
        updates: list of (`keras.Variable`, tensor): the state that the call assigns, seeds of random numbers included.
    """

    inputs: list
    weights: list
    steps: list
    outputs: Any
    losses: list
    updates: list


def expand(op, call, path, args, kwargs):
    """Trace `call(*args, **kwargs)` symbolically.

    Args:
        op: the layer or function, for its weights and for error messages.
        call: what to call.
        path: str, its name in error messages.
        args, kwargs: the arguments, with real tensors.

    Returns:
        A `Graph`.

    Raises:
        MissingRuleError: the call cannot be expanded.
    """
    if isinstance(op, keras.Operation) and not isinstance(op, keras.layers.Layer):
        raise MissingRuleError(_message(op, path, "it is a single operation, there is nothing to expand it into"))
    inputs: list = []
    inner: list = []  # the sublayers whose symbolic call is under way

    def symbolic(x):
        if tf.is_tensor(x) and not isinstance(x, keras.Variable):
            inputs.append(keras.KerasTensor(x.shape, x.dtype.name, sparse=isinstance(x, tf.SparseTensor)))
            if not layers:  # a loss reads the mask of its predictions; a layer is given it as an argument
                _keras.set_keras_mask(inputs[-1], _keras.get_keras_mask(x))
            return inputs[-1]
        return x

    layers = op._flatten_layers() if isinstance(op, keras.layers.Layer) else []
    args, kwargs = keras.tree.map_structure(symbolic, (args, kwargs))
    with (
        _keras.partial_nodes(),
        _keras.grouped_convolutions(),
        _keras.sums_of_lists(),
        _keras.means_over_any_batch(),
        _keras.batch_slices(),
        _nodes_removed(layers),
        _symbolic_weights(layers, inner) as weights,
        _losses_collected(layers, inner) as losses,
    ):
        with _Watch(inner) as watch:
            try:
                outputs = call(*args, **kwargs)
            except MissingRuleError:
                raise
            except Exception as error:
                raise MissingRuleError(_message(op, path, _why(error))) from error
        learned = sorted(variable.path for variable, _ in watch.updates if variable.trainable)
        if learned:
            raise MissingRuleError(_message(op, path, f"it assigns to its weight {', '.join(learned)} in its call"))
        if watch.reads:
            names = ", ".join(sorted(set(watch.reads)))
            raise MissingRuleError(_message(op, path, f"it reads the value of its weight {names} outside `keras.ops`"))
        leaves = [x for x in keras.tree.flatten((outputs, losses)) if isinstance(x, keras.KerasTensor)]
        steps = _keras.graph_steps(leaves)
        _refuse_state_of_this_call(op, path, steps, watch.updates)
        used = {id(x) for node in steps for x in node.input_tensors} | {id(x) for x in leaves}
    return Graph(inputs, [pair for pair in weights if id(pair[0]) in used], steps, outputs, losses, watch.updates)


def _refuse_state_of_this_call(op, path, steps, updates):
    """The graph has the variable itself among its arguments, which does not tell whether it was used before or after."""
    assigned = {id(variable) for variable, _ in updates}
    for node in steps:
        for x in keras.tree.flatten((node.arguments.args, node.arguments.kwargs)):
            if isinstance(x, keras.Variable) and id(x) in assigned:
                raise MissingRuleError(_message(op, path, f"it assigns its state {x.path} and computes with it"))


def is_weight(x):
    """Whether x is a variable that training moves."""
    return isinstance(x, keras.Variable) and x.trainable and tf.as_dtype(x._dtype).is_floating


class _SymbolicWeight(keras.KerasTensor):
    """Stands for a weight in a symbolic call, for those who ask a variable for its value too."""

    def __init__(self, variable):
        super().__init__(variable.shape, variable.dtype, name=variable.name)
        self.path, self.trainable = variable.path, True

    @property
    def value(self):
        return self


def tensor_leaves(structure):
    """The tensors among nested arguments, in the order in which `expand` makes them symbolic."""
    return [x for x in keras.tree.flatten(structure) if tf.is_tensor(x) and not isinstance(x, keras.Variable)]


_REASONS = {
    "cannot be used as input to a TensorFlow function": "it calls TensorFlow directly, not through `keras.ops`",
    "cannot be used as a boolean": "which way it goes depends on the values of tensors",
    "doesn't have any actual numerical value": "it takes the values of tensors out of the computation, as NumPy does",
}
"""What Keras's own errors about symbolic tensors mean for us."""


def _why(error):
    text = str(error).strip()
    for sign, reason in _REASONS.items():
        if sign in text:
            return reason
    first = text.split("\n")[0].rstrip(".")
    return f"calling it on symbolic tensors failed with {type(error).__name__}: {first}"


def _message(op, path, reason):
    kind = type(op).__name__ if isinstance(op, keras.Operation) else "function"
    return (
        f"'{path}' ({kind}) has no backward rule and cannot be expanded into operations that have one: {reason}. "
        f"Remedies: write it in `keras.ops`; or give it a rule, as a method `backward(self, call, dy)` of the layer or with "
        f"`@keras_backprop.backward_rule(…)`; or declare it with `keras_backprop.not_differentiable(…)`."
    )


@contextlib.contextmanager
def _symbolic_weights(layers, inner):
    """Put a symbolic tensor in the place of every trainable weight that is an attribute of the layers.

    A sublayer that is called inside becomes one node, and finds out its output's shape with its real weights.
    """
    symbols: dict = {}
    swaps: list = []

    def symbol(x):
        if not is_weight(x):
            return x
        if id(x) not in symbols:
            symbols[id(x)] = (_SymbolicWeight(x), x)
        return symbols[id(x)][0]

    for layer in layers:
        for name, value in vars(layer).items():
            if name.endswith("trainable_variables") or name in ("_layers", "_metrics", "_tracker"):
                continue
            if isinstance(value, (keras.Variable, list, tuple, dict)):
                swapped = _map_leaves(symbol, value)
                if swapped is not value:
                    swaps.append((layer, name, value, swapped))

    def set_weights(which):
        for layer, name, *values in swaps:
            vars(layer)[name] = values[which]

    def with_real_weights(layer):
        symbolic_call = layer.symbolic_call

        def call(*args, **kwargs):
            inner.append(layer)
            set_weights(0)
            try:
                return symbolic_call(*args, **kwargs)
            except Exception:  # its own shape inference does not know all it is called with: run its forward pass
                return _keras.compute_output_spec(layer.call, *args, **kwargs)
            finally:
                inner.pop()
                if not inner:
                    set_weights(1)

        return call

    with contextlib.ExitStack() as stack:
        for layer in layers[1:]:
            stack.enter_context(_keras.replaced(layer, symbolic_call=with_real_weights(layer)))
        stack.callback(set_weights, 0)
        set_weights(1)
        weights: list = []
        yield weights
        weights.extend(symbols.values())


def _map_leaves(function, value):
    """`function` on the leaves of lists, tuples and dicts; the same object where nothing changes."""
    if isinstance(value, dict):
        mapped = {key: _map_leaves(function, x) for key, x in value.items()}
        return mapped if any(mapped[key] is not value[key] for key in value) else value
    if isinstance(value, (list, tuple)):
        items = [_map_leaves(function, x) for x in value]
        if all(a is b for a, b in zip(items, value, strict=True)):
            return value
        if hasattr(value, "_fields"):
            return type(value)(*items)
        return tuple(items) if isinstance(value, tuple) else items
    return function(value)


@contextlib.contextmanager
def _losses_collected(layers, inner):
    """Keep what `add_loss` is called with, instead of adding symbolic tensors to the layers' losses.

    A sublayer adds its losses when its own node runs.
    """
    losses: list = []
    with contextlib.ExitStack() as stack:
        for layer in layers:

            def add_loss(loss, layer=layer):
                if not inner:
                    losses.extend((layer, x) for x in keras.tree.flatten(loss))

            stack.enter_context(_keras.replaced(layer, add_loss=add_loss))
        yield losses


@contextlib.contextmanager
def _nodes_removed(layers):
    """Leave no trace of the symbolic call in the layers' lists of nodes."""
    lengths = [(nodes, len(nodes)) for layer in layers for nodes in (layer._inbound_nodes, layer._outbound_nodes)]
    try:
        yield
    finally:
        for nodes, length in lengths:
            del nodes[length:]


class _Watch(_keras.StatelessScope):
    """Notices what the symbolic call does behind its back: state that is assigned, weights whose value is read."""

    def __init__(self, inner):
        super().__init__(initialize_variables=False)
        self.updates, self.reads, self._values, self._inner = [], [], {}, inner
        self._outer = _keras.current_stateless_scope()

    def add_update(self, update):
        variable, value = update
        if not self._inner:  # a layer inside assigns when it is run
            self.updates.append((variable, value))
        self._values[id(variable)] = value

    def get_current_value(self, variable):
        if id(variable) in self._values:
            return self._values[id(variable)]
        if is_weight(variable):
            self.reads.append(variable.path)
        return self._outer.get_current_value(variable) if self._outer is not None else None


class _Weightless(_keras.StatelessScope):
    """Notices weights that a real call reads; what it assigns is kept for afterwards."""

    def __init__(self):
        self.outer = _keras.current_stateless_scope()
        super().__init__()
        self.updates, self.reads = [], []

    def add_update(self, update):
        self.updates.append(update)
        super().add_update(update)

    def get_current_value(self, variable):
        if is_weight(variable):
            self.reads.append(variable.path)
        value = super().get_current_value(variable)
        return self.outer.get_current_value(variable) if value is None and self.outer is not None else value


def run_without_weights(call, error, args, kwargs):
    """Run `call(*args, **kwargs)`; raise `error` if it uses a trainable weight."""
    with _Weightless() as scope:
        outputs = call(*args, **kwargs)
    if scope.reads:
        raise error
    for variable, value in scope.updates:
        variable.assign(value)
    return outputs


def static_shapes(node, arguments):
    """The arguments of a traced operation, with an unknown size that was traced as None written as -1."""
    args, kwargs = arguments
    operation = node.operation
    if getattr(operation, "newshape", None) is not None and None in tuple(operation.newshape):
        operation.newshape = tuple(-1 if size is None else size for size in operation.newshape)
    return args, kwargs
