"""The small model that the scenarios train."""

import keras
from keras import layers

from tests.equality.models import FEATURES, NUMBERS

FIT = {"batch_size": 16, "shuffle": False, "verbose": 0}


def small(k, hidden="tanh", name=None):
    inputs = keras.Input((6,))
    h = layers.Dropout(0.2, seed=3)(layers.Dense(5, hidden, name="hidden")(inputs))
    return k.Model(inputs, layers.Dense(1, name="top")(layers.BatchNormalization()(h)), name=name)


def compiled(k, optimizer="adam", **options):
    model = small(k)
    model.compile(optimizer, "mse", **{"metrics": ["mae"], **options})
    return model


def fitted(model, epochs=10, **options):
    return model.fit(FEATURES, NUMBERS, epochs=epochs, **{**FIT, **options})
