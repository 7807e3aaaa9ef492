"""The ways to call `fit`, against stock Keras: callbacks, kinds of data, steps of one's own, one model after another.

Both sides run the same program from the same seed, and what it has trained must be equal; then the times are compared.
"""

import contextlib
import dataclasses
import importlib.util
import itertools
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_backprop
from benchmarks import own_steps
from benchmarks.timing import Times, timed

BASES = {
    "stock": (keras.Sequential, keras.Model),
    "ours": (keras_backprop.BackpropSequential, keras_backprop.BackpropModel),
}


@dataclasses.dataclass
class Way:
    """One way to train.

    Attributes:
        name: str.
        begin: function `(Sequential, Model, folder) -> function`: what is not timed, and returns what is. That takes no
            arguments and returns the trained model.
        wanted: float, how many times faster than stock Keras ours is to be.
        needs: str, the package without which it is left out.
        tolerance: float, by how much weights may differ, relative to the largest of their array or to 1: rounding, grown over
            a thousand steps. Two networks that train each other let it grow more.
    """

    name: str
    begin: Callable[..., Callable[[], Any]]
    wanted: float
    needs: str = "keras"
    tolerance: float = 1e-4


def digits():
    """Images of 8 × 8 in rows, float32, and classes."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return (data.data / 16).astype("float32"), data.target


def network(Sequential):
    """The network of digits, compiled."""
    model = Sequential(
        [keras.Input((64,)), layers.Dense(128, "relu"), layers.Dense(64, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def ways(epochs=20, rows=None):
    """All of them, a list.

    Args:
        epochs: int, of a `fit`.
        rows: int, how many examples; None for all.
    """
    x, y = (array[:rows] for array in digits())

    def fit(model, **options):
        given = {"x": x, "y": y, "batch_size": 32, "shuffle": False, "epochs": epochs, "verbose": 0}
        model.fit(**given | options)
        return model

    def from_building(Sequential, Model, folder):
        return lambda: fit(network(Sequential))

    def second_fit(Sequential, Model, folder):
        model = fit(network(Sequential))
        return lambda: fit(model)

    def second_model(Sequential, Model, folder):
        fit(network(Sequential))
        return lambda: fit(network(Sequential))

    def with_callbacks(*makers):
        def begin(Sequential, Model, folder):
            return lambda: fit(network(Sequential), callbacks=[make(folder) for make in makers])

        return begin

    def with_data(make):
        def begin(Sequential, Model, folder):
            data = make()
            return lambda: fit(network(Sequential), batch_size=None, shuffle=None, y=None, **data)

        return begin

    def with_steps(make):
        def begin(Sequential, Model, folder):
            return lambda: fit(make(Model))

        return begin

    def cached():
        return {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(32).cache()}

    def generated():
        cuts = range(0, len(x), 32)
        batches = (part for _ in itertools.count() for part in ((x[i : i + 32], y[i : i + 32]) for i in cuts))
        return {"x": batches, "steps_per_epoch": len(cuts)}

    def tracked(Sequential, Model, folder):
        with mlflow_autolog(folder) as mlflow:
            mlflow.set_experiment("digits")  # makes the database, which takes seconds

        def run():
            with mlflow_autolog(folder):
                return fit(network(Sequential))

        return run

    digits_wanted = {
        "TensorBoard": lambda folder: keras.callbacks.TensorBoard(folder / "events"),
        "TerminateOnNaN": lambda folder: keras.callbacks.TerminateOnNaN(),
        "BackupAndRestore": lambda folder: keras.callbacks.BackupAndRestore(folder / "backup"),
        "EarlyStopping": lambda folder: keras.callbacks.EarlyStopping("loss", patience=epochs),
        "ModelCheckpoint": lambda folder: keras.callbacks.ModelCheckpoint(folder / "{epoch}.keras"),
    }
    return [
        Way("digits, from building the model", from_building, 10),
        Way("digits, a second fit", second_fit, 15),
        Way("digits, a second model of the same configuration", second_model, 12),
        *(Way(f"digits with {name}", with_callbacks(make), 5) for name, make in digits_wanted.items()),
        Way("digits with all five callbacks", with_callbacks(*digits_wanted.values()), 5),
        Way("digits with MLflow's autolog", tracked, 5, needs="mlflow"),
        Way("digits from tf.data, cached", with_data(cached), 3),
        Way("digits from a generator", with_data(generated), 1.5),
        Way("DCGAN, steps of its own", with_steps(own_steps.dcgan), 4, tolerance=1e-3),
        Way("VAE, steps of its own", with_steps(own_steps.vae), 4),
        Way("distillation, steps of its own", with_steps(own_steps.distillation), 4),
    ]


def measure(way, repeats=3):
    """Run both sides in turn.

    Returns:
        dict side -> `Times`.

    Raises:
        AssertionError: the two sides have trained something else.
    """
    times = {side: Times() for side in BASES}
    for _ in range(repeats):
        trained: list = []
        for side, bases in BASES.items():
            with tempfile.TemporaryDirectory() as folder:
                keras.utils.set_random_seed(0)
                run = way.begin(*bases, pathlib.Path(folder))
                times[side].append(timed(lambda: trained.append(run())))  # noqa: B023  it is called here
        require_equal(*trained, way)
    return times


def require_equal(one, other, way):
    """Weights, states and history of two models, trained in this `Way`, are equal.

    Raises:
        AssertionError: they are not.
    """
    for a, b in zip(one.weights, other.weights, strict=True):
        a, b = keras.ops.convert_to_numpy(a), keras.ops.convert_to_numpy(b)
        np.testing.assert_allclose(
            b, a, rtol=0, atol=way.tolerance * max(1, np.abs(a).max(initial=0)), err_msg=way.name
        )
    assert list(one.history.history) == list(other.history.history), way.name
    for key, values in one.history.history.items():
        np.testing.assert_allclose(other.history.history[key], values, rtol=0, atol=0.01, err_msg=f"{way.name}: {key}")


@contextlib.contextmanager
def mlflow_autolog(folder):
    """MLflow notes every `fit` in a database of its own."""
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.tensorflow.autolog(log_models=False, silent=True)
    try:
        yield mlflow
    finally:
        mlflow.tensorflow.autolog(disable=True, silent=True)
        mlflow.set_tracking_uri(before)


def available(way):
    """Whether what it needs is installed."""
    return importlib.util.find_spec(way.needs) is not None
