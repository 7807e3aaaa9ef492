"""The TensorFlow operations that a call is made of, as links of the chain.

What has no rule runs as it always does, and the operations that it creates are links: one for each, in the order in which they
were made, with a rule by their *type*. Layers with rules are links too, closed ones: what is inside them is their own affair.
If somebody looks into one, takes from outside what was computed inside (a user's own tape does), its rule does not tell the whole
story any more; then it is opened, and counts as the operations that it is made of.
"""

import functools
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_backprop import _keras, _tensorflow
from keras_backprop.chain.weights import note_values
from keras_backprop.registry import rule_for
from keras_backprop.rule import Call, Copy, Operation, WeightRead
from keras_backprop.scopes import rule_of


class Timeline:
    """The operations that have run since the timeline began, in a graph or eagerly."""

    def __init__(self):
        self.eager = tf.executing_eagerly()
        self.graph: Any = None if self.eager else tf.compat.v1.get_default_graph()
        self._first = 0 if self.eager else _tensorflow.operation_count(self.graph)
        self._listener: Any = _tensorflow.Eager() if self.eager else None

    def __enter__(self):
        if self.eager:
            self._listener.__enter__()
        return self

    def __exit__(self, *exception):
        if self.eager:
            self._listener.__exit__(*exception)

    def here(self):
        """Whether operations of this moment are part of the timeline: not inside a loop or a function of the graph."""
        return tf.executing_eagerly() if self.eager else tf.compat.v1.get_default_graph() is self.graph

    def position(self):
        """How many operations there are."""
        return len(self._listener.operations) if self.eager else _tensorflow.operation_count(self.graph) - self._first

    def operations(self):
        """The operations, a list; None where one was taken back."""
        return self._listener.operations if self.eager else self.graph.get_operations()[self._first :]

    def inside(self, x):
        """What stands in the graph for a tensor that was there before; other tensors as they are."""
        return self.graph.capture(x) if not self.eager and isinstance(x, _tensorflow.EagerTensor) else x

    def handle(self, variable):
        """What stands for a variable here, in this replica: the input of the operations that read it. None if unknown."""
        value = _keras.stored_in(variable)
        if tf.distribute.in_cross_replica_context() and isinstance(value, tf.distribute.DistributedValues):
            value = value.values[0]  # a strategy's scope reads the first copy
        handle = getattr(value, "handle", None)
        if self.eager or handle is None or not hasattr(self.graph, "capture"):
            return handle
        return self.graph.capture(handle)


class Closed:
    """A link with a rule of its own, and which operations it consists of.

    Attributes:
        call: the `Call`.
        first, last: the operations from `first` on and before `last` are its own.
        position: where the link stands among the operations; what comes later may use its outputs.
    """

    __slots__ = ("call", "first", "last", "position")

    def __init__(self, call, first, last):
        self.call, self.first, self.last, self.position = call, first, last, last


class LayerRun(NamedTuple):
    """A call of a layer, an operation or a function.

    Attributes:
        op: what was called.
        inputs, outputs: its arguments and what it returned, nested.
        last: how many operations there were when it ended.
        repeats: None, or how many times it saw every example.
        axis: what the call was given as `axis`, if anything.
    """

    op: Any
    inputs: Any
    outputs: Any
    last: int
    repeats: Any = None
    axis: Any = None


def links(timeline, closed, owners, weights, sources=()):
    """The chain: closed links, and between them an open one for each operation that a wanted gradient passes through.

    Args:
        timeline: a `Timeline`.
        closed: list of `Closed`, in the order in which they ended.
        owners: list of (first, last, path): whose call the operations from `first` on and before `last` belong to; outer
            calls come after the inner ones.
        weights: dict, `id` of a tensor -> `keras.Variable`: the handles of the wanted weights, and tensors that are their values.
        sources: the tensors whose gradients are wanted besides.

    Returns:
        list of `Call`.
    """
    operations = timeline.operations()
    owner = _owners(closed, len(operations))
    producer = {id(y): i for i, one in enumerate(operations) if one is not None for y in one.outputs}
    captured = [(x, timeline.inside(x)) for x in sources]
    depends = _depends(operations, weights, {id(x) for pair in captured for x in pair})
    opened = _opened(timeline, operations, closed, owner, producer, depends, weights)
    for one in closed:
        if id(one) in opened and one.call.rule.given:
            raise ValueError(
                f"The rule '{one.call.rule.name}' cannot serve '{one.call.path}': something takes what is computed inside, a "
                "tape of one's own for instance, so that it is followed operation by operation."
            )
    note_values(timeline, closed)
    at = {}
    for one in closed:
        if id(one) not in opened:
            at.setdefault(one.position, []).append(one.call)
    name, chain, read = _Names(owners, len(operations)), [], set()

    def read_values(inputs):
        for x in inputs:
            if id(x) in weights and id(x) not in read and x.dtype != tf.resource:
                read.add(id(x))
                chain.append(_read(weights[id(x)], x))

    def close(calls):
        for call in calls:
            read_values(call.inputs)
            if not isinstance(call.op, keras.layers.Layer):
                call.path = name.unique(call.path)
            chain.append(call)

    chain.extend(_copy(*pair) for pair in captured if pair[0] is not pair[1])
    for i, operation in enumerate(operations):
        close(at.get(i, ()))
        if operation is None or (owner[i] is not None and id(owner[i]) not in opened):
            continue
        read_values(operation.inputs)
        if operation.type == "ReadVariableOp":
            if id(operation.inputs[0]) in weights:
                chain.append(_read(weights[id(operation.inputs[0])], operation.outputs[0]))
        elif any(id(y) in depends and id(y) not in weights for y in operation.outputs):
            chain.append(_link(operation, name.of(i, operation), weights))
    close(at.get(len(operations), ()))
    return chain


def _owners(closed, count):
    """For each operation the closed link that it is part of, or None. An inner link comes before the one it stands in."""
    owner: list = [None] * count
    for one in sorted(closed, key=lambda one: (one.first, -one.last)):
        owner[one.first : one.last] = [one] * (min(one.last, count) - one.first)
    return owner


def _depends(operations, weights, wanted):
    """The ids of the tensors that may depend on something whose gradient is wanted, links being operations like others."""
    depends = {*wanted, *weights}
    for operation in operations:
        if operation is None or operation.type in _NOTHING_BACK:
            continue
        if any(id(x) in depends for x in operation.inputs):
            depends.update(id(y) for y in operation.outputs if _tensorflow.is_trainable(y))
    return depends


_NOTHING_BACK = ("OnesLike", "Shape", "StopGradient", "ZerosLike")
"""What depends on the shape of its input alone, or counts as if."""


def _opened(timeline, operations, closed, owner, producer, depends, weights):
    """The ids of the closed links whose rules do not tell the whole story."""
    opened: set = set()
    outputs = functools.cache(lambda one: {id(y) for y in one.call.outputs})
    inputs = functools.cache(lambda one: {id(y) for x in one.call.inputs for y in (x, timeline.inside(x))})
    own = functools.cache(lambda one: {id(v) for v in weights_of(one.call.op)})
    for one in closed:  # the rule of a loss is of its predictions; mostly targets are data
        if isinstance(one.call.op, keras.losses.Loss):
            targets = keras.tree.flatten(next(iter(one.call.arguments.values())))
            opened.update(id(one) for x in targets if id(x) in depends)
    for i, operation in enumerate(operations):
        if operation is None:
            continue
        inside = owner[i]
        for x in operation.inputs:
            if id(x) not in depends:
                continue
            made = producer.get(id(x))
            source = owner[made] if made is not None else None
            if source is not None and source is not inside and id(x) not in outputs(source):
                opened.add(id(source))
            from_outside = inside is not None and source is not inside and id(x) not in inputs(inside)
            if from_outside and (id(x) not in weights or id(weights[id(x)]) not in own(inside)):
                opened.add(id(inside))
    return opened


def weights_of(op):
    """The trainable weights of an operation, of its sublayers too."""
    if isinstance(op, WeightRead):
        return (op.variable,)
    if isinstance(op, Operation):
        return op.variables.values()
    return op.trainable_variables if isinstance(op, keras.layers.Layer) else ()


def _read(variable, value):
    read = WeightRead(variable)
    return Call(read, (), (value,), path=variable.path, rule=rule_for(read))


def _copy(x, captured):
    op = Copy()
    return Call(op, (x,), (captured,), path="copy", rule=rule_for(op))


def _link(operation, path, weights):
    variables = {
        f"input {i}": weights[id(x)]
        for i, x in enumerate(operation.inputs)
        if id(x) in weights and x.dtype == tf.resource
    }
    op = Operation(operation, variables)
    return Call(op, operation.inputs, operation.outputs, path=path, rule=rule_of(op, op, path))


class Uses:
    """Paths of their own for what has the same: the second ends in ·2."""

    def __init__(self):
        self._seen: dict = {}

    def unique(self, path):
        """The path, with the number of the use if it is not the first."""
        self._seen[path] = self._seen.get(path, 0) + 1
        return path if self._seen[path] == 1 else f"{path}·{self._seen[path]}"


class _Names(Uses):
    """Whose an operation is and what it does, the same in every run: `encoder/my_norm/truediv`, not `truediv_15`."""

    def __init__(self, owners, count):
        super().__init__()
        self._path = [""] * count
        for first, last, path in reversed(owners):  # outer calls first, and what is inside over them
            self._path[first:last] = [path] * (min(last, count) - first)

    def of(self, position, operation):
        """The name of an operation; the second of the same name in the same call ends in ·2."""
        path = self._path[position]
        name = _WORDS.get(operation.type, operation.type.lower())
        return self.unique(f"{path}/{name}" if path else name)


_WORDS = {
    "AddV2": "add", "RealDiv": "truediv", "Mul": "multiply", "Sub": "subtract", "BatchMatMulV2": "matmul", "Sum": "sum",
    "MatMul": "matmul", "Pow": "power", "Neg": "negative", "GatherV2": "gather", "ConcatV2": "concat", "SelectV2": "where",
    "StatelessIf": "cond", "If": "cond", "StatelessWhile": "while_loop", "While": "while_loop",
    "PartitionedCall": "function", "StatefulPartitionedCall": "function", "ResourceGather": "gather",
}  # fmt: skip
"""How people call types of operations, where it is not the type in small letters."""
