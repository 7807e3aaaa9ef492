"""After 50 steps weights, optimizer variables, history and metrics equal stock Keras's, whatever `fit` and `compile` are given.

A part runs by default; `-m slow` runs the whole. `python -m tests.equality.grid PATTERN` runs cases by name.
"""

import keras
import numpy as np
import pytest

from tests.equality import compare, grid, report, scenarios


def assert_equal(found, stock):
    assert not found, "\n".join(found[:10])
    if "error" in stock and not report.is_current():
        pytest.skip(f"stock Keras {keras.__version__} cannot: {stock['error']}")
    assert "error" not in stock, stock["error"]


@pytest.mark.sample(11)
@pytest.mark.parametrize("subject", compare.SUBJECTS)
@pytest.mark.parametrize("case", grid.alone(), ids=lambda case: case.name)
def test_an_option_by_itself(case, subject):
    assert_equal(*grid.disagreements(case, subject))


@pytest.mark.sample(2)
@pytest.mark.parametrize("case", grid.alone(), ids=lambda case: case.name)
def test_a_second_model_of_the_same_configuration(case):
    """It may be given what was traced for the first: nothing but that may differ."""
    first, second = (compare.run(grid.program, compare.SUBJECTS["backprop"], case) for _ in range(2))
    found = compare.differences(second, first, case.tolerance)
    assert not found, "\n".join(found[:10])


@pytest.mark.slow
@pytest.mark.parametrize("subject", compare.SUBJECTS)
@pytest.mark.parametrize("case", grid.pairs(), ids=lambda case: case.name)
def test_a_pair_of_options(case, subject):
    found, _ = grid.disagreements(case, subject)
    assert not found, "\n".join(found[:10])


ALL = [(group, name) for group, table in scenarios.SCENARIOS.items() for name in table]


@pytest.mark.sample(3)
@pytest.mark.parametrize("subject", compare.SUBJECTS)
@pytest.mark.parametrize("which", ALL, ids=": ".join)
def test_a_scenario(which, subject, tmp_path):
    scenario, ours = scenarios.SCENARIOS[which[0]][which[1]], compare.SUBJECTS[subject]
    pairs = {"stock": (compare.STOCK, compare.STOCK), "ours": (ours, ours)}
    if which[0] == "saving":
        pairs.update({"ours to stock": (ours, compare.STOCK), "stock to ours": (compare.STOCK, ours)})
    seen = {}
    for name, classes in pairs.items():
        (tmp_path / name).mkdir()
        seen[name] = compare.run(scenario, *classes, tmp_path / name)
    for name in list(pairs)[1:]:
        assert_equal(compare.differences(seen[name], seen["stock"], 1e-6), seen["stock"])


def test_the_page_is_not_stale():
    if not report.is_current():
        pytest.skip("the tables depend on what this Keras has; the page is about 3.15")
    assert report.PAGE.read_text() == report.page(), "run `python -m tests.equality.report`"


def test_every_option_occurs_in_the_grid():
    cases = grid.alone()
    for axis, table in grid.TABLES.items():
        assert {getattr(case, axis) for case in cases} == set(table)


def test_a_small_difference_is_noticed():
    stock = {"weights": [np.ones(3, "float32")], "history": [["loss", [0.5]]], "epoch": 1}
    assert compare.differences(stock, stock, 1e-6) == []
    assert compare.differences({**stock, "weights": [np.full(3, 1.00001, "float32")]}, stock, 1e-6)
    assert compare.differences({**stock, "weights": [np.ones(3)]}, stock, 1e-6)
    assert compare.differences({**stock, "history": [["loss", [np.float32(0.5)]]]}, stock, 1e-6)
    assert compare.differences({**stock, "history": [["los", [0.5]]]}, stock, 1e-6)
    assert compare.differences({**stock, "epoch": 2}, stock, 1e-6)
    assert compare.differences({**stock, "weights": [np.full(3, np.nan, "float32")]}, stock, 1e-6)
    assert compare.differences(dict(reversed(stock.items())), stock, 1e-6)


@pytest.mark.parametrize(("single", "double", "accepted"), [(3e-4, 0, True), (5e-4, 0, False), (3e-4, 3e-4, False)])
def test_what_is_excused_as_rounding(monkeypatch, single, double, accepted):
    """Begun one unit in the last place higher, stock Keras ends 1e-4 away; four times that may be rounding, if double agrees."""

    def run(program, classes, case, nudged=False):
        away = {"float32": single, "float64": double}[case.precision] if classes is not compare.STOCK else 1e-4 * nudged
        return {"weights": [np.asarray(1 - away, case.precision)], "warnings": []}

    monkeypatch.setattr(compare, "run", run)
    found, _ = grid.disagreements(grid.Case())
    assert (not found) == accepted


@pytest.mark.parametrize(
    "nudged", [{"weights": [np.inf]}, {"weights": [np.nan]}, {"weights": [1.0, 2.0]}, {"error": "no"}]
)
def test_nothing_is_excused_where_the_nudge_breaks_the_training(nudged):
    assert compare.more_than_rounding({"weights": [1.1]}, {"weights": [1.0]}, nudged, 1e-6)


def test_no_more_than_a_thousand_times_the_tolerance_is_excused():
    assert compare.more_than_rounding({"weights": [1.1]}, {"weights": [1.0]}, {"weights": [9.0]}, 1e-6)


def test_a_nudge_is_one_unit_and_leaves_zeros_and_integers():
    np.testing.assert_array_equal(compare.nudge(np.array([0, 1, -1])), [0, 1, -1])
    nudged = compare.nudge(np.array([0, 1, -1], "float32"))
    np.testing.assert_array_equal(nudged, np.array([0, 1 + 2**-23, -1 + 2**-24], "float32"))
