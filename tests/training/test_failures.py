"""What a worker tells the others when its training ends with an error. (With real workers: tests/privacy.)"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_backprop import BackpropSequential, _tensorflow
from keras_backprop.observers import BackwardObserver
from keras_backprop.training import failures

EVERYBODY = [("chief", 0), ("worker", 0), ("worker", 1)]


@pytest.fixture
def cluster(monkeypatch):
    """What is noted, by keys; and what all collectives have ended with."""
    noted, ended = {}, []
    monkeypatch.setattr(failures, "GRACE", 0.0)
    monkeypatch.setattr(_tensorflow, "note_for_all", noted.__setitem__)
    monkeypatch.setattr(_tensorflow, "is_noted", lambda key, seconds: key in noted)
    monkeypatch.setattr(_tensorflow, "end_collectives", ended.append)
    return noted, ended


def tell(error, training=0, own=EVERYBODY[2]):
    failures.tell(error, training, own, EVERYBODY)


def test_an_error_of_one_worker_ends_what_the_others_wait_in(cluster):
    tell(ValueError("no data"))
    assert cluster[1] == [
        "The training of worker 1 has ended with an error, ValueError: no data. Mend it there, and start all workers again."
    ]


def test_an_error_that_all_have_ends_nothing(cluster):
    for training in (0, 1):
        for own in EVERYBODY[:2]:
            cluster[0][failures._key(training, own)] = "ValueError"
        tell(ValueError("refused"), training)
    assert not cluster[1]
    tell(ValueError("no data"), training=2)  # those of earlier trainings do not count
    assert len(cluster[1]) == 1


def test_what_is_because_of_another_worker_is_not_told_again(cluster):
    cluster[0][failures._key(0, EVERYBODY[1])] = "ValueError"
    tell(tf.errors.AbortedError(None, None, "The training of worker 0 has ended"))
    assert list(cluster[0].values()) == ["ValueError", "AbortedError"] and not cluster[1]


def test_what_ones_own_data_raise_is_told_though_it_could_be_because_of_another(cluster):
    tell(tf.errors.UnavailableError(None, None, "no such host"))
    assert len(cluster[1]) == 1


@pytest.mark.parametrize("gone", ["note_for_all", "end_collectives"])
def test_an_error_stays_ones_own_where_nobody_can_be_told(cluster, monkeypatch, gone):
    def refuse(*_):
        raise tf.errors.UnavailableError(None, None, "no service")

    monkeypatch.setattr(_tensorflow, gone, refuse)
    tell(KeyboardInterrupt())
    assert len(cluster[1]) == (gone == "note_for_all")


def test_an_error_before_the_first_step_is_told(cluster, monkeypatch):
    monkeypatch.setattr(failures, "across_workers", lambda _: True)
    monkeypatch.setattr(failures, "own_task", lambda _: EVERYBODY[2])
    monkeypatch.setattr(failures, "tasks", lambda _: EVERYBODY)
    monkeypatch.setattr(_tensorflow, "is_coordinated", lambda: True)

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
