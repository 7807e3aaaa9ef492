"""The rule of `rules/layers/rnn/gru.py`."""

import pytest
from keras import layers

from tests.checking import check_rule
from tests.rules.layers.rnn.options import cases

CASES = cases(layers.GRU, layers.GRUCell, states=1)


@pytest.mark.sample(14)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)
