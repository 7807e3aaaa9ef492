"""What callbacks that look at the backward pass say of a model that has none of ours."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_backprop.callbacks import BackwardMonitor, ExampleRecorder, GradientCheck, LocateNaN


class OwnStep(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


@pytest.mark.parametrize("callback", [BackwardMonitor, ExampleRecorder, GradientCheck, LocateNaN])
@pytest.mark.parametrize("cls", [keras.Sequential, OwnStep])
def test_a_model_that_trains_by_the_tape_is_refused(cls, callback):
    model = cls([keras.Input((4,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=f"{cls.__name__}. trains by the tape: .*from_keras"):
        model.fit(np.ones((4, 4)), np.ones((4, 1)), verbose=0, callbacks=[callback()])
