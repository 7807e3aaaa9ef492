"""A part of the gradient grid in every run of the tests; `python -m tests.grid.run` runs the whole."""

import os

import pytest

from tests.grid.cases import cases
from tests.grid.run import Outcome, run

ALL = cases()
EVERY = int(os.environ.get("GRID_EVERY", "30"))


def test_the_grid_is_large_and_its_names_are_unique():
    assert len(ALL) > 3000
    assert len({case.name for case in ALL}) == len(ALL)


@pytest.mark.parametrize("case", ALL[::EVERY], ids=lambda case: case.name)
def test_case(case):
    outcome = run(case)
    assert outcome.passed, outcome


def test_an_outcome_that_is_a_little_off_does_not_pass():
    assert Outcome(1e-11, 1e-6).passed
    assert not Outcome(1e-9, 0.0).passed
    assert not Outcome(0.0, 1e-3).passed
    assert not Outcome(0.0, 0.0, "TypeError").passed
