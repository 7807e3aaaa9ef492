"""The rules of `rules/losses/overlap.py`."""

import pytest
from keras import losses

from tests.rules.losses.checking import check_loss, numbers, one_hot

LOSSES = {
    "dice": losses.Dice,
    "tversky": losses.Tversky,
    "tversky-weights": lambda **options: losses.Tversky(alpha=0.3, beta=0.9, **options),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2), (3, 2, 2, 3)], ids=str)
@pytest.mark.parametrize("axis", [None, -1, 1, (1, -1), (0, 1)], ids=str)
def test_rule(name, shape, axis):
    if axis == (1, -1) and len(shape) == 2:
        axis = (-1,)
    check_loss(LOSSES[name](axis=axis), one_hot(*shape), numbers(*shape, low=0.05, high=0.95))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "sum", "mean_with_sample_weight", None], ids=str)
def test_sample_weights(name, reduction):
    t, p, weights = one_hot(4, 3, 2), numbers(4, 3, 2, low=0.05, high=0.95), numbers(4, low=0.1)
    check_loss(LOSSES[name](axis=(1, 2), reduction=reduction), t, p, sample_weight=weights)


@pytest.mark.parametrize("name", LOSSES)
def test_targets_that_broadcast(name):
    check_loss(LOSSES[name](axis=(1, 2)), one_hot(4, 3, 2)[..., :1], numbers(4, 3, 2, low=0.05, high=0.95))


def test_predictions_that_broadcast():
    t, p = one_hot(4, 3, 2), numbers(4, 3, 1, low=0.05, high=0.95)
    check_loss(losses.Tversky(axis=(1, 2)), t, p)
    with pytest.raises(ValueError, match="'dice' returned a gradient of shape"):
        check_loss(losses.Dice(axis=(1, 2)), t, p)
