"""The rules of `rules/ops/convolution.py`: the kernel is an input, or an array of numbers."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.checking import Case, check_rule, normal

LINE, IMAGE, VOLUME = (2, 9, 4), (2, 7, 6, 4), (2, 5, 4, 5, 4)
FIRST = {"data_format": "channels_first"}


def with_kernel(function, **options):
    return lambda *inputs: function(*inputs, **options)


CASES = [
    Case("conv-line", lambda: with_kernel(ops.conv, padding="same", strides=2), (LINE, (3, 4, 3))),
    Case("conv-image", lambda: with_kernel(ops.conv), (IMAGE, (3, 2, 4, 3))),
    Case("conv-dilated", lambda: with_kernel(ops.conv, dilation_rate=(2, 1)), (IMAGE, (3, 2, 4, 3))),
    Case("conv-groups", lambda: with_kernel(ops.conv, padding="same"), (IMAGE, (3, 2, 2, 6))),
    Case("conv-volume", lambda: with_kernel(ops.conv, strides=(1, 2, 1)), (VOLUME, (2, 2, 3, 4, 3))),
    Case("conv-first", lambda: with_kernel(ops.conv, **FIRST), ((2, 4, 5, 4, 5), (2, 2, 3, 4, 2))),
    Case("depthwise-line", lambda: with_kernel(ops.depthwise_conv, dilation_rate=2), (LINE, (3, 4, 2))),
    Case("depthwise-image", lambda: with_kernel(ops.depthwise_conv, strides=2), (IMAGE, (3, 2, 4, 1))),
    Case(
        "depthwise-dilated-strides",
        lambda: with_kernel(ops.depthwise_conv, strides=2, dilation_rate=2, padding="same"),
        (IMAGE, (3, 2, 4, 2)),
    ),
    Case("separable-line", lambda: with_kernel(ops.separable_conv), (LINE, (3, 4, 2), (1, 8, 3))),
    Case(
        "separable-image",
        lambda: with_kernel(ops.separable_conv, padding="same", strides=2),
        (IMAGE, (3, 3, 4, 1), (1, 1, 4, 3)),
    ),
    Case(
        "separable-first", lambda: with_kernel(ops.separable_conv, **FIRST), ((2, 4, 6, 5), (3, 3, 4, 1), (1, 1, 4, 2))
    ),
    Case("transpose-line", lambda: with_kernel(ops.conv_transpose, strides=2), (LINE, (3, 3, 4))),
    Case("transpose-image", lambda: with_kernel(ops.conv_transpose, strides=2, padding="same"), (IMAGE, (3, 2, 3, 4))),
    Case(
        "transpose-output-padding",
        lambda: with_kernel(ops.conv_transpose, strides=(3, 2), output_padding=(2, 1)),
        (IMAGE, (3, 2, 3, 4)),
    ),
    Case("transpose-volume", lambda: with_kernel(ops.conv_transpose), (VOLUME, (2, 2, 2, 3, 4))),
    Case("numbers", lambda: lambda x: ops.conv(x, normal(3, 2, 4, 3)), (IMAGE,)),
    Case("depthwise-numbers", lambda: lambda x: ops.depthwise_conv(x, normal(3, 2, 4, 1)), (IMAGE,)),
    Case("transpose-numbers", lambda: lambda x: ops.conv_transpose(x, normal(3, 2, 3, 4)), (IMAGE,)),
    Case(
        "separable-one-of-numbers",
        lambda: lambda x, P: ops.separable_conv(x, normal(3, 3, 4, 2), P),
        (IMAGE, (1, 1, 8, 3)),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


def test_a_layer_written_with_the_operations():
    """The weights' gradients arrive through the operations' inputs."""

    class Block(keras.layers.Layer):
        def build(self, shape):
            self.D = self.add_weight(shape=(3, 3, shape[-1], 1), name="D")
            self.W = self.add_weight(shape=(1, 1, shape[-1], 5), name="W")

        def call(self, x):
            return ops.relu(ops.conv(ops.depthwise_conv(x, self.D, padding="same"), ops.tanh(self.W)))

    check_rule(Case("block", Block, (np.asarray(normal(*IMAGE)),), per_example=False))


@pytest.mark.parametrize("shape", [(1, 3, 1), (3, 1), (3,)])
def test_a_bias_that_keras_adds_along_another_axis(shape):
    """`keras.ops.add` takes what looks like a bias along the last axis, even where it does not stand there."""
    check_rule(Case("bias", lambda: ops.add, ((2, 3, 3), shape)))


def test_a_bias_of_the_second_axis():
    check_rule(Case("bias", lambda: ops.add, ((2, 3, 4, 5), (1, 3, 1, 1))))
