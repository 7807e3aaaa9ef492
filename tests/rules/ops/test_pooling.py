"""The rules of `rules/ops/pooling.py`: options as integers, tuples and defaults."""

import pytest
from keras import ops

from tests.checking import Case, check_rule

LINE, IMAGE, VOLUME = ((2, 9, 3),), ((2, 7, 6, 3),), ((2, 4, 5, 4, 2),)

CASES = [
    Case(f"{pool.__name__}-{name}", lambda pool=pool, options=options: lambda x: pool(x, **options), inputs)
    for pool in (ops.max_pool, ops.average_pool)
    for name, inputs, options in [
        ("line", LINE, {"pool_size": 2}),
        ("line-tuple", LINE, {"pool_size": (3,), "strides": 2, "padding": "same"}),
        ("image", IMAGE, {"pool_size": 2, "strides": (2, 1)}),
        ("image-first", IMAGE, {"pool_size": (2, 3), "strides": 1, "data_format": "channels_first"}),
        ("volume", VOLUME, {"pool_size": 2, "padding": "same"}),
    ]
] + [
    Case(f"{pool.__name__}-{name}", lambda pool=pool, options=options: lambda x: pool(x, **options), inputs)
    for pool in (ops.adaptive_max_pool, ops.adaptive_average_pool)
    for name, inputs, options in [
        ("line", LINE, {"output_size": (4,)}),
        ("image", IMAGE, {"output_size": (3, 4)}),
        ("image-first", IMAGE, {"output_size": (3, 2), "data_format": "channels_first"}),
        ("volume", VOLUME, {"output_size": (2, 3, 1)}),
    ]
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)
