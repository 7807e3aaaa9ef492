"""The values that the weights have in a step: what the forward pass read, the backward pass reads no more."""

import contextlib

import keras
import tensorflow as tf

from keras_backprop import _keras, _tensorflow
from keras_backprop.rule import Gradients


class SameValues(_keras.StatelessScope):
    """A context in which weights have given values; all else is as it is outside of it.

    What is assigned in it, is: a rule may count or draw random numbers. Weights that have a value here keep it.

    Args:
        values: pairs of a `keras.Variable` and a tensor.
    """

    def __init__(self, values):
        super().__init__(values, initialize_variables=False)

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        # Keras asks the innermost scope only.
        return self.original_scope.get_current_value(variable) if value is None and self.original_scope else value

    def add_update(self, update):
        variable, value = update
        with _keras.stateless_scope_set(self.original_scope):
            variable.assign(value)


def weights_as_they_are(weights):
    """A context in which weights have the values that they have now."""
    return SameValues([(v, tf.convert_to_tensor(v.value)) for v in weights])


def note_values(timeline, closed):
    """Set `Call.values` of closed links. A variable that the forward pass assigns anew has several values in one step.

    Shared layers in a `SpectralNormalization` do so, and weights that are clipped in `call`.

    Args:
        timeline: a `Timeline`.
        closed: list of `Closed`.
    """
    operations = [(i, one) for i, one in enumerate(timeline.operations()) if one is not None]
    reads = [(i, one) for i, one in operations if one.type == "ReadVariableOp"]
    read = {id(one.inputs[0]) for _, one in reads}
    assigned = {id(x) for _, one in operations if one.type not in _READS for x in one.inputs if id(x) in read}
    reads = [(i, one) for i, one in reads if id(one.inputs[0]) in assigned]
    for link in closed if reads else ():
        own = {id(one.inputs[0]): one.outputs[0] for i, one in reads if link.first <= i < link.last}
        variables = link.call.op.variables if own and isinstance(link.call.op, keras.layers.Layer) else ()
        handles = [(v, id(timeline.handle(v))) for v in variables]
        link.call.values = [(v, own[handle]) for v, handle in handles if handle in own]


_READS = ("ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape")
"""What takes the handle of a variable and does not change it. A loop or a called function may."""


def applied_out_of_same_values(rule, call, dy):
    """Apply the rule of an operation of TensorFlow where variables are themselves, not the values of `SameValues`.

    TensorFlow's gradient function may run a user's own, that of a custom gradient, which may compute the forward pass anew
    under a tape that watches the variables (`tf.recompute_grad` does). The tape would not know their values.
    """
    scope = _keras.current_stateless_scope()
    if not isinstance(scope, SameValues):
        return rule.backward(call, dy)
    while isinstance(scope, SameValues):
        scope = scope.original_scope
    with _keras.stateless_scope_set(scope):
        if tf.executing_eagerly():
            return rule.backward(call, dy)
        graph = tf.compat.v1.get_default_graph()
        first = _tensorflow.operation_count(graph)
        returned = rule.backward(call, dy)
        reads = [one for one in graph.get_operations()[first:] if _reads_values(one)]
        if not reads:
            return returned
        # These would race the optimizer as well. In a group, for TensorFlow leaves out an edge from what makes the tensor itself;
        # a call does, and may read more afterwards, once it is inlined.
        with tf.control_dependencies([tf.group(*reads)]):
            weights = {name: _now(gradient) for name, gradient in returned.weights.items()}
            return Gradients(*map(_now, returned.inputs), **weights)


def _reads_values(operation):
    """Whether it is given a variable and may read what is in it: loops, branches and calls of functions may, too."""
    return operation.type != "VariableShape" and any(x.dtype == tf.resource for x in operation.inputs)


def _now(gradient):
    """A tensor, or slices, that wait for what the operations here wait for."""
    return tf.identity(gradient) if tf.is_tensor(gradient) else gradient


class Reads:
    """The reads of weights in a step of a compiled function.

    A rule that read a weight anew would race the optimizer: TensorFlow orders the read before the update by a control edge,
    and its graph optimizer drops that edge when the gradients pass through one `IdentityN`, as Keras's optimizers make them.
    Here every gradient depends on the upstream gradients that it starts from, and these on all reads. In eager mode nothing
    races.

        reads = Reads(record.timeline)           # of the forward pass and the error
        upstream, same_values = reads.before(upstream, weights)
        with same_values:
            sweep(calls, upstream, weights)
    """

    def __init__(self, timeline):
        self.timeline = timeline

    def before(self, upstream, weights):
        """Make the backward pass depend on the reads.

        Args:
            upstream: list of (tensor, gradient): where the error starts from.
            weights: list of `keras.Variable`.

        Returns:
            `upstream`, and a context in which the weights have the values that the forward pass read.
        """
        if self.timeline.eager:
            return upstream, contextlib.nullcontext()
        handles = [self.timeline.handle(v) for v in weights]
        wanted = {id(handle) for handle in handles if handle is not None}
        operations = self.timeline.operations()
        reads = [one for one in operations if any(id(x) in wanted for x in one.inputs)]  # in loops and calls, too
        read = {id(one.inputs[0]): one.outputs[0] for one in reads if one.type == "ReadVariableOp"}
        values = [read.get(id(h)) for h in handles]
        values = [tf.convert_to_tensor(v.value) if x is None else x for v, x in zip(weights, values, strict=True)]
        with tf.control_dependencies([*reads, *values]):
            upstream = [(tensor, tf.identity(gradient)) for tensor, gradient in upstream]
        return upstream, SameValues(zip(weights, values, strict=True))
