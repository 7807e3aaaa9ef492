"""Scripts in the styles of published examples train to the numbers of stock Keras: histories, weights, optimizer, warnings."""

import importlib
import pathlib

import pytest

from tests.equality import compare

TOLERANCE = 1e-5
"""Single precision, over some 20 steps."""
HALF_PRECISION = 1e-3
"""Under `mixed_float16`, where stock Keras run eagerly and stock Keras compiled are 2e-4 apart."""
FAST = ("contrastive", "actor_critic")
"""Those that are part of every run."""


def scripts():
    """Every `train…` function of the modules beside this one."""
    for path in sorted(pathlib.Path(__file__).parent.glob("[a-z]*.py")):
        if path.stem.startswith("test_"):
            continue
        module = importlib.import_module(f"tests.published.{path.stem}")
        for name in [name for name in vars(module) if name.startswith("train")]:
            marks = () if path.stem in FAST and name == "train" else pytest.mark.slow
            yield pytest.param(getattr(module, name), id=path.stem + name.removeprefix("train"), marks=marks)


@pytest.mark.parametrize("train", [*scripts()])
def test_trains_as_stock_keras(train):
    stock = compare.run(train, compare.STOCK)
    assert "error" not in stock, stock["error"]
    ours = compare.run(train, compare.SUBJECTS["backprop"])
    tolerance = HALF_PRECISION if train.__name__ == "train_mixed_precision" else TOLERANCE
    assert compare.differences(ours, stock, tolerance) == []
