"""Tests of what is watched; models that are sound, unwell and faulty."""

import pytest


def sampled(cases, in_every_run):
    """The cases as parameters of a test: some in every run, by name, the others slow."""
    named = [(getattr(case, "__name__", case), case) for case in cases]
    unknown = set(in_every_run) - {name for name, _ in named}
    assert not unknown, unknown
    return [
        pytest.param(case, id=name, marks=[] if name in in_every_run else [pytest.mark.slow]) for name, case in named
    ]
