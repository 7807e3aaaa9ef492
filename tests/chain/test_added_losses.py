"""Replicas are threads that share layers, and take turns where they wait for each other."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import keras
import pytest

from keras_backprop import _keras


def test_what_a_thread_adds_to_the_error_is_its_own():
    layer, together = keras.layers.Dense(1), Barrier(2)
    layer.add_loss(keras.ops.convert_to_tensor(0.0))
    shared = vars(layer)["_losses"]

    def replica(value):
        with _keras.own_added_losses(layer):
            before = list(layer.losses)
            layer.add_loss(keras.ops.convert_to_tensor(value))
            together.wait(timeout=10)
            with _keras.own_added_losses(layer):
                layer.add_loss(keras.ops.convert_to_tensor(3.0))
            together.wait(timeout=10)
            return before, [float(loss) for loss in layer.losses], _keras.added_losses(layer)

    with ThreadPoolExecutor(2) as threads:
        for value, (before, losses, added) in zip([1.0, 2.0], threads.map(replica, [1.0, 2.0]), strict=True):
            assert before == [] and losses == [value] and len(added) == 1
    assert [float(loss) for loss in layer.losses] == [0.0]
    assert vars(layer)["_losses"] is shared


def test_a_block_that_fails_gives_the_list_back():
    layer = keras.layers.Dense(1)
    shared = vars(layer)["_losses"]
    with pytest.raises(KeyError), _keras.own_added_losses(layer):
        raise KeyError
    assert vars(layer)["_losses"] is shared
