"""The benchmarks run, on something tiny. What they measure is not tested here."""

import json

import keras
import numpy as np
import pytest

from benchmarks import by_hand, fits, growth, guard, report, steps, ways
from benchmarks.timing import Times, alternate
from benchmarks.workloads import Workload, integers, mlp, normal

TINY = Workload("tiny", lambda: mlp(3, 4, 2), normal(5, 3), integers(2, 5))


def task(**options):
    random = np.random.default_rng(0)
    return fits.Task("tiny", random.normal(size=(8, 3)), random.integers(0, 2, 8), (3, 4, 2), 2, batch=4, **options)


def test_a_ratio_is_the_median_of_neighbours():
    assert Times([2.0, 9.0, 4.0]).over(Times([1.0, 3.0, 4.0])) == 2.0
    assert str(Times([0.002, 0.004, 0.003])) == "3 ms (2–4)"


def test_functions_take_turns():
    calls = []
    alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2, seconds=0.0)
    assert "".join(calls[-4:]) in ("baab", "abba")


@pytest.mark.parametrize("mode", ["graph", "eager"])
def test_a_step_is_compared(mode, monkeypatch):
    monkeypatch.setattr(steps, "alternate", lambda functions, *args, **kwargs: alternate(functions, 2, 0.0))
    result = steps.compare(TINY, mode, traces=1)
    assert result["ratio"] > 0
    assert len(result["times"]["ours"]) == len(result["times"]["stock"]) == 2


def test_every_contender_trains():
    times = fits.measure(task(), repeats=1)
    assert set(times) == {"ours", "stock", "compiled loop", "NumPy", "scikit-learn"}


@pytest.mark.parametrize("options", [{}, {"adam": False, "rate": 0.1}, {"hidden": "sigmoid"}])
def test_the_loops_by_hand_compute_the_same(options):
    same = task(shuffle=False, **options)
    assert by_hand.compiled_loop(same, 3) == pytest.approx(by_hand.numpy_loop(same, 3), rel=1e-4)


def test_the_loop_by_hand_is_the_note():
    note = fits.Task(
        "note", np.array([[0.1]]), np.array([[0.25]]), (1, 1, 1), 82, hidden="sigmoid", output="sigmoid", squared=True,
        adam=False, rate=0.4, stop=0.001, shuffle=False,
    )  # fmt: skip
    weights = [np.array(w) for w in ([[0.15]], [0.40], [[0.45]], [0.65])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_hand, "initial", lambda sizes: weights)
        assert by_hand.numpy_loop(note, 1000) == pytest.approx(0.00096413, rel=1e-4)
        assert by_hand.compiled_loop(note, 1000) == pytest.approx(0.00096413, rel=1e-4)


def test_the_guard_sees_what_worsened():
    bounds = {"a": 0.9, "b": 0.9}
    assert guard.worsened({"a": 0.9 + guard.NOISE + 0.01, "b": 0.95, "new": 9.0}, bounds) == ["a"]


def test_the_guard_fails_when_a_ratio_worsened(monkeypatch, tmp_path):
    bounds = tmp_path / "bounds.json"
    bounds.write_text(json.dumps({"x | compiled step": 0.5}))
    monkeypatch.setattr(guard, "BOUNDS", bounds)
    monkeypatch.setattr(guard, "measure", lambda *args, **kwargs: {"x | compiled step": 0.9})
    assert guard.check() == 1
    bounds.write_text(json.dumps({"x | compiled step": 0.9}))
    assert guard.check() == 0


def test_a_section_replaces_itself_only(monkeypatch, tmp_path):
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results.md")
    monkeypatch.setattr(report, "SECTIONS", {"fit": lambda options: ["one"], "steps": lambda options: ["two"]})
    options = type("Options", (), {"only": ["fit", "steps"]})
    report.write(options)
    monkeypatch.setattr(report, "SECTIONS", {"fit": None, "steps": lambda options: ["three"]})
    options.only = ["steps"]
    report.write(options)
    assert "## fit\n\none\n" in report.RESULTS.read_text() and "three" in report.RESULTS.read_text()
    assert "two" not in report.RESULTS.read_text()


def test_growth_is_drawn(tmp_path):
    growth.plot(
        {"a": ([1, 2], {"stock": [0.1, 0.2], "ours": [0.1, 0.1]}), "b": ([1], {"ours": [1.0]})}, tmp_path / "g.png"
    )
    assert (tmp_path / "g.png").stat().st_size > 1000


def test_every_way_trains_what_stock_keras_trains():
    few = ways.ways(epochs=1, rows=64)
    assert len({way.name for way in few}) == len(few)
    one = next(way for way in few if way.name == "digits from a generator")
    times = ways.measure(one, repeats=1)
    assert len(times["ours"]) == len(times["stock"]) == 1


def test_a_way_that_trains_something_else_is_no_row():
    def begin(Sequential, Model, folder):
        rate = 0.1 if Sequential is keras.Sequential else 0.2

        def run():
            model = Sequential([keras.Input((2,)), keras.layers.Dense(1)])
            model.compile(keras.optimizers.SGD(rate), "mse")
            model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
            return model

        return run

    with pytest.raises(AssertionError, match="another rate"):
        ways.measure(ways.Way("another rate", begin, 1), repeats=1)
