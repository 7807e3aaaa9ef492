"""The rules of `rules/layers/convolutional.py`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop.chain.record import Record
from keras_backprop.chain.sweep import sweep
from tests.checking import Case, check_rule

LINE, IMAGE, VOLUME = ((3, 9, 4),), ((3, 7, 6, 4),), ((2, 5, 4, 5, 4),)
FIRST = {"data_format": "channels_first"}
# Keras runs these with channels first on a CPU; others it refuses there.
IMAGE_FIRST, LINE_FIRST, VOLUME_FIRST = ((3, 4, 7, 6),), ((3, 4, 9),), ((2, 4, 5, 4, 5),)

CONV = [
    Case("line", lambda: layers.Conv1D(3, 3), LINE),
    Case("line-same", lambda: layers.Conv1D(3, 4, padding="same"), LINE),
    Case("line-same-strides", lambda: layers.Conv1D(3, 3, strides=2, padding="same"), LINE),
    Case("line-strides-leave-a-rest", lambda: layers.Conv1D(3, 2, strides=3), LINE),
    Case("line-causal", lambda: layers.Conv1D(3, 3, padding="causal"), LINE),
    Case("line-causal-strides", lambda: layers.Conv1D(3, 3, padding="causal", strides=2), LINE),
    Case("line-causal-dilated", lambda: layers.Conv1D(3, 3, padding="causal", dilation_rate=2), LINE),
    Case("line-dilated", lambda: layers.Conv1D(3, 3, dilation_rate=3), LINE),
    Case("line-same-dilated", lambda: layers.Conv1D(3, 2, padding="same", dilation_rate=2), LINE),
    Case("line-groups", lambda: layers.Conv1D(6, 3, groups=2), LINE),
    Case("line-groups-causal-dilated", lambda: layers.Conv1D(6, 2, groups=2, padding="causal", dilation_rate=2), LINE),
    Case("line-groups-channels-first", lambda: layers.Conv1D(6, 3, groups=2, **FIRST), LINE_FIRST),
    Case("line-activation-no-bias", lambda: layers.Conv1D(3, 3, activation="tanh", use_bias=False), LINE),
    Case("image", lambda: layers.Conv2D(3, (3, 2)), IMAGE),
    Case("image-pointwise", lambda: layers.Conv2D(3, 1), IMAGE),
    Case("image-whole", lambda: layers.Conv2D(3, (7, 6)), IMAGE),
    Case("image-same", lambda: layers.Conv2D(3, (3, 2), padding="same", activation="sigmoid"), IMAGE),
    Case("image-strides", lambda: layers.Conv2D(3, 3, strides=(2, 1)), IMAGE),
    Case("image-same-strides", lambda: layers.Conv2D(3, 3, strides=(2, 3), padding="same"), IMAGE),
    Case("image-strides-above-kernel", lambda: layers.Conv2D(3, 1, strides=2, use_bias=False), IMAGE),
    Case("image-dilated", lambda: layers.Conv2D(3, 2, dilation_rate=(3, 2)), IMAGE),
    Case("image-same-dilated", lambda: layers.Conv2D(3, 3, dilation_rate=(1, 2), padding="same"), IMAGE),
    Case("image-groups", lambda: layers.Conv2D(8, 3, groups=4, padding="same"), IMAGE),
    Case("image-groups-strides", lambda: layers.Conv2D(4, 3, groups=2, strides=2, activation="relu"), IMAGE),
    Case("image-groups-dilated", lambda: layers.Conv2D(4, 2, groups=2, dilation_rate=2), IMAGE),
    Case("image-groups-channels-first", lambda: layers.Conv2D(4, 2, groups=2, padding="same", **FIRST), IMAGE_FIRST),
    Case("volume", lambda: layers.Conv3D(3, 2), VOLUME),
    Case("volume-same-strides", lambda: layers.Conv3D(3, (2, 1, 3), strides=(1, 2, 2), padding="same"), VOLUME),
    Case("volume-dilated", lambda: layers.Conv3D(3, 2, dilation_rate=(2, 1, 3)), VOLUME),
    Case("volume-same-dilated", lambda: layers.Conv3D(3, (3, 2, 2), dilation_rate=2, padding="same"), VOLUME),
    Case("volume-groups", lambda: layers.Conv3D(4, 2, groups=2, use_bias=False), VOLUME),
    Case("volume-channels-first", lambda: layers.Conv3D(3, 2, strides=2, **FIRST), VOLUME_FIRST),
    Case("volume-channels-first-dilated", lambda: layers.Conv3D(2, 2, dilation_rate=2, **FIRST), VOLUME_FIRST),
    # Here the last axis of the output has as many numbers as the bias, and Keras adds the bias along the last axis.
    Case("volume-channels-first-as-wide", lambda: layers.Conv3D(3, 2, dilation_rate=2, **FIRST), VOLUME_FIRST),
]

DEPTHWISE = [
    Case("line", lambda: layers.DepthwiseConv1D(3), LINE),
    Case("line-multiplier", lambda: layers.DepthwiseConv1D(3, depth_multiplier=2, padding="same", strides=2), LINE),
    Case("line-dilated", lambda: layers.DepthwiseConv1D(2, dilation_rate=3, activation="tanh"), LINE),
    Case("line-dilated-strides", lambda: layers.DepthwiseConv1D(3, dilation_rate=2, strides=2, padding="same"), LINE),
    Case("line-channels-first", lambda: layers.DepthwiseConv1D(3, dilation_rate=2, **FIRST), LINE_FIRST),
    Case("image", lambda: layers.DepthwiseConv2D((3, 2)), IMAGE),
    Case("image-no-bias", lambda: layers.DepthwiseConv2D(3, use_bias=False, depth_multiplier=3), IMAGE),
    Case("image-same-strides", lambda: layers.DepthwiseConv2D(3, strides=2, padding="same"), IMAGE),
    Case("image-dilated", lambda: layers.DepthwiseConv2D(2, dilation_rate=(2, 3), padding="same"), IMAGE),
    Case(
        "image-dilated-strides",
        lambda: layers.DepthwiseConv2D(3, dilation_rate=(1, 2), strides=(2, 3), padding="same", depth_multiplier=2),
        IMAGE,
    ),
    Case("image-dilated-strides-valid", lambda: layers.DepthwiseConv2D(2, dilation_rate=3, strides=2), IMAGE),
    Case("image-channels-first", lambda: layers.DepthwiseConv2D(3, activation="elu", **FIRST), IMAGE_FIRST),
    Case("image-channels-first-dilated", lambda: layers.DepthwiseConv2D(2, dilation_rate=2, **FIRST), IMAGE_FIRST),
]

SEPARABLE = [
    Case("line", lambda: layers.SeparableConv1D(3, 3), LINE),
    Case(
        "line-same-multiplier-strides",
        lambda: layers.SeparableConv1D(3, 3, padding="same", depth_multiplier=2, strides=2),
        LINE,
    ),
    Case("line-dilated", lambda: layers.SeparableConv1D(3, 3, dilation_rate=2, activation="tanh"), LINE),
    Case("line-dilated-strides", lambda: layers.SeparableConv1D(3, 2, dilation_rate=2, strides=2), LINE),
    Case("line-channels-first", lambda: layers.SeparableConv1D(3, 3, padding="same", **FIRST), LINE_FIRST),
    Case("image", lambda: layers.SeparableConv2D(3, (3, 2)), IMAGE),
    Case("image-no-bias", lambda: layers.SeparableConv2D(5, 3, use_bias=False, depth_multiplier=2), IMAGE),
    Case("image-same-strides", lambda: layers.SeparableConv2D(3, 3, strides=2, padding="same"), IMAGE),
    Case("image-dilated", lambda: layers.SeparableConv2D(3, 2, dilation_rate=(2, 3), activation="relu"), IMAGE),
    Case(
        "image-dilated-strides",
        lambda: layers.SeparableConv2D(3, 3, dilation_rate=2, strides=(2, 3), padding="same"),
        IMAGE,
    ),
    Case("image-channels-first", lambda: layers.SeparableConv2D(3, 3, **FIRST), IMAGE_FIRST),
    Case("image-channels-first-as-wide", lambda: layers.SeparableConv2D(4, 3, **FIRST), IMAGE_FIRST),
    Case(
        "image-channels-first-dilated-strides",
        lambda: layers.SeparableConv2D(3, 2, strides=2, dilation_rate=2, **FIRST),
        IMAGE_FIRST,
    ),
]

TRANSPOSE = [
    Case("line", lambda: layers.Conv1DTranspose(3, 3), LINE),
    Case("line-strides", lambda: layers.Conv1DTranspose(3, 2, strides=3, activation="tanh"), LINE),
    Case("line-same", lambda: layers.Conv1DTranspose(3, 4, strides=2, padding="same"), LINE),
    Case("line-output-padding", lambda: layers.Conv1DTranspose(3, 3, strides=3, output_padding=1), LINE),
    Case("image", lambda: layers.Conv2DTranspose(3, (3, 2)), IMAGE),
    Case("image-no-bias", lambda: layers.Conv2DTranspose(3, 2, use_bias=False), IMAGE),
    Case("image-strides", lambda: layers.Conv2DTranspose(3, 3, strides=(2, 3)), IMAGE),
    Case("image-same", lambda: layers.Conv2DTranspose(3, 3, strides=2, padding="same", activation="relu"), IMAGE),
    Case(
        "image-same-output-padding",
        lambda: layers.Conv2DTranspose(3, 3, strides=(2, 3), padding="same", output_padding=(0, 2)),
        IMAGE,
    ),
    Case("image-output-padding", lambda: layers.Conv2DTranspose(3, 2, strides=3, output_padding=(2, 1)), IMAGE),
    Case("volume", lambda: layers.Conv3DTranspose(3, 2), VOLUME),
    Case("volume-same", lambda: layers.Conv3DTranspose(2, 3, strides=(1, 2, 2), padding="same"), VOLUME),
    Case("volume-output-padding", lambda: layers.Conv3DTranspose(2, 2, strides=2, output_padding=1), VOLUME),
]


@pytest.mark.sample(14)
@pytest.mark.parametrize("case", CONV, ids=lambda case: case.name)
def test_conv(case):
    check_rule(case)


@pytest.mark.parametrize("case", DEPTHWISE, ids=lambda case: case.name)
def test_depthwise_conv(case):
    check_rule(case)


@pytest.mark.parametrize("case", SEPARABLE, ids=lambda case: case.name)
def test_separable_conv(case):
    check_rule(case)


@pytest.mark.parametrize("case", TRANSPOSE, ids=lambda case: case.name)
def test_conv_transpose(case):
    check_rule(case)


LORA = [
    Case("line", lambda: layers.Conv1D(3, 3, lora_rank=2, padding="causal"), LINE, per_example=False),
    Case("image", lambda: layers.Conv2D(3, 3, lora_rank=2, activation="tanh"), IMAGE, per_example=False),
    Case("volume", lambda: layers.Conv3D(3, 2, lora_rank=2, strides=2), VOLUME, per_example=False),
    Case("groups", lambda: layers.Conv2D(4, 3, lora_rank=2, groups=2), IMAGE, per_example=False),
]


@pytest.mark.parametrize("case", LORA, ids=lambda case: case.name)
def test_lora_expands(case):
    check_rule(case)


LAYERS = [
    (lambda: layers.Conv1D(3, 3, padding="causal", dilation_rate=2), (9, 4)),
    (lambda: layers.Conv1D(3, 3, padding="same", strides=2), (9, 4)),
    (lambda: layers.Conv2D(4, 3, groups=2, padding="same", dilation_rate=2), (7, 6, 4)),
    (lambda: layers.Conv2D(4, 3, padding="same", strides=2), (7, 6, 4)),
    (lambda: layers.Conv3D(3, 2, dilation_rate=2), (5, 4, 5, 4)),
    (lambda: layers.DepthwiseConv2D(3, strides=2, dilation_rate=2, padding="same"), (7, 6, 4)),
    (lambda: layers.SeparableConv2D(3, 3, padding="same"), (7, 6, 4)),
    (lambda: layers.Conv2DTranspose(3, 3, strides=2), (7, 6, 4)),
]


@pytest.mark.parametrize("make, shape", LAYERS)
def test_sizes_may_be_unknown(make, shape):
    """Compiled for any batch and any size of image: the same gradients, per example too."""
    layer = make()
    x = tf.constant(np.random.default_rng(0).normal(size=(3, *shape)), "float32")
    layer(x)

    def gradients(x):
        record = Record()
        y = record.run(layer, x)
        result = sweep(record.calls, [(y, tf.sin(y))], layer.trainable_variables, [x])
        parts = [part for v in layer.trainable_variables for part in result.parts[id(v)]]
        return [
            result.input_gradient(x),
            *(result.gradient(v) for v in layer.trainable_variables),
            *(part.per_example() for part in parts),
            *(part.squared_norms() for part in parts),
        ]

    unknown = tf.TensorSpec((None,) * len(shape) + shape[-1:], tf.float32)
    for expected, got in zip(gradients(x), tf.function(gradients, input_signature=[unknown])(x), strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize(
    "make", [lambda dtype: layers.Conv2D(3, 3, dtype=dtype), lambda dtype: layers.SeparableConv2D(3, 3, dtype=dtype)]
)
def test_autocast_gives_gradients_in_the_variables_dtype(make, policy):
    layer = make(policy)
    x = keras.ops.convert_to_tensor(np.random.default_rng(0).normal(size=(2, 5, 5, 4)).astype("float32"))
    layer(x)
    record = Record()
    y = record.run(layer, x)
    with tf.GradientTape() as tape:
        expected = tf.reduce_sum(tf.cast(layer(x), tf.float32))
    expected = tape.gradient(expected, [v.value for v in layer.trainable_variables])
    result = sweep(record.calls, [(y, tf.ones_like(y))], layer.trainable_variables)
    for variable, theirs in zip(layer.trainable_variables, expected, strict=True):
        ours = result.gradient(variable)
        assert ours.dtype == tf.float32
        np.testing.assert_allclose(ours, theirs, rtol=2e-2, atol=2e-1)


def test_grouped_gradients_need_no_xla():
    """Keras compiles a grouped convolution with XLA, whose weight gradient is very slow on a CPU. Ours is not in there."""
    layer = layers.Conv2D(4, 3, groups=2)
    x = tf.ones((2, 5, 5, 4))
    layer(x)
    record = Record()
    y = record.run(layer, x)

    @tf.function
    def backward():
        result = sweep(record.calls, [(y, tf.ones_like(y))], layer.trainable_variables, [x])
        return result.gradient(layer.kernel), result.input_gradient(x)

    operations = {op.type for op in backward.get_concrete_function().graph.get_operations()}
    assert {"Conv2DBackpropFilter", "Conv2DBackpropInput"} <= operations
    assert not operations & {"PartitionedCall", "StatefulPartitionedCall"}


UNDER_XLA = [
    (lambda: layers.Conv2D(4, 3, padding="same", **FIRST), (4, 7, 6)),
    (lambda: layers.Conv2D(4, 3, dilation_rate=2, groups=2), (7, 6, 4)),
    (lambda: layers.DepthwiseConv2D(2, strides=2, dilation_rate=2), (7, 6, 4)),
    (lambda: layers.Conv2DTranspose(3, 3, strides=2, **FIRST), (4, 7, 6)),
    (lambda: layers.Conv2DTranspose(3, 3, dilation_rate=2), (7, 6, 4)),
    (lambda: layers.Conv3DTranspose(3, 2, dilation_rate=(1, 2, 1)), (5, 4, 5, 4)),
]


@pytest.mark.parametrize("make, shape", UNDER_XLA)
def test_what_a_cpu_runs_under_xla_only(make, shape):
    """Some of these forward passes have no other kernel on a CPU. Our gradients are those of the tape there."""
    layer, x = make(), tf.constant(np.random.default_rng(0).normal(size=(3, *shape)), "float32")
    layer.build(x.shape)

    @tf.function(jit_compile=True)
    def explicit(x):
        record = Record()
        y = record.run(layer, x)
        result = sweep(record.calls, [(y, tf.sin(y))], layer.trainable_variables, [x])
        return [result.input_gradient(x), *(result.gradient(v) for v in layer.trainable_variables)]

    @tf.function(jit_compile=True)
    def by_tape(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            error = -tf.reduce_sum(tf.cos(layer(x)))
        return tape.gradient(error, [x, *(v.value for v in layer.trainable_variables)])

    for ours, theirs in zip(explicit(x), by_tape(x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
