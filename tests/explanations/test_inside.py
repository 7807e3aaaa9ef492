"""What is written out of the inside of a layer, calculated again, is what the layer gave."""

import re

import keras
import numpy as np
import pytest

from keras_backprop import explain
from keras_backprop.explanations.writing.inside import inside_rows

LAYERS = keras.layers


def rows_of(layer, shape, examples=1):
    model = keras.Sequential([keras.Input(shape), layer, LAYERS.Flatten(), LAYERS.Dense(1)])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).integers(-4, 5, (examples, *shape)) / 4
    link = next(link for link in explain(model, x, np.ones((examples, 1))).links if link.op is layer)
    return inside_rows(link)


def calculated(text):
    """Both sides of `1·2 + 3 = 5`."""
    left, right = text.split(" = ")
    return eval(left.replace("·", "*")), float(right)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda: LAYERS.Conv1D(2, 2), (4, 2)),
        (lambda: LAYERS.Conv2D(1, 3, padding="same", strides=2), (4, 4, 1)),
        (lambda: LAYERS.Conv2D(2, 2, strides=(1, 2), use_bias=False), (3, 4, 1)),
        (lambda: LAYERS.DepthwiseConv1D(2, depth_multiplier=2), (4, 2)),
        (lambda: LAYERS.DepthwiseConv2D(2, padding="same"), (3, 3, 2)),
        (lambda: LAYERS.Conv2D(2, 2, dilation_rate=2), (4, 4, 2)),
    ],
)
def test_a_convolution_forward_and_the_gradient_of_its_kernel(layer, shape):
    rows = rows_of(layer(), shape)
    assert len(rows) == 2
    for _, text in rows:
        left, right = calculated(text)
        assert left == pytest.approx(right, abs=2e-3)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(lambda: LAYERS.SeparableConv1D(2, 2), (3, 2)), (lambda: LAYERS.SeparableConv2D(1, 2), (2, 3, 3))],
)
def test_a_separable_convolution_channel_by_channel(layer, shape):
    first, second = rows_of(layer(), shape)
    for _, text in (first, second):
        left, right = calculated(text)
        assert left == pytest.approx(right, abs=2e-3)
    assert first[1].split(" = ")[1] in second[1]  # the number of the first channel goes into the sum


def test_what_one_position_of_a_transposed_convolution_spreads():
    layer = LAYERS.Conv1DTranspose(1, 2, strides=2)
    (_, spread), (_, text) = rows_of(layer, (2, 2))
    left, right = calculated(text)
    assert left == pytest.approx(right, abs=2e-3)
    x = np.random.default_rng(0).integers(-4, 5, (1, 2, 2))[0, 0] / 4
    assert [float(n) for n in spread.split(", ")] == pytest.approx(list(layer.kernel.numpy()[:, 0] @ x), abs=1e-3)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: LAYERS.Conv2D(2, 2, groups=2),
        lambda: LAYERS.MaxPooling2D(2, padding="same"),
    ],
)
def test_what_is_not_written_out(layer):
    assert rows_of(layer(), (4, 4, 2)) == []


@pytest.mark.parametrize(("kind", "word"), [("MaxPooling2D", max), ("AveragePooling2D", np.mean)])
def test_pooling(kind, word):
    ((_, text),) = rows_of(getattr(LAYERS, kind)(2), (4, 4, 1))
    numbers, result = re.fullmatch(r"(?:largest|mean) of (.*) = (.*)", text).groups()
    assert word([float(n) for n in numbers.split(", ")]) == pytest.approx(float(result), abs=1e-3)


@pytest.mark.parametrize("kind", ["BatchNormalization", "LayerNormalization", "RMSNormalization", "GroupNormalization"])
def test_a_normalisation_says_what_it_divides_by(kind):
    layer = getattr(LAYERS, kind)(**({"groups": 2} if "Group" in kind else {}))
    ((_, text),) = rows_of(layer, (4,), examples=3)
    assert "x̂ = " in text and "ε = " in text


def test_a_normalisation_with_other_statistics_says_nothing():
    assert rows_of(LAYERS.BatchNormalization(trainable=False), (4,), examples=3) == []
