"""The rules of `rules/layers/batch_normalization.py`."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_backprop.rules.layers.batch_normalization as rules
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, check_rule, normal

TRAINING = {"training": True}
MASK = np.array([[True, True, False], [True, False, False], [True, True, True], [False, False, False]])
RENORM = {"rmin": 0.5, "rmax": 1.5, "dmax": 0.5}


@pytest.fixture
def kernel(monkeypatch):
    """TensorFlow's kernel for few numbers, too."""
    monkeypatch.setattr(rules, "_LARGE", 0)


def freeze(layer):
    layer.trainable = False


def scale_that_nobody_asked_for(layer):
    layer.gamma = tf.constant([3.0, 2.0, 1.0], tf.float64)


def case(name, inputs=((6, 3),), prepare=None, training=True, **options):
    """In training there are no gradients of single examples (see below), and the corrections of renorm count as constants."""
    call = options.pop("call", {})
    return Case(
        f"{name}-{'training' if training else 'inference'}",
        lambda: layers.BatchNormalization(**options),
        inputs,
        {"training": training, **call},
        per_example=not training or prepare is freeze,
        differences=not (training and options.get("renorm")),
        prepare=prepare,
    )


CASES = [
    case(name, inputs, training=training, **options)
    for training in (True, False)
    for name, inputs, options in [
        ("dense", ((6, 3),), {}),
        ("positions", ((4, 3, 2),), {}),
        ("image", ((3, 2, 4, 2),), {}),
        ("volume", ((2, 2, 3, 2, 2),), {}),
        ("channels-first", ((3, 2, 4, 3),), {"axis": 1}),
        ("middle-axis", ((3, 2, 4, 3),), {"axis": -2}),
        ("no-scale", ((6, 3),), {"scale": False}),
        ("no-scale-heeded", ((6, 3),), {"scale": False, "prepare": scale_that_nobody_asked_for}),
        ("no-center", ((6, 3),), {"center": False}),
        ("neither", ((6, 3),), {"scale": False, "center": False}),
        ("momentum-epsilon", ((6, 3),), {"momentum": 0.5, "epsilon": 0.1}),
        ("synchronized", ((4, 3, 2),), {"synchronized": True}),
        ("renorm", ((6, 3),), {"renorm": True}),
        ("renorm-clipped", ((6, 3),), {"renorm": True, "renorm_clipping": RENORM}),
        ("renorm-no-scale", ((6, 3),), {"renorm": True, "scale": False, "center": False}),
        ("mask", ((4, 3, 2),), {"call": {"mask": MASK}}),
        ("mask-one-channel", ((4, 3, 1),), {"call": {"mask": MASK}}),
        ("mask-of-numbers", ((4, 3, 2),), {"call": {"mask": MASK.astype("float32")}}),
    ]
] + [
    case("frozen", prepare=freeze),
    case("frozen-image", ((3, 2, 4, 2),), prepare=freeze),
    case("axis-0", ((4, 3),), axis=0),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


def gradients(layer, x, **kwargs):
    """(y, [dx, dW …], the moving statistics) by the rules and by the tape, from the same state."""
    layer(x)
    start = [tf.identity(v.value) for v in layer.variables]
    dy = tf.cast(normal(*x.shape, seed=3), layer.compute_dtype)
    results = []
    for explicit in (True, False):
        for variable, value in zip(layer.variables, start, strict=True):
            variable.assign(value)
        with tf.GradientTape() as tape:
            tape.watch(x)
            if explicit:
                record = Record()
                y = record.run(layer, x, **kwargs)
            else:
                y = layer(x, **kwargs)
        if explicit:
            result = sweep(record.calls, [(y, dy)], layer.trainable_variables, [x])
            found = [result.input_gradient(x), *(result.gradient(v) for v in layer.trainable_variables)]
        else:
            found = tape.gradient(y, [x, *(v.value for v in layer.trainable_variables)], dy)
        results.append((y, found, [tf.identity(v.value) for v in layer.non_trainable_variables]))
    return results


@pytest.mark.parametrize("shape", [(8, 5), (4, 6, 5), (3, 4, 4, 5), (2, 3, 2, 2, 5)], ids=str)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}], ids=str)
@pytest.mark.parametrize("compiled", [False, True])
def test_the_fused_kernel_agrees_with_stock_keras_in_single_precision(shape, options, compiled, kernel):
    layer = layers.BatchNormalization(**options)
    x = tf.constant(3 + 2 * normal(*shape), tf.float32)
    run = lambda: gradients(layer, x, training=True)  # noqa: E731
    layer(x)
    (y, ours, state), (stock_y, theirs, stock_state) = tf.function(run)() if compiled else run()
    np.testing.assert_allclose(y, stock_y, atol=2e-6)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)
    for a, b in zip(state, stock_state, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("large", [0, rules._LARGE], ids=["kernel", "composed"])
@pytest.mark.parametrize("policy, tolerance", [("mixed_float16", 4e-3), ("mixed_bfloat16", 3e-2)])
def test_mixed_precision(policy, tolerance, large, monkeypatch):
    monkeypatch.setattr(rules, "_LARGE", large)
    layer = layers.BatchNormalization(dtype=policy)
    x = tf.cast(normal(4, 3, 3, 2), layer.compute_dtype)
    (y, ours, state), (stock_y, theirs, stock_state) = gradients(layer, x, training=True)
    assert y.dtype == stock_y.dtype and [g.dtype for g in ours] == [g.dtype for g in theirs]
    np.testing.assert_allclose(tf.cast(y, "float32"), tf.cast(stock_y, "float32"), atol=tolerance)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(tf.cast(a, "float32"), tf.cast(b, "float32"), atol=4 * tolerance)
    for a, b in zip(state, stock_state, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sizes, large", [((32, 64), False), ((64, 32, 32, 3), True), ((None, 64), False)], ids=str)
def test_the_kernel_is_for_many_numbers(sizes, large):
    """To start it takes longer than passing over a few thousand numbers."""
    layer = layers.BatchNormalization()
    layer.build(sizes)
    found = []

    @tf.function(input_signature=[tf.TensorSpec(sizes)])
    def step(x):
        record = Record()
        record.run(layer, x, training=True)
        found.extend("reserve" in call.saved for call in record.calls)

    step.get_concrete_function()
    assert found == [large]


def test_the_unknown_batch_size_of_a_compiled_step(kernel):
    layer = layers.BatchNormalization()
    layer.build((None, 4, 3))

    @tf.function(input_signature=[tf.TensorSpec([None, 4, 3])])
    def step(x):
        record = Record()
        y = record.run(layer, x, training=True)
        result = sweep(record.calls, [(y, tf.ones_like(y))], layer.trainable_variables, [x])
        return y, result.input_gradient(x), result.gradient(layer.beta)

    y, dx, dbeta = step(tf.constant(normal(5, 4, 3), tf.float32))
    assert y.shape == dx.shape == (5, 4, 3)
    np.testing.assert_allclose(dbeta, 20.0)


def test_there_are_no_gradients_of_single_examples_in_training_and_the_error_says_why():
    for x in (tf.ones([4, 3]), tf.ones([4, 3], tf.float64)):
        layer = layers.BatchNormalization(dtype=x.dtype.name)
        layer(x)
        record = Record()
        y = record.run(layer, x, training=True)
        result = sweep(record.calls, [(y, y)], layer.trainable_variables)
        for variable in layer.trainable_variables:
            with pytest.raises(ValueError, match="batch couple its examples"):
                result.parts[id(variable)][0].per_example()


def test_a_mask_of_the_wrong_rank_is_keras_own_error():
    layer = layers.BatchNormalization()
    x = tf.ones([4, 3, 2])
    layer(x)
    with pytest.raises(ValueError, match="one dimension less"):
        Record().run(layer, x, training=True, mask=tf.ones([4], tf.bool))


REPLICAS = """
import keras, numpy as np, tensorflow as tf
from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
random = np.random.default_rng(0)
x, dy = random.normal(size=(8, 3)), random.normal(size=(8, 3))


def step(layer, x, dy):
    record = Record()
    y = record.run(layer, x, training=True)
    result = sweep(record.calls, [(y, dy)], layer.trainable_variables, [x])
    return [y, result.input_gradient(x)], [result.gradient(v) for v in layer.trainable_variables]


def values(array):
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(np.split(array, 2)[context.replica_id_in_sync_group])
    )


with strategy.scope():
    layer = keras.layers.BatchNormalization(synchronized=True, dtype="float64")
    layer.build((None, 3))
whole = keras.layers.BatchNormalization(dtype="float64")
whole.build((None, 3))
tensors, weights = tf.function(lambda x, dy: strategy.run(lambda x, dy: step(layer, x, dy), (x, dy)))(values(x), values(dy))
expected, expected_weights = step(whole, tf.constant(x), tf.constant(dy))
local = strategy.experimental_local_results
for ours, theirs in zip(tensors, expected, strict=True):
    np.testing.assert_allclose(tf.concat(local(ours), 0), theirs, rtol=1e-9, atol=1e-12)
for ours, theirs in zip(weights, expected_weights, strict=True):
    np.testing.assert_allclose(sum(local(ours)), theirs, rtol=1e-9, atol=1e-12)
np.testing.assert_allclose(layer.moving_variance.value, whole.moving_variance.value, rtol=1e-9)
print("agreed")
"""


@pytest.mark.slow
def test_synchronized_statistics_are_those_of_all_replicas():
    """Two replicas with half the batch each are one layer with the whole; a process of its own, for its two devices."""
    result = subprocess.run([sys.executable, "-c", REPLICAS], capture_output=True, text=True)
    assert "agreed" in result.stdout, result.stderr[-3000:]
