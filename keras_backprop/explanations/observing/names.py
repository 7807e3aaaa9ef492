"""Which letter stands for which tensor and weight, in the notation of the worked example.

x is an input, z what the activation of a dense layer or a convolution is applied to, a what it gives; layers are counted in the
order they run. y is the output of any other link, e the errors of the examples, R a penalty, T the targets. W and b are weights,
D and P those of a separable convolution, U is that of the step before, γ and β are scale and shift, α is the slope below 0 of
PReLU (He et al., "Delving deep into rectifiers", 2015), C is a table (Bengio et al., "A neural probabilistic language model",
2003).
"""

import math

import keras

from keras_backprop.explanations.observing.link import Symbol
from keras_backprop.rule import Operation, WeightRead


class Names:
    """The symbols of one record.

    Args:
        calls: list of `Call`, in the order they ran.
        kinds: list of their kinds.
        inputs: the model's input tensors.
        targets: the targets.
        turns: dict, id of a `Call` that only turns axes around -> itself (see `repeated.py`).
    """

    def __init__(self, calls, kinds, inputs, targets=(), turns=()):
        self._tensors: dict = {}
        self._weights: dict = {}
        self._losses = sum(kind == "loss" for kind in kinds)
        self._counts: dict = {}
        for position, x in enumerate(inputs, start=1):
            self._tensors[id(x)] = Symbol("x", position if len(inputs) > 1 else None)
        recurrent = sum(isinstance(getattr(call.op, "cell", None), _CELLS) for call in calls)
        self._in_time, self._several_in_time = recurrent > 0, recurrent > 1
        self._several_attentions = sum(attention_role(call.op, call.path) == "Q" for call in calls) > 1
        self._tables = len({id(call.op.embeddings) for call in calls if isinstance(call.op, keras.layers.Embedding)})
        self._targets, self._turns = {id(t) for t in targets}, turns
        self._one_target = len(self._targets) == 1 and self._losses <= 1
        for call, kind in zip(calls, kinds, strict=True):
            self._name_outputs(call, kind)

    def of(self, tensor):
        """The symbol of a tensor; None for a constant."""
        if id(tensor) in self._targets and self._one_target:
            return self._tensors.get(id(tensor), Symbol("T"))
        return self._tensors.get(id(tensor))

    def of_weight(self, variable):
        """The symbol of a weight: w₂ or W₂ and b₂ for a dense layer's, the path for others."""
        return self._weights.get(id(variable), Symbol(variable.path))

    def _name_outputs(self, call, kind):
        """Name what a link gives, and the weights in it."""
        if isinstance(call.op, WeightRead):
            self._tensors[id(call.output)] = self.of_weight(call.op.variable)
            return
        if is_conversion(call.op) or id(call) in self._turns:
            known = self.of(call.input)
            if known is not None:  # the same quantity, in another dtype or shape
                self._tensors.setdefault(id(call.output), known)
            return
        if isinstance(call.op, keras.layers.Activation) and id(call.input) in self._tensors:
            self._tensors[id(call.output)] = self._tensors[id(call.input)]  # its function is the next link
            return
        if kind == "loss" and id(call.input) not in self._tensors:
            self._tensors[id(call.input)] = Symbol("T", self._next("T") if self._losses > 1 else None)
        role = attention_role(call.op, call.path)
        if is_affine(call) and not role:
            layer = self._next("z")
            self._tensors[id(call.output)] = Symbol("z", layer, self._in_time)
            self._name_weights(call.op, _OF_PRODUCTS, layer)
        elif hasattr(getattr(call.op, "cell", None), "recurrent_kernel"):
            self._name_recurrent(call)
        elif role:
            self._name_projection(call, kind, role)
        else:
            self._name_by_kind(call, kind)

    def _name_recurrent(self, call):
        layer = self._next("z")
        self._name_weights(call.op.cell, _OF_CELLS, layer)
        for position, output in enumerate(call.outputs):
            if position > 0:
                self._tensors[id(output)] = Symbol("s", self._next("s"))
            elif len(output.shape) == 2 and not self._several_in_time:  # that of the last step
                self._tensors[id(output)] = Symbol("h", int(call.input.shape[1]))
            else:
                self._tensors[id(output)] = Symbol("h", layer, above=True)

    def _name_projection(self, call, kind, role):
        """Of multi-head attention: Q, K and V; what the last one gives is an output like others."""
        number = self._next(role) if self._several_attentions else None
        self._weights.setdefault(id(call.op.kernel), Symbol("W", number, role=role))
        if call.op.bias is not None:
            self._weights.setdefault(id(call.op.bias), Symbol("b", number, role=role))
        if role == "O":
            self._name_by_kind(call, kind)
        else:
            self._tensors[id(call.output)] = Symbol(role, number)

    def _name_by_kind(self, call, kind):
        source = self._tensors.get(id(call.inputs[0])) if call.inputs else None
        for output in call.outputs:
            function = kind == "activation" or isinstance(call.op, _ACTIVATION_LAYERS)
            if function and source is not None and source.letter == "z":
                symbol = Symbol("a", source.subscript, source.above)
            else:
                letter = "e" if kind == "loss" else "R" if kind == "regularizer" else "y"
                symbol = Symbol(letter, self._next(letter))
            self._tensors[id(output)] = symbol
        if isinstance(call.op, keras.layers.Embedding) and id(call.op.embeddings) not in self._weights:
            self._weights[id(call.op.embeddings)] = Symbol("C", self._next("C") if self._tables > 1 else None)
        if isinstance(call.op, keras.layers.PReLU) and id(call.op.alpha) not in self._weights:
            self._name_weights(call.op, _OF_UNITS, self._next("α"))  # of its own count: a₁ and y₁ may both be of one
        elif isinstance(call.op, (*_NORMALISING, keras.layers.AdditiveAttention)):
            self._name_weights(call.op, _OF_UNITS, self._tensors[id(call.output)].subscript)

    def _name_weights(self, owner, letters, layer):
        for name, letter in letters.items():
            variable = getattr(owner, name, None)
            if isinstance(variable, keras.Variable):  # `scale` of some layers says whether there is one
                matrix = len(variable.shape) > 1 and math.prod(variable.shape) > 1
                self._weights.setdefault(id(variable), Symbol(letter if matrix else letter.lower(), layer))

    def _next(self, letter):
        self._counts[letter] = self._counts.get(letter, 0) + 1
        return self._counts[letter]


_OF_PRODUCTS = {"kernel": "W", "depthwise_kernel": "D", "pointwise_kernel": "P", "bias": "b"}
_OF_CELLS = {"kernel": "W", "recurrent_kernel": "U", "bias": "b"}
_OF_UNITS = {"gamma": "γ", "scale": "γ", "beta": "β", "alpha": "α"}
"""Attribute of a layer -> the letter of the weight."""

_NORMALISING = (
    keras.layers.BatchNormalization, keras.layers.LayerNormalization, keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
)  # fmt: skip
_CELLS = (keras.layers.SimpleRNNCell, keras.layers.LSTMCell, keras.layers.GRUCell)
_ACTIVATION_LAYERS = (
    keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU, keras.layers.Softmax, keras.layers.PReLU,
)  # fmt: skip


_ROLES = {"query": "Q", "key": "K", "value": "V", "attention_output": "O"}


def attention_role(op, path):
    """Q, K, V or O, if a link is one of the projections of multi-head attention; else ""."""
    parent, _, part = (path or "").rpartition("/")
    return _ROLES.get(part, "") if parent and isinstance(op, keras.layers.EinsumDense) else ""


def is_conversion(op):
    """Whether a link is an operation that changes a tensor's dtype or shape and not its values."""
    return isinstance(op, Operation) and op.name in ("Cast", "ExpandDims", "Identity", "Reshape", "Squeeze")


def is_affine(call):
    """Whether a call is z = x·W + b, of all units or of windows, with its activation as the next link."""
    recurrent = hasattr(call.op, "cell")
    return isinstance(call.op, keras.layers.Layer) and not recurrent and call.rule is not None and call.rule.activation
