"""The rules of `rules/layers/merging.py`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.checking import Case, check_rule, normal

MERGING = {
    "add": layers.Add,
    "average": layers.Average,
    "multiply": layers.Multiply,
    "maximum": layers.Maximum,
    "minimum": layers.Minimum,
}
SHAPES = {
    "two": [(4, 3), (4, 3)],
    "three": [(4, 3, 2), (4, 3, 2), (4, 3, 2)],
    "broadcast": [(4, 3, 2), (4, 1, 2), (4, 3, 1)],
    "all-broadcast": [(4, 3, 1), (4, 1, 2)],
    "ranks": [(4, 2), (4, 3, 2)],
    "ranks-broadcast": [(4, 3, 5, 2), (4, 1), (4, 5, 1)],
    "ranks-of-one": [(4, 1, 2), (4, 2)],
}


def arrays(shapes):
    return [normal(*shape, seed=i) for i, shape in enumerate(shapes)]


CASES = [
    *(Case(f"{m}-{s}", MERGING[m], (arrays(SHAPES[s]),)) for m in MERGING for s in SHAPES),
    Case("one-input", layers.Add, (arrays([(4, 3)]),)),
    *(Case(f"subtract-{s}", layers.Subtract, (arrays(SHAPES[s]),)) for s in SHAPES if len(SHAPES[s]) == 2),
    Case("concatenate", layers.Concatenate, (arrays([(4, 3), (4, 2), (4, 1)]),)),
    Case("concatenate-axis", lambda: layers.Concatenate(axis=1), (arrays([(4, 3, 2), (4, 1, 2)]),)),
    Case("concatenate-negative", lambda: layers.Concatenate(axis=-2), (arrays([(4, 3, 2), (4, 1, 2)]),)),
    Case("multiply-with-zeros", layers.Multiply, ([np.array([[0.0, 1.0]]), np.array([[0.0, 0.0]]), np.array([[2.0, 3.0]])],)),
    Case("maximum-ties", layers.Maximum, ([np.ones((2, 3)), np.ones((2, 3)), np.ones((2, 1))],), differences=False),
    Case("minimum-ties", layers.Minimum, ([np.ones((2, 3)), np.ones((2, 3)), np.zeros((2, 1))],), differences=False),
]  # fmt: skip

DOT = [
    Case(f"dot-{i}-{'unit' if unit else 'plain'}", lambda axes=axes, unit=unit: layers.Dot(axes, normalize=unit), (arrays(shapes),))
    for i, (axes, shapes) in enumerate(
        [
            (1, [(4, 3), (4, 3)]),
            (-1, [(4, 3), (4, 3)]),
            (-1, [(4, 2, 3), (4, 3)]),
            ((1, 2), [(4, 3), (4, 2, 3)]),
            ((2, 1), [(4, 2, 3), (4, 3, 5)]),
            (1, [(4, 3, 2), (4, 3, 5)]),
            ((1, 1), [(4, 3, 2), (4, 3)]),
            ((2, 3), [(4, 2, 3), (4, 2, 5, 3)]),
            ((1, -1), [(2, 3, 2, 2), (2, 2, 3)]),
            ((3, 1), [(2, 2, 2, 3), (2, 3, 2, 2)]),
        ]
    )
    for unit in (False, True)
]  # fmt: skip


@pytest.mark.parametrize("case", CASES + DOT, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


def test_dot_of_a_zero_vector_is_finite():
    from keras_backprop.chain.record import Record
    from keras_backprop.chain.sweep import sweep

    a, b = tf.zeros([2, 3]), tf.ones([2, 3])
    record = Record()
    y = record.run(layers.Dot(-1, normalize=True), [a, b])
    result = sweep(record.calls, [(y, tf.ones_like(y))], inputs=[a, b])
    assert np.all(np.isfinite(result.input_gradient(a))) and np.all(np.isfinite(result.input_gradient(b)))


def masked(*masks):
    """Inputs with Keras masks; None for one without."""
    tensors = []
    for i, mask in enumerate(masks):
        x = tf.constant(normal(3, 4, 2, seed=i))
        if mask is not None:
            x._keras_mask = tf.constant(mask)
        tensors.append(x)
    return tensors


M1 = np.array([[1, 1, 0, 0], [0, 1, 0, 1], [1, 1, 1, 1]], bool)
M2 = np.array([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], bool)
MASKS = {"both": (M1, M2), "first": (M1, None), "second": (None, M2), "three": (M1, M2, M2), "middle": (M1, None, M2)}


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("name", [*MERGING, "concatenate"])
def test_masks(name, masks):
    layer = {**MERGING, "concatenate": layers.Concatenate}[name]()
    xs = masked(*MASKS[masks])
    from keras_backprop import check_layer
    from keras_backprop.chain.record import Record

    check_layer(layer, xs).raise_if_failed()
    record = Record()
    layer = type(layer)(dtype="float64")
    ours, theirs = record.run(layer, xs), layer(xs)
    np.testing.assert_array_equal(ours, theirs)
    ours, theirs = getattr(ours, "_keras_mask", None), getattr(theirs, "_keras_mask", None)
    assert (ours is None) == (theirs is None)
    if ours is not None:
        np.testing.assert_array_equal(ours, theirs)


def test_masked_branches_in_fit_equal_stock_keras():
    from keras_backprop import BackpropModel

    ids = np.array([[1, 2, 0], [3, 0, 0], [1, 1, 4], [0, 0, 0]])
    weights = []
    for cls in (keras.Model, BackpropModel):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((3,), dtype="int32")
        a = layers.Embedding(5, 2, mask_zero=True, dtype="float64")(inputs)
        b = layers.Embedding(5, 2, mask_zero=True, dtype="float64")(inputs)
        merged = [layers.Maximum(dtype="float64")([a, b]), layers.Multiply(dtype="float64")([a, b])]
        h = layers.Concatenate(dtype="float64")([*merged, layers.Add(dtype="float64")([a, b])])
        model = cls(inputs, layers.Dense(1, dtype="float64")(h))
        model.compile(keras.optimizers.SGD(0.1), keras.losses.MeanSquaredError(dtype="float64"))
        model.fit(ids, np.ones((4, 3, 1)), epochs=3, batch_size=4, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for stock, ours in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=0, atol=1e-12)
