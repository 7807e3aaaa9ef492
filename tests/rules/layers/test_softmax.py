"""The rules of `rules/layers/softmax.py`."""

import numpy as np
import pytest
from keras import layers

from tests.checking import Case, check_rule

MASK = np.array([[True, False, True], [True, True, False], [False, False, False], [True, True, True]])

CASES = [
    Case("last", lambda: layers.Softmax()),
    Case("axis", lambda: layers.Softmax(axis=1), ((4, 3, 5),)),
    Case("axis-list", lambda: layers.Softmax(axis=[1]), ((4, 3, 5),)),
    Case("axes", lambda: layers.Softmax(axis=(-1, -2)), ((4, 3, 5),)),
    Case("mask", lambda: layers.Softmax(), ((4, 3),), {"mask": MASK}),
    Case("mask-broadcast", lambda: layers.Softmax(), ((4, 2, 3),), {"mask": MASK[:, None]}),
    Case("mask-fewer-axes", lambda: layers.Softmax(), ((2, 4, 3),), {"mask": MASK}),
    Case("mask-of-numbers", lambda: layers.Softmax(), ((4, 3),), {"mask": MASK.astype("int32")}),
    Case("mask-axes", lambda: layers.Softmax(axis=(1, 2)), ((4, 2, 3),), {"mask": MASK[:, None]}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)
