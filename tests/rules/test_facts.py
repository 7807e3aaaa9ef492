"""What rules say of themselves is true: which of x and y they read, and that a row of the output is one row's affair."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import activations, layers

from keras_backprop import registry
from keras_backprop.registry import rule_for
from keras_backprop.rule import Call
from tests.grid import cases as grid
from tests.rules.test_activations import NAMES

RULES = registry.registered()


@pytest.mark.parametrize("name", [n for n in NAMES if rule_for(getattr(activations, n)).needs == "y"])
def test_what_needs_only_y_does_not_read_x(name):
    function, x = getattr(activations, name), tf.constant([[-2.0, -0.3, 0.4, 3.0]])
    y = function(x)
    defaults = {"negative_slope": 0.0, "max_value": None, "threshold": 0.0, "alpha": 1.0}
    backward = rule_for(function).backward
    expected, got = (
        backward(Call(function, (z,), (y,), defaults), tf.ones_like(y)).inputs[0] for z in (x, x * float("nan"))
    )
    np.testing.assert_array_equal(got, expected)


def test_what_a_compiled_recurrence_does_not_keep():
    """Of LSTM and GRU with their usual activations, z is not kept."""
    usual = (activations.sigmoid, activations.tanh, activations.relu, activations.linear)
    assert {rule_for(function).needs for function in usual} == {"y"}
    assert rule_for(activations.silu).needs == "xy"


def test_a_row_is_a_matter_of_the_same_row():
    """Another first example changes the first row alone, and a second call gives the same."""
    classes = {key for key, rule in RULES.items() if rule.rowwise and key is not layers.InputLayer}
    assert len(classes) > 40
    seen = set()
    for family in (grid.core, grid.convolutions, grid.pooling, grid.normalization, _others):
        for case in family():
            kind = getattr(layers, case.kind, None)
            if kind not in classes or kind in seen:
                continue
            seen.add(kind)
            layer, x = case.make(), case.inputs[0]
            x = np.random.default_rng(0).normal(size=x).astype("float32") if isinstance(x, tuple) else np.array(x)
            other = x.copy()
            other[0] = x[1]
            first, again, changed = (np.asarray(layer(a, training=True)) for a in (x, x, other))
            np.testing.assert_array_equal(first, again, err_msg=case.name)
            np.testing.assert_array_equal(first[1:], changed[1:], err_msg=case.name)
            assert np.any(first[0] != changed[0]), case.name
    assert classes <= seen, [kind.__name__ for kind in classes - seen]


def _others():
    options = {
        "ELU": {}, "LeakyReLU": {}, "ReLU": {}, "Identity": {}, "Flatten": {}, "Rescaling": {"scale": [0.5]},
        "Permute": {"dims": [(2, 1)]}, "Reshape": {"target_shape": [(8,)]}, "PReLU": {},
    }  # fmt: skip
    for name, config in options.items():
        yield from grid.grid(getattr(layers, name), (3, 4, 2), **config)
    yield from grid.grid(layers.RepeatVector, (3, 4), n=[2])
    for rank, sizes in ((1, (7,)), (2, (6, 5)), (3, (4, 3, 5))):
        for name in ("ZeroPadding", "Cropping", "UpSampling"):
            yield from grid.grid(getattr(layers, f"{name}{rank}D"), (3, *sizes, 2))
    yield from grid.grid(layers.Cropping3D, (3, 4, 4, 4, 2))


def test_a_subclass_that_changes_something_has_no_facts():
    class Noisy(layers.Dense):
        def call(self, inputs):
            return super().call(inputs) + keras.random.normal(())

    assert rule_for(layers.Dense).rowwise
    assert rule_for(Noisy(2)) is None
