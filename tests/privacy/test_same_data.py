"""Whether several workers have the same data: what is compared, and what is said."""

import numpy as np
import pytest
import tensorflow as tf

from keras_backprop import processes
from keras_backprop.privacy import workers
from tests.privacy.problem import X, Y, a_plan

KEY = np.array([3, -5])


def given(x=X, y=Y):
    return [tf.convert_to_tensor(a) for a in (x, y)]


def with_one_other_row():
    x = X.copy()
    x[17, 2] = np.nextafter(x[17, 2], 9)
    return given(x)


OTHERS = {
    "an order": (given(X[::-1], Y[::-1]), [False, True]),
    "labels": (given(y=Y[::-1]), [False, True]),
    "a number": (with_one_other_row(), [False, True]),
    "a size": (given(X[:39], Y[:39]), [True, True]),
    "a dtype": (given(y=Y.astype("int32")), [True, True]),
    "strings": (given(np.array([f"text {i}" for i in range(40)])), [True, True]),
}


@pytest.mark.parametrize("other, differ", OTHERS.values(), ids=OTHERS)
def test_what_differs_has_another_digest(other, differ):
    one, another = (workers.digests_of(data, KEY) for data in (given(), other))
    assert [a != b for a, b in zip(one, another, strict=True)] == differ


@pytest.mark.parametrize("data", [given(), OTHERS["strings"][0], [tf.random.normal([1000, 2])]])
def test_what_is_the_same_has_the_same(data):
    again = [tf.identity(a) for a in data]
    assert workers.digests_of(data, KEY) == workers.digests_of(again, KEY)


def test_of_many_examples_some_rows_are_compared_that_the_secret_chooses():
    data = [tf.range(100_000)]
    keys = [np.array([i, 0]) for i in range(3)]
    assert len({workers.digests_of(data, key)[1] for key in keys}) == 3
    later = [tf.roll(data[0], 1, 0)]
    assert all(workers.digests_of(data, key)[1] != workers.digests_of(later, key)[1] for key in keys)


@pytest.mark.parametrize("steps, said", [(0, {"given seed"}), (2, {"given seed", "secret seed"})])
def test_a_worker_says_where_the_chiefs_secret_is_from(monkeypatch, steps, said):
    plans = [a_plan(), a_plan(seed=None)]
    plans[1]._count.assign(steps)
    monkeypatch.setattr(processes, "across_workers", lambda strategy: True)
    chief = (np.array(steps), plans[0]._randomness.key.numpy(), workers.SOURCES.index("given seed"))
    monkeypatch.setattr(
        workers, "_of_all", lambda strategy, mine: [np.stack(both) for both in zip(chief, mine, strict=True)]
    )
    workers.agree(plans[1], None)
    assert plans[1].past.random_numbers == said and plans[1]._randomness.source == "given seed"


def test_steps_are_told_and_not_parts_of_them(monkeypatch):
    plan = a_plan()
    plan.parts = 4
    plan._count.assign(12)
    monkeypatch.setattr(processes, "across_workers", lambda strategy: True)
    monkeypatch.setattr(workers, "_of_all", lambda strategy, mine: [np.stack([np.array(one) + 2, one]) for one in mine])
    with pytest.raises(ValueError, match="has counted 3 steps, that of the chief 3.5, and"):
        workers.agree(plan, None)


def test_numbers_of_all_replicas_are_put_side_by_side():
    strategy = tf.distribute.get_strategy()
    one, several = workers._of_all(strategy, [np.array(7), np.array([2**62, -3])])
    assert one.tolist() == [7] and several.tolist() == [[2**62, -3]]


def test_the_error_says_which_worker(monkeypatch):
    """Three workers of two devices each; the second is the one that differs."""
    plan = a_plan()
    monkeypatch.setattr(processes, "worker_count", lambda strategy: 3)
    monkeypatch.setattr(workers, "_of_all", lambda strategy, digests: np.array(digests)[:, None] + [0, 0, 1, 1, 0, 0])
    with pytest.raises(
        ValueError, match=r"worker 1 have other sizes or dtypes than.* \(40, 5\) float32, \(40,\) int64"
    ):
        workers.require_same_data(plan, None, given())
    monkeypatch.setattr(workers, "_of_all", lambda strategy, digests: np.array(digests)[:, None] + [0] * 6)
    workers.require_same_data(plan, None, given())
