"""The rules of `rules/losses/hinge.py`."""

import numpy as np
import pytest
from keras import losses

from tests.rules.losses.checking import check_loss, numbers, one_hot

LOSSES = {"hinge": losses.Hinge, "squared": losses.SquaredHinge, "categorical": losses.CategoricalHinge}
SHAPES = [(5, 3), (4, 3, 2), (3, 2, 2, 3)]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rule(name, shape):
    check_loss(LOSSES[name](), one_hot(*shape), numbers(*shape), sample_weight=numbers(*shape[:-1], low=0.1))


@pytest.mark.parametrize("name", ["hinge", "squared"])
def test_signed_labels(name):
    check_loss(LOSSES[name](), 2 * one_hot(5, 3) - 1, numbers(5, 3))
    check_loss(LOSSES[name](), np.array([[0.0, 1.0, 2.0]]), numbers(1, 3))
    check_loss(LOSSES[name](), np.array([0.0, 1.0, 1.0]), numbers(3, 1))


@pytest.mark.parametrize("name", LOSSES)
def test_kinks_have_tensorflows_value(name):
    check_loss(LOSSES[name](), np.array([[1.0, 0.0, 0.0]]), np.array([[1.0, -1.0, -1.0]]), differences=False)
    check_loss(LOSSES[name](), np.array([[1.0, 0.0, 0.0]]), np.array([[1.0, 0.5, 0.5]]), differences=False)
    check_loss(LOSSES[name](), np.array([[1.0, 0.0, 0.0]]), np.array([[1.5, 0.5, 0.5]]), differences=False)
