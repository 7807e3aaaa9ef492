"""The rules of `rules/losses/focal.py`."""

import pytest
from keras import layers, losses

from tests.rules.losses.checking import check_loss, numbers, one_hot, probabilities

OPTIONS = {
    "stock": {},
    "gamma": {"gamma": 0.7},
    "gamma-zero": {"gamma": 0.0},
    "gamma-one": {"gamma": 1.0},
    "alpha": {"alpha": 0.4},
    "smoothing": {"label_smoothing": 0.2},
}
KINDS = ["probabilities", "logits", "activation"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("name", OPTIONS)
def test_binary(name, balanced, kind):
    loss = losses.BinaryFocalCrossentropy(apply_class_balancing=balanced, from_logits=kind == "logits", **OPTIONS[name])
    x = numbers(4, 3, low=0.05, high=0.95) if kind == "probabilities" else numbers(4, 3)
    output = [layers.Activation("sigmoid", dtype="float64")] if kind == "activation" else []
    check_loss(loss, one_hot(4, 3), x, *output)


@pytest.mark.parametrize("axis", [1, 2, -1])
@pytest.mark.parametrize("from_logits", [False, True])
def test_binary_along_another_axis(axis, from_logits):
    loss = losses.BinaryFocalCrossentropy(axis=axis, from_logits=from_logits)
    check_loss(loss, one_hot(4, 3, 2), numbers(4, 3, 2, low=0.05, high=0.95))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*OPTIONS, "alphas"])
def test_categorical(name, kind):
    options = OPTIONS.get(name, {"alpha": [0.2, 0.3, 0.5]})
    loss = losses.CategoricalFocalCrossentropy(from_logits=kind == "logits", **options)
    x = probabilities(4, 3) if kind == "probabilities" else numbers(4, 3)
    output = [layers.Softmax(dtype="float64")] if kind == "activation" else []
    check_loss(loss, one_hot(4, 3), x, *output)


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("from_logits", [False, True])
def test_categorical_along_another_axis(axis, from_logits):
    loss = losses.CategoricalFocalCrossentropy(axis=axis, from_logits=from_logits)
    check_loss(loss, one_hot(4, 3, 2), 2 * probabilities(4, 3, 2))
