"""The values that the weights have in a step: what the forward pass read, the backward pass reads no more."""

import contextlib

import keras
import tensorflow as tf

from keras_backprop import _keras


def build(model, x):
    """Build a model that the first batch has to build, so that its weights are known before they are read."""
    if not model.built:
        _keras.compute_output_spec(model, keras.tree.map_structure(_keras.symbolic, x), training=False)


class Reads:
    """The reads of weights in a step of a compiled function.

    A rule that read a weight anew would race the optimizer: TensorFlow orders the read before the update by a control edge,
    and its graph optimizer drops that edge when the gradients pass through one `IdentityN`, as Keras's optimizers make them.
    Here every gradient depends on the upstream gradients that it starts from, and these on all reads. In eager mode nothing
    races.

        reads = Reads()
        …                                        # the forward pass and the error
        upstream, same_values = reads.before(upstream, weights)
        with same_values:
            sweep(calls, upstream, weights)
    """

    def __init__(self):
        self.graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        self.first = len(self.graph.get_operations()) if self.graph is not None else 0

    def before(self, upstream, weights):
        """Make the backward pass depend on the reads.

        Args:
            upstream: list of (tensor, gradient): where the error starts from.
            weights: list of `keras.Variable`.

        Returns:
            `upstream`, and a context in which the weights have the values that the forward pass read.
        """
        if self.graph is None:
            return upstream, contextlib.nullcontext()
        reads = [one for one in self.graph.get_operations()[self.first :] if one.type == "ReadVariableOp"]
        read = {id(one.inputs[0]): one.outputs[0] for one in reads}
        values = [self._value(v, read) for v in weights]
        with tf.control_dependencies([*reads, *values]):
            upstream = [(tensor, tf.identity(gradient)) for tensor, gradient in upstream]
        return upstream, _keras.StatelessScope(zip(weights, values, strict=True), initialize_variables=False)

    def _value(self, variable, read):
        handle = getattr(variable._value, "handle", None)
        inside = self.graph.capture(handle) if hasattr(self.graph, "capture") and handle is not None else handle
        value = read.get(id(inside))
        return tf.convert_to_tensor(variable.value) if value is None else value
