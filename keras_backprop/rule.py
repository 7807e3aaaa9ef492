"""The nouns of a rule: a `Call` is what ran forward, `Gradients` is what a rule returns.

    rule(call, dy) -> Gradients

`dy` is the gradient of the error with respect to the call's output, ∂E/∂y; a tuple of them where a call has several
outputs. The rule multiplies by the call's own derivative. That is one factor of the chain rule, and all a rule does.
"""

from dataclasses import dataclass
from typing import Any


class Call:
    """One link of the chain: an operation, what went in and what came out.

    Attributes:
        op: the Keras layer or operation, or the activation, loss or regulariser function.
        inputs: tuple of the tensors among the arguments, in the order of the signature, as the operation saw them.
        outputs: tuple of the tensors it returned.
        arguments: dict, every argument of the call by its name (defaults included).
        saved: dict, what a `forward_rule` kept for the backward rule.
        path: str, the name under which errors and reports speak of this call.
        repeats: None, or how many times the call saw every example, the times first: as so many more rows.
        deltas: tuple, set by the sweep: the `deltas` that the rule returned.
        values: list of pairs, `keras.Variable` and tensor: what the call has read of variables of `op` that the forward pass
            assigns anew; its rule reads the same.
        settings: list of triples, the dict of attributes, a name in it and its value: the plain attributes, the weights and the
            layers of `op`, a layer, a regulariser or a loss, and of the layers in it, as they were in the call. Its rule finds
            the same.
    """

    __slots__ = (
        "arguments", "deltas", "inputs", "op", "outputs", "path", "repeats", "rule", "saved", "settings", "values",
    )  # fmt: skip

    def __init__(
        self,
        op: Any,
        inputs: Any,
        outputs: Any,
        arguments: Any = None,
        saved: Any = None,
        path: str = "",
        rule: Any = None,
        repeats: Any = None,
    ) -> None:
        self.op = op
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.arguments = arguments or {}
        self.saved = saved or {}
        self.path = path
        self.rule = rule
        self.repeats = repeats
        self.deltas: tuple = ()
        self.values: list = []
        self.settings: list = []

    @property
    def input(self) -> Any:
        """The first input tensor: x."""
        return self.inputs[0]

    @property
    def output(self) -> Any:
        """The first output tensor: y."""
        return self.outputs[0]

    def __getitem__(self, name: str) -> Any:
        """An argument of the call, or, where the call has none of that name, an attribute of the operation.

        Keras passes the same option to `keras.ops.softmax(x, axis=1)` as an argument of the function and keeps it as an
        attribute of the operation in a Functional graph. A rule that asks `call["axis"]` serves both.
        """
        if name in self.arguments:
            return self.arguments[name]
        return getattr(self.op, name)

    def __repr__(self) -> str:
        return f"<Call {self.path or self.op}: {_shapes(self.inputs)} -> {_shapes(self.outputs)}>"


class Gradients:
    """What a rule returns: a gradient per input of the call, and a gradient per weight of the layer.

    Args:
        *inputs: ∂E/∂x for each of `call.inputs`, in order. None where there is none (integers, masks). A function
            without arguments is called only if somebody needs that gradient. Shapes that were broadcast in the forward
            pass need no care: the sweep sums them back.
        **weights: ∂E/∂W by the name of the layer's attribute (`kernel=…`; a dotted name reaches into a sublayer:
            `**{"cell.kernel": …}`; so does the variable's path, `"rnn/cell/kernel"`), as a `Contraction`, `Convolution`,
            `Lookup` or `Total`. A bare tensor counts as a `Total`.

    Attributes:
        deltas: tuple of tensors of shape `(T, n, …)`, δ at every time step of a recurrent layer; empty elsewhere. Nothing is
            computed of them: they are for whoever looks on.
    """

    __slots__ = ("deltas", "inputs", "weights")

    def __init__(self, *inputs: Any, **weights: Any) -> None:
        self.inputs = inputs
        self.weights = weights
        self.deltas: tuple = ()

    def with_deltas(self, deltas: Any) -> "Gradients":
        """The same, and δ at every time step."""
        self.deltas = tuple(deltas)
        return self

    def __repr__(self) -> str:
        return f"Gradients(inputs={len(self.inputs)}, weights={list(self.weights)})"


@dataclass(frozen=True, eq=False)
class Copy:
    """A link that gives the values of a tensor another identity."""

    name: str = "copy"


@dataclass(frozen=True, eq=False)
class WeightRead:
    """A link in which a weight's value enters a chain of operations (see `chain/operations.py`)."""

    variable: Any


@dataclass(frozen=True, eq=False)
class Operation:
    """A link that is one TensorFlow operation (see `chain/operations.py`).

    Attributes:
        operation: the `tf.Operation`, or what stands for it where it ran eagerly: `type`, `inputs`, `outputs`, `get_attr`.
        variables: dict "input 0" -> `keras.Variable`, the wanted weights that it reads itself.
    """

    operation: Any
    variables: dict

    @property
    def name(self) -> Any:
        """The type of the operation."""
        return self.operation.type


class MissingRuleError(NotImplementedError):
    """The backward pass of something is unknown: neither this package nor TensorFlow has a gradient for it."""


def _shapes(tensors):
    return ", ".join(f"{getattr(x, 'shape', x)}" for x in tensors)
