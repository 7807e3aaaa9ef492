"""The values that the weights have in a step: what the forward pass read, the backward pass reads no more."""

import contextlib

import tensorflow as tf

from keras_backprop import _keras


def weights_as_they_are(weights):
    """A context in which weights have the values that they have now."""
    values = [(v, tf.convert_to_tensor(v.value)) for v in weights]
    return _keras.StatelessScope(values, initialize_variables=False)


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
        return upstream, _keras.StatelessScope(zip(weights, values, strict=True), initialize_variables=False)
