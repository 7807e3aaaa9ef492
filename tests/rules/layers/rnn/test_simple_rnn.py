"""The rule of `rules/layers/rnn/simple_rnn.py`."""

import pytest
from keras import layers

from tests.checking import check_rule
from tests.rules.layers.rnn.options import cases

CASES = cases(layers.SimpleRNN, layers.SimpleRNNCell, states=1)


@pytest.mark.sample(14)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)
