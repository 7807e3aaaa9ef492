"""What a worker tells the others when its training ends with an error. (With real workers: tests/privacy.)"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_backprop import BackpropSequential, _tensorflow, failures
from keras_backprop.observers import BackwardObserver

EVERYBODY = [("chief", 0), ("worker", 0), ("worker", 1)]


@pytest.fixture
def cluster(monkeypatch):
    """What is noted, by keys; and what all collectives have ended with."""
    noted, ended = {}, []
    monkeypatch.setattr(failures, "GRACE", 0.0)
    monkeypatch.setattr(_tensorflow, "note_for_all", noted.__setitem__)
    monkeypatch.setattr(_tensorflow, "noted", lambda key, seconds: noted.get(key))
    monkeypatch.setattr(_tensorflow, "end_collectives", ended.append)
    return noted, ended


def tell(error, training=0, own=EVERYBODY[2]):
    failures.Training(training, own, EVERYBODY).tell(error)


def no_service(*_):
    raise tf.errors.UnavailableError(None, None, "no service")


def note_error(cluster, own, said, training=0):
    cluster[0][failures.Training(training, own, EVERYBODY)._key("error", own)] = said


def test_an_error_of_one_worker_ends_what_the_others_wait_in(cluster):
    tell(ValueError("no data"))
    assert cluster[1] == [
        "The training of worker 1 has ended with an error, ValueError: no data. Mend it there, and start all workers again."
    ]


def test_an_error_that_all_have_ends_nothing(cluster):
    for training in (0, 1):
        for own in EVERYBODY[:2]:
            note_error(cluster, own, "refused", training)
        tell(ValueError("refused"), training)
    assert not cluster[1]
    tell(ValueError("no data"), training=2)  # those of earlier trainings do not count
    assert len(cluster[1]) == 1


def test_what_is_because_of_another_worker_is_not_told_again(cluster):
    note_error(cluster, EVERYBODY[1], "no data")
    tell(tf.errors.AbortedError(None, None, "The training of worker 0 has ended"))
    assert not cluster[1]


def test_what_ones_own_data_raise_is_told_though_it_could_be_because_of_another(cluster):
    tell(tf.errors.UnavailableError(None, None, "no such host"))
    assert len(cluster[1]) == 1


@pytest.mark.parametrize("gone", ["note_for_all", "end_collectives"])
def test_an_error_stays_ones_own_where_nobody_can_be_told(cluster, monkeypatch, gone):
    monkeypatch.setattr(_tensorflow, gone, no_service)
    tell(KeyboardInterrupt())
    assert len(cluster[1]) == (gone == "note_for_all")


def test_nobody_is_waited_for_without_the_service(cluster, monkeypatch):
    """It is gone where the process that offers it has died: every question is then answered at once."""
    asked = []

    def gone(key, seconds):
        asked.append(key)
        raise tf.errors.UnavailableError(None, None, "no service")

    monkeypatch.setattr(failures, "GRACE", 60.0)
    monkeypatch.setattr(_tensorflow, "noted", gone)
    failures.Training(0, EVERYBODY[2], EVERYBODY).meet()
    tell(ValueError("no data"))
    assert len(asked) == 2
    assert len(cluster[1]) == 1


def test_no_service_is_not_taken_for_no_note():
    with pytest.raises(tf.errors.OpError):  # this process is in no cluster
        _tensorflow.noted("key", 0.0)


def test_ctrl_c_while_the_others_are_waited_for_ends_what_they_wait_in(cluster, monkeypatch):
    """With what they ought to hear: the error, and not that somebody has lost patience."""

    def interrupted(key, seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(_tensorflow, "noted", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tell(ValueError("no data"))
    (said,) = cluster[1]
    assert "ValueError: no data" in said


def test_at_a_meeting_an_error_of_another_is_heard_and_passed_on(cluster, monkeypatch):
    monkeypatch.setattr(failures, "GRACE", 60.0)
    note_error(cluster, EVERYBODY[1], "worker 0 has no data")
    for own in (EVERYBODY[2], EVERYBODY[0]):
        training = failures.Training(0, own, EVERYBODY)
        with pytest.raises(tf.errors.AbortedError, match="worker 0 has no data") as raised:
            training.meet()
        training.tell(raised.value)
        assert cluster[0][training._key("error", own)] == "worker 0 has no data"
    assert not cluster[1]


def test_a_meeting_is_over_when_all_have_come(cluster, monkeypatch):
    monkeypatch.setattr(failures, "GRACE", 60.0)
    trainings = [failures.Training(0, own, EVERYBODY) for own in EVERYBODY]
    asked = []

    def others_come(key, seconds):
        """Both, when one has been asked for in vain; to the second meeting as well."""
        asked.append(key)
        value, place = cluster[0].get(key), key.rpartition("/")[2]
        if value is None and place != "error":
            for other in trainings[:2]:
                other._note(place, "here")
        return value

    monkeypatch.setattr(_tensorflow, "noted", others_come)
    trainings[2].meet()
    trainings[2].meet()
    assert len(asked) == 2 * 5  # the first, the errors of both, the first again, the second


def test_a_note_has_the_time_to_come_from_another_machine(cluster, monkeypatch):
    note_error(cluster, EVERYBODY[0], "the chief has no data")
    monkeypatch.setattr(_tensorflow, "noted", lambda key, seconds: cluster[0].get(key) if seconds > 0.05 else None)
    with pytest.raises(tf.errors.AbortedError, match="the chief has no data"):
        failures.Training(0, EVERYBODY[2], EVERYBODY).meet()


@pytest.mark.parametrize("gone", [False, True], ids=["somebody does not come", "no service"])
def test_who_does_not_come_is_waited_for_in_the_collective_operation(cluster, monkeypatch, gone):
    if gone:
        monkeypatch.setattr(failures, "GRACE", 60.0)
        monkeypatch.setattr(_tensorflow, "note_for_all", no_service)
    failures.Training(0, EVERYBODY[2], EVERYBODY).meet()
    assert not cluster[1]


@pytest.fixture
def third_of_three(monkeypatch):
    monkeypatch.setattr(failures, "across_workers", lambda _: True)
    monkeypatch.setattr(failures, "own_task", lambda _: EVERYBODY[2])
    monkeypatch.setattr(failures, "tasks", lambda _: EVERYBODY)
    monkeypatch.setattr(_tensorflow, "is_coordinated", lambda: True)


def test_only_in_a_training_of_several_workers_they_meet(cluster, third_of_three, monkeypatch):
    failures.meet(None)
    assert not cluster[0]
    with failures.told_to_others(None):
        failures.meet(None)
        assert len(cluster[0]) == 1
        monkeypatch.setattr(failures, "across_workers", lambda _: False)  # of another model, in a callback
        failures.meet(None)
        assert len(cluster[0]) == 1


class UnspeakableError(Exception):
    def __str__(self):
        raise TypeError("no text")


@pytest.mark.parametrize(
    "error, said",
    [(UnspeakableError(), "an error, UnspeakableError. Mend"), (OSError("no file \udcff"), "OSError: no file ?. Mend")],
    ids=["no text", "a name of a file that is no Unicode"],
)
def test_an_error_that_cannot_be_sent_as_it_is_is_told_all_the_same(cluster, error, said):
    tell(error)
    assert said in cluster[1][0]


@pytest.mark.parametrize("fails", ["note_for_all", "noted", "end_collectives"])
def test_the_error_of_the_training_comes_out_whatever_becomes_of_telling_it(
    cluster, third_of_three, monkeypatch, fails
):
    def failing(*_):
        raise RuntimeError("cannot be told")

    monkeypatch.setattr(_tensorflow, fails, failing)
    with pytest.raises(ValueError, match="no data"), failures.told_to_others(None):
        raise ValueError("no data")
    assert len(cluster[1]) == (fails != "end_collectives")


def test_an_error_before_the_first_step_is_told(cluster, third_of_three):
    class Refuses(BackwardObserver):
        def training_begins(self, model, arguments):
            raise ValueError("not this model")

    callback = keras.callbacks.Callback()
    callback.backward_observer = Refuses()
    model = BackpropSequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="not this model"):
        model.fit(np.ones((4, 2)), np.ones((4, 1)), callbacks=[callback], verbose=0)
    assert len(cluster[1]) == 1
