"""The test of a rule is one call: `check_rule(case)`.

A case is a layer (or a function of `keras.ops`), inputs, and the arguments of the call. Everything a rule promises is
asserted, each promise with its own message.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import check_layer
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from keras_backprop.check.problem import LayerProblem


@dataclass
class Case:
    """One configuration of a layer or function.

    Attributes:
        name: str, the test's id.
        make: function without arguments that returns the layer (built or not), or a function of tensors.
        inputs: what the layer is called with: arrays, or shapes (tuples of ints, filled with normal random numbers).
        kwargs: dict, further arguments of the call.
        per_example: bool, whether weight gradients of single examples exist (not where batch statistics couple them).
        differences: bool, whether finite differences are compared (not for functions that are piecewise constant).
        prepare: function of the built layer, run once before the checks (to freeze a weight, to set statistics).
    """

    name: str
    make: Callable
    inputs: tuple = ((4, 5),)
    kwargs: dict = field(default_factory=dict)
    per_example: bool = True
    differences: bool = True
    prepare: Callable | None = None


class Function(keras.layers.Layer):
    """A layer without weights that calls a function of `keras.ops`."""

    def __init__(self, function):
        super().__init__(dtype="float64")
        self.function, self.graph = function, None

    def build(self, *shapes):
        self.built = True

    def call(self, *inputs):
        return self.function(*inputs) if self.graph is None else self.graph(list(inputs))

    def make_graph(self, inputs):
        """Call it as a Functional graph, for inputs like these; where Keras cannot, the function stays as it is."""
        flat = keras.tree.map_structure(
            lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype.name, sparse=isinstance(x, tf.SparseTensor)),
            inputs,
        )
        try:
            graph = keras.Model(list(flat), self.function(*flat))
            graph(list(inputs))
        except Exception:
            return
        self.graph = graph


def normal(*shape, seed=0):
    """Normal random numbers, away from 0 where most kinks are."""
    x = np.random.default_rng(seed).normal(size=shape)
    return np.where(np.abs(x) < 1e-2, 0.5, x)


def check_rule(case):
    """Assert everything that the rule of a layer promises, for one case."""
    keras.utils.set_random_seed(1)
    layer = case.make()
    if not isinstance(layer, keras.layers.Layer):
        layer = Function(layer)
    inputs = arrays(case.inputs)
    if isinstance(layer, Function):
        layer.make_graph(inputs)
        layer.built = True
    kwargs = {k: tf.convert_to_tensor(v) if isinstance(v, np.ndarray) else v for k, v in case.kwargs.items()}
    if not all(one.built for one in layer._flatten_layers()):
        layer(*inputs, **kwargs)
    randomize(layer)
    if case.prepare is not None:
        case.prepare(layer)

    check_layer(layer, *inputs, finite_differences=case.differences, **kwargs).raise_if_failed()

    problem = LayerProblem(layer, inputs, kwargs)
    assert_forward_is_the_layers_own(problem)
    assert_shapes_and_dtypes(problem)
    assert_zero_upstream_gives_zero(problem)
    assert_compiled_equals_eager(problem)
    if case.per_example and problem.weights:
        assert_per_example(problem)


def randomize(layer, seed=2):
    """Weights that are neither zeros nor ones, so that no gradient is zero by accident; variances stay positive."""
    random = np.random.default_rng(seed)
    for variable in layer.variables:
        if tf.as_dtype(variable.dtype).is_floating and variable.shape.rank:
            value = random.normal(0, 0.5, variable.shape) + (1.0 if "gamma" in variable.name else 0.0)
            variable.assign(np.abs(value) + 0.5 if "variance" in variable.name else value)


def assert_forward_is_the_layers_own(problem):
    """Recording changes neither the outputs nor the state that the layer leaves behind."""
    args, kwargs = problem.arguments
    with problem.scope() as scope:
        expected = problem.layer(*args, **kwargs)
        expected_state = [scope.get_current_value(v) for v in problem.layer.variables]
    with problem.scope() as scope:
        outputs = Record().run(problem.layer, *args, **kwargs)
        state = [scope.get_current_value(v) for v in problem.layer.variables]
    keras.tree.assert_same_structure(expected, outputs)
    for ours, theirs in zip(keras.tree.flatten(outputs), keras.tree.flatten(expected), strict=True):
        if tf.is_tensor(theirs):
            assert ours.dtype == theirs.dtype, f"output dtype {ours.dtype}, the layer's own is {theirs.dtype}"
            np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12, err_msg="forward pass")
    for variable, ours, theirs in zip(problem.layer.variables, state, expected_state, strict=True):
        if theirs is not None:
            np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12, err_msg=f"state {variable.path}")


def assert_shapes_and_dtypes(problem):
    for gradient, source in zip(*explicit(problem), strict=True):
        if gradient is not None:
            gradient = tf.convert_to_tensor(gradient)
            assert gradient.shape == source.shape, f"gradient of shape {gradient.shape} for {source.shape}"
            assert gradient.dtype == tf.float64, f"gradient of dtype {gradient.dtype} for float64"


def assert_zero_upstream_gives_zero(problem):
    for gradient in explicit(problem, factor=0.0)[0]:
        if gradient is not None:
            assert not np.any(tf.convert_to_tensor(gradient)), "zero upstream, but a gradient that is not zero"


def assert_compiled_equals_eager(problem):
    eager = explicit(problem)[0]
    sources = [problem.values[id(v)] for v in problem.weights] + problem.inputs

    @tf.function(autograph=False)
    def step():
        gradients = explicit(problem)[
            0
        ]  # where a loop does not use something, TensorFlow has zeros, and None without a loop
        return [tf.zeros_like(x) if g is None else _dense(g) for g, x in zip(gradients, sources, strict=True)]

    for a, b in zip(eager, step(), strict=True):
        a = tf.zeros_like(b) if a is None else _dense(a)
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11, err_msg="compiled against eager")


def assert_per_example(problem):
    """Gradients of single examples: against the tape one example at a time, their sum, their norms, a weighted sum."""
    record = Record()
    with problem.scope():
        upstream = problem.record(record)
        result = sweep(record.calls, upstream, problem.weights)
        n = keras.tree.flatten(problem.arguments)[0].shape[0]
        c = tf.constant(np.random.default_rng(5).uniform(0.1, 2.0, n))
        for variable in problem.weights:
            parts = result.parts.get(id(variable), [])
            if not parts:
                continue
            path = variable.path
            singles = sum(part.per_example() for part in parts)
            total = sum(_dense(part.total()) for part in parts)
            assert singles.shape == (n, *variable.shape), f"per-example gradients of {path} have shape {singles.shape}"
            np.testing.assert_allclose(
                tf.reduce_sum(singles, 0), total, rtol=1e-9, atol=1e-11, err_msg=f"sum over examples, {path}"
            )
            expected = tape_per_example(problem, variable, n)
            np.testing.assert_allclose(singles, expected, rtol=1e-8, atol=1e-10, err_msg=f"single examples, {path}")
            for part in parts:
                norms = tf.reduce_sum(tf.square(tf.reshape(part.per_example(), [n, -1])), 1)
                np.testing.assert_allclose(
                    part.squared_norms(), norms, rtol=1e-8, atol=1e-10, err_msg=f"squared norms, {path}"
                )
                weighted = tf.tensordot(c, part.per_example(), 1)
                np.testing.assert_allclose(
                    _dense(part.weighted_total(c)), weighted, rtol=1e-8, atol=1e-10, err_msg=f"weighted total, {path}"
                )


def tape_per_example(problem, variable, n):
    """The tape's gradient of each example's share of ⟨r, y⟩, for outputs whose first axis is the batch."""
    args, kwargs = problem.arguments
    value = tf.identity(problem.values[id(variable)])
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(value)
        with problem.scope({id(variable): value}):
            outputs = problem.layer(*args, **kwargs)
            shares = tf.add_n([tf.reduce_sum(tf.reshape(r * y, [n, -1]), 1) for y, r in problem._paired(outputs)])
    return tf.stack([_dense(tape.gradient(share, value)) for share in _unstacked(tape, shares, n)])


def _unstacked(tape, shares, n):
    with tape:
        return [shares[i] for i in range(n)]


def explicit(problem, factor=1.0):
    """The rules' gradients, and what they are gradients of."""
    record = Record()
    with problem.scope():
        upstream = [(y, r * tf.cast(factor, r.dtype)) for y, r in problem.record(record)]
        result = sweep(record.calls, upstream, problem.weights, problem.inputs)
        gradients = [result.gradient(v) for v in problem.weights]
        gradients += [result.input_gradient(x) for x in problem.inputs]
    return gradients, [problem.values[id(v)] for v in problem.weights] + problem.inputs


def _is_shape(x):
    return isinstance(x, tuple) and len(x) > 0 and all(isinstance(size, int) for size in x)


def arrays(x, seeds=None):
    """Shapes become random numbers, each others; arrays become tensors; lists, tuples and dicts stay."""
    seeds = itertools.count() if seeds is None else seeds
    if _is_shape(x):
        return tf.constant(normal(*x, seed=next(seeds)))
    if isinstance(x, dict):
        return {key: arrays(value, seeds) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return type(x)(arrays(value, seeds) for value in x)
    return tf.convert_to_tensor(x)


def _dense(x):
    return tf.convert_to_tensor(x)
