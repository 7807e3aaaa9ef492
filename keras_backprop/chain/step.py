"""What a loop repeats: recorded at every step on the way forth, swept at every step on the way back."""

import keras
import tensorflow as tf

from keras_backprop.chain.sweep import sweep
from keras_backprop.rule import Call, WeightRead


class Step:
    """A function of tensors whose backward pass runs elsewhere than its forward pass, in another loop for instance.

    Every run must do the same; what a step may differ in from the next are the values of its tensors.

    Args:
        record: function without arguments that returns a new `Record`.
        run: function `(record, *tensors) -> nested tensors`.
        weights: the `keras.Variable`s whose gradients `backward` returns.
    """

    def __init__(self, record, run, weights):
        self._record, self._run, self.weights = record, run, weights

    def forward(self, *tensors):
        """Returns (what `run` returns, a tuple of the tensors that `backward` needs)."""
        record = self._record()
        self._inputs = [tf.identity(x) for x in tensors]
        outputs = self._run(record, *self._inputs)
        self._outputs = [y for y in keras.tree.flatten(outputs) if tf.is_tensor(y)]
        self._calls = record.calls
        self._kept = self._tensors_of_this_step()
        return outputs, tuple(self._kept)

    def backward(self, kept, dys):
        """Sweep back over a step.

        Args:
            kept: what `forward` returned for that step.
            dys: list, ∂E/∂y of the outputs of `run`, flat; None where there is none.

        Returns:
            The gradients of the tensors that went in, None where there is none; and a dict `id(variable)` -> list of
            `WeightGradient`.
        """
        new = {id(old): value for old, value in zip(self._kept, kept, strict=True)}

        def value(x):
            return new.get(id(x), x) if tf.is_tensor(x) else x

        calls = []
        for call in self._calls:
            if isinstance(call.op, WeightRead):  # read it again, rather than keep it for every step
                new[id(call.output)] = tf.cast(tf.convert_to_tensor(call.op.variable.value), call.output.dtype)
            inputs, outputs, arguments, saved = keras.tree.map_structure(
                value, (call.inputs, call.outputs, call.arguments, call.saved)
            )
            calls.append(Call(call.op, inputs, outputs, arguments, saved, call.path, call.rule))
        upstream = [(value(y), dy) for y, dy in zip(self._outputs, dys, strict=True) if dy is not None]
        inputs = [value(x) for x in self._inputs]
        result = sweep(calls, upstream, self.weights, inputs)
        return [result.input_gradient(x) for x in inputs], result.parts

    def input(self, kept, position):
        """The tensor that went into a step."""
        source = self._inputs[position]
        return next((value for old, value in zip(self._kept, kept, strict=True) if old is source), source)

    def _tensors_of_this_step(self):
        """Everything the calls refer to, but for weights and what comes from outside the loop."""
        weights = {id(call.output) for call in self._calls if isinstance(call.op, WeightRead)}
        named = [self._inputs, self._outputs]
        for call in self._calls:
            named += [call.inputs, call.outputs, list(call.arguments.values()), list(call.saved.values())]
        unique = {id(x): x for x in keras.tree.flatten(named) if tf.is_tensor(x) and not isinstance(x, keras.Variable)}
        here = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        return [x for key, x in unique.items() if key not in weights and (here is None or x.graph is here)]
