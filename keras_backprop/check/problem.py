"""What is differentiated: a scalar error as a function of weights and inputs, evaluated in float64.

A problem can be evaluated by stock Keras and, through a record, by the rules. Each evaluation starts from the same state.
"""

import copy

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.check.float64 import StateForgotten, in_float64, values_of
from keras_backprop.objective import record_objective


class Problem:
    """Weights, inputs, and how to evaluate.

    Attributes:
        name: str, for the report.
        weights: list of the trainable `keras.Variable`s.
        values: dict `id(variable)` -> float64 tensor.
        inputs: list of the float64 input tensors.
        double: bool; where it is False, all of this is in the dtype that the layer and its inputs have.
    """

    def __init__(self, name, layer, arguments, double=True):
        self.name, self.double = name, double
        self.layer = layer
        quantized = [one for one in _keras.layers_in(layer) if getattr(one, "quantization_mode", None) is not None]
        if double and quantized:
            raise ValueError(
                f"The check computes in float64, and layer '{quantized[0].path}' is quantized "
                f"(quantization_mode={quantized[0].quantization_mode!r}). Check the layer by itself, with `check_layer`."
            )
        self.weights = [v for v in layer.trainable_variables if tf.as_dtype(_keras.dtype_of(v)).is_floating]
        self.values = values_of(layer.variables, double)
        self._assigned: dict = {}
        self.arguments = keras.tree.map_structure(_as_float64 if double else _apart, arguments)
        self.inputs = [x for x in keras.tree.flatten(self.arguments) if _is_float(x)]

    losses: tuple = ()
    holds_something_constant = False
    # Of the last record: the operations; what adds up to the error; the paths of links with a forward rule.
    links: list | tuple = ()
    terms: list | tuple = ()
    forward_rules: list | tuple = ()
    stock_error: float = float("nan")  # by the layers' own forward pass

    def scope(self, values=None):
        values = {**self.values, **(values or {})}
        if not self.double:
            return StateForgotten(values, self._assigned)
        return in_float64(self.layer, values, self.losses, self._assigned)

    def with_inputs(self, inputs):
        """The arguments with other values for the inputs."""
        replacements = iter(inputs)

        return keras.tree.map_structure(
            lambda x: _with_mask_of(x, next(replacements)) if _is_float(x) else x, self.arguments
        )

    def beside(self):
        """The same problem at a point nearby: every weight and input is moved by a thousandth of its tensor's scale."""
        random, problem = np.random.default_rng(2), copy.copy(self)

        def moved(tensor):
            width = max(1.0, float(tf.reduce_max(tf.abs(tensor)))) if tf.size(tensor) else 1.0
            return tensor + 1e-3 * width * random.uniform(-1, 1, size=tensor.shape)

        problem.values = {**self.values, **{id(v): moved(self.values[id(v)]) for v in self.weights}}
        problem.inputs = [moved(x) for x in self.inputs]
        problem.arguments = self.with_inputs(problem.inputs)
        problem._assigned = {}
        return problem

    def error(self, inputs):
        """The error by stock Keras. Call it inside `scope()`."""
        raise NotImplementedError

    def record(self, record):
        """Run through `record`; returns the upstream gradients. Call it inside `scope()`."""
        raise NotImplementedError


class LayerProblem(Problem):
    """⟨r, y⟩ for a layer's outputs y and fixed random r, plus what the layer adds as losses."""

    def __init__(self, layer, args, kwargs, double=True):
        super().__init__(f"{type(layer).__name__} '{layer.path or layer.name}'", layer, (args, kwargs), double)
        self._random = np.random.default_rng(20_240_607)  # unlike the seeds of people's inputs
        self._weights_of_outputs: list | None = None

    def error(self, inputs):
        args, kwargs = self.with_inputs(inputs)
        scope = _keras.current_stateless_scope()
        outputs = self.layer(*args, **kwargs)
        pairs = [(tf.cast(y, tf.float64), tf.cast(r, tf.float64)) for y, r in self._paired(outputs)]
        total = tf.add_n([tf.reduce_sum(r * y) for y, r in pairs])
        for loss in scope.losses:
            total += tf.reduce_sum(tf.cast(loss, total.dtype))
        return total

    def record(self, record):
        args, kwargs = self.arguments
        scope = _keras.current_stateless_scope()
        outputs = record.run(self.layer, *args, **kwargs)
        return [*self._paired(outputs), *((loss, tf.ones_like(loss)) for loss in scope.losses)]

    def _paired(self, outputs):
        """(y, r) for every floating-point output; r is drawn once."""
        outputs = [y for y in map(_as_tensor, keras.tree.flatten(outputs)) if _is_float(y)]
        if not outputs:
            raise ValueError(f"{self.name} has no floating-point output: there is nothing to differentiate.")
        if self._weights_of_outputs is None:
            self._weights_of_outputs = [self._random.normal(size=y.shape) for y in outputs]
        return [(y, tf.constant(r, y.dtype)) for y, r in zip(outputs, self._weights_of_outputs, strict=True)]


class ModelProblem(Problem):
    """The compiled loss of a model on one batch."""

    def __init__(self, model, x, y, sample_weight):
        super().__init__(f"model '{model.name}'", model, x)
        self.y = keras.tree.map_structure(_as_float64, y)
        self.sample_weight = keras.tree.map_structure(_as_float64, sample_weight)
        compiled = _keras.compiled_loss(model)
        self.losses = () if compiled is None else (compiled, *_keras.losses_of(compiled))

    def error(self, inputs):
        x, model = self.with_inputs(inputs), self.layer
        y_pred = model(x, **self._training())
        return tf.reduce_sum(
            _keras.compute_loss(model, x=x, y=self.y, y_pred=y_pred, sample_weight=self.sample_weight, training=True)
        )

    def record(self, record):
        y_pred = record.run(self.layer, self.arguments, **self._training())
        return record_objective(self.layer, record, self.arguments, self.y, y_pred, self.sample_weight).upstream

    def _training(self):
        return _keras.training_argument(self.layer, True)


def _as_tensor(x):
    return tf.convert_to_tensor(x) if isinstance(x, (np.ndarray, np.generic, keras.Variable)) else x


def _apart(x):
    """A tensor with an identity of its own: two inputs may be given the same."""
    x = _as_tensor(x)
    return _with_mask_of(x, tf.identity(x)) if _is_float(x) else x


def _as_float64(x):
    x = _apart(x)
    if isinstance(x, tf.SparseTensor):
        return tf.cast(x, tf.float64) if x.dtype.is_floating else x
    return _with_mask_of(x, tf.cast(x, tf.float64)) if _is_float(x) else x


def _with_mask_of(x, y):
    """Another tensor y in the place of x, with its mask."""
    mask = _keras.get_keras_mask(x)
    if mask is not None and y is not x:
        _keras.set_keras_mask(y, mask)
    return y


def _is_float(x):
    """Whether x is a dense tensor of floating-point numbers: what has a gradient."""
    return tf.is_tensor(x) and x.dtype.is_floating and not isinstance(x, (tf.SparseTensor, tf.RaggedTensor))
