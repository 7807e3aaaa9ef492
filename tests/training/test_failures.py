"""What a worker tells the others when its training ends with an error. (With real workers: tests/privacy.)"""

import pytest
import tensorflow as tf

from keras_backprop import _tensorflow
from keras_backprop.training import failures

EVERYBODY = [("chief", 0), ("worker", 0), ("worker", 1)]


@pytest.fixture
def cluster(monkeypatch):
    """What is noted, by keys; and what all collectives have ended with."""
    noted, ended = {}, []
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
    tell(tf.errors.AbortedError(None, None, "The training of worker 0 has ended"))
    assert list(cluster[0].values()) == ["AbortedError"] and not cluster[1]
