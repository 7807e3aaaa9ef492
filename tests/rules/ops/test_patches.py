"""The rules of `rules/ops/patches.py`."""

import pytest
from keras import ops

from tests.checking import Case, check_rule

IMAGE, VOLUME = ((2, 7, 6, 3),), ((2, 5, 4, 5, 2),)
FIRST = ((2, 3, 7, 6),)

CASES = [
    Case("extract", lambda: lambda x: ops.image.extract_patches(x, 3), IMAGE),
    Case("extract-overlap", lambda: lambda x: ops.image.extract_patches(x, (3, 2), strides=(1, 2)), IMAGE),
    Case("extract-same", lambda: lambda x: ops.image.extract_patches(x, 3, strides=2, padding="same"), IMAGE),
    Case("extract-dilated", lambda: lambda x: ops.image.extract_patches(x, 2, strides=(1, 1), dilation_rate=2), IMAGE),
    Case("extract-single", lambda: lambda x: ops.image.extract_patches(x, 2), ((7, 6, 3),)),
    Case("extract-volume", lambda: lambda x: ops.image.extract_patches(x, (2, 2, 3)), VOLUME),
    Case(
        "extract-volume-single", lambda: lambda x: ops.image.extract_patches(x, (2, 2, 2), strides=1), ((4, 5, 4, 2),)
    ),
    Case("unfold", lambda: lambda x: ops.unfold(x, 2), FIRST),
    Case("unfold-padding", lambda: lambda x: ops.unfold(x, (3, 2), padding=(1, 0)), FIRST),
    Case("unfold-strides", lambda: lambda x: ops.unfold(x, 3, stride=2, padding=1), FIRST),
    Case("unfold-uneven-strides", lambda: lambda x: ops.unfold(x, 2, stride=(2, 3)), FIRST),
    Case(
        "unfold-dilated-strides", lambda: lambda x: ops.unfold(x, 2, dilation=(3, 2), stride=2, padding=(0, 2)), FIRST
    ),
    Case("fold", lambda: lambda x: ops.fold(x, (3, 4), 2), ((2, 12, 6),)),
    Case("fold-padding", lambda: lambda x: ops.fold(x, (4, 4), (3, 2), padding=(1, 0)), ((2, 12, 12),)),
    Case("fold-strides", lambda: lambda x: ops.fold(x, 4, 2, stride=2), ((2, 8, 4),)),
    Case("fold-dilated", lambda: lambda x: ops.fold(x, (6, 5), 2, dilation=2, padding=1, stride=(2, 1)), ((2, 8, 15),)),
]


@pytest.mark.sample(8)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)
