"""Whole trainings through `fit`, tracing included, against stock Keras and against what a user would write instead."""

import dataclasses
import json
import pathlib
import subprocess
import tempfile
import warnings

import keras
import numpy as np
from keras import layers

import keras_backprop
from benchmarks import by_hand
from benchmarks.timing import Times, once_each


@dataclasses.dataclass
class Task:
    """A chain of dense layers and the data it is trained on.

    Attributes:
        name: str.
        x, y: arrays. Classes, or numbers of shape (n, 1).
        sizes: tuple, the widths from the input to the output.
        epochs, batch: int.
        hidden, output: str, activations.
        squared: bool, the error is half the mean squared error, else the cross-entropy.
        adam: bool, else SGD. rate: float.
        stop: float, the error at which training stops; None to go on.
        shuffle: bool.
        wanted: str, what our time is to stay below.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    sizes: tuple
    epochs: int
    batch: int = 32
    hidden: str = "relu"
    output: str = "softmax"
    squared: bool = False
    adam: bool = True
    rate: float = 0.001
    stop: float | None = None
    shuffle: bool = True
    wanted: str = ""

    def targets(self):
        """What the outputs are compared with: one-hot for classes."""
        return self.y if self.output == "sigmoid" else np.eye(self.sizes[-1])[self.y]

    def fit(self, side):
        """Build, compile and fit: all that a user's script does. Returns the history."""
        keras.utils.set_random_seed(0)
        hidden = [layers.Dense(size, self.hidden) for size in self.sizes[1:-1]]
        chain = [keras.Input(self.sizes[:1]), *hidden, layers.Dense(self.sizes[-1], self.output)]
        model = (keras.Sequential if side == "stock" else keras_backprop.BackpropSequential)(chain)
        loss = "binary_crossentropy" if self.output == "sigmoid" else "sparse_categorical_crossentropy"
        if self.squared:
            loss = keras_backprop.losses.HalfMeanSquaredError()
            model.set_weights([np.array(w) for w in ([[0.15]], [0.40], [[0.45]], [0.65])])
        model.compile((keras.optimizers.Adam if self.adam else keras.optimizers.SGD)(self.rate), loss)
        stop = [] if self.stop is None else [keras_backprop.callbacks.StopAtError(self.stop)]
        return model.fit(
            self.x, self.y, batch_size=self.batch, epochs=self.epochs, verbose=0, callbacks=stop, shuffle=self.shuffle
        )


def tasks():
    """The trainings of the table."""
    from sklearn.datasets import load_breast_cancer, load_digits
    from sklearn.preprocessing import StandardScaler

    note = {
        "x": np.array([[0.1]]), "y": np.array([[0.25]]), "sizes": (1, 1, 1), "hidden": "sigmoid", "output": "sigmoid",
        "squared": True, "adam": False, "rate": 0.4, "shuffle": False, "epochs": 1000,
    }  # fmt: skip
    digits, cancer = load_digits(), load_breast_cancer()
    return [
        Task("the note's network to ε, 82 epochs", **note, stop=0.001, wanted="stock / 10, compiled loop · 5"),
        Task("the note's network, 1000 epochs", **note, wanted="stock / 100, compiled loop · 5"),
        Task(
            "digits MLP 64-128-64-10, batch 32, 20 epochs", (digits.data / 16).astype("float32"), digits.target,
            (64, 128, 64, 10), 20, wanted="stock / 15, scikit-learn, PyTorch",
        ),
        Task(
            "breast cancer, logistic regression, 50 epochs", StandardScaler().fit_transform(cancer.data).astype("float32"),
            cancer.target[:, None], (30, 1), 50, output="sigmoid", rate=0.01,
        ),
    ]  # fmt: skip


def scikit_learn(task):
    """scikit-learn's own backpropagation of the same chain; None where it has none."""
    from sklearn.neural_network import MLPClassifier

    if task.squared:
        return None
    model = MLPClassifier(
        task.sizes[1:-1], solver="adam", alpha=0.0, batch_size=task.batch, learning_rate_init=task.rate,
        max_iter=task.epochs, tol=0.0, n_iter_no_change=task.epochs, random_state=0,
    )  # fmt: skip

    def fit():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it has not converged
            model.fit(task.x, task.y.ravel())

    return fit


def measure(task, repeats=3, torch_python=None):
    """dict contender -> `Times` of one whole training."""
    contenders = {
        "ours": lambda: task.fit("ours"),
        "stock": lambda: task.fit("stock"),
        "compiled loop": lambda: by_hand.compiled_loop(task, task.epochs),
        "NumPy": lambda: by_hand.numpy_loop(task, task.epochs),
    }
    if (sklearn := scikit_learn(task)) is not None:
        contenders["scikit-learn"] = sklearn
    times = once_each(contenders, repeats)
    if torch_python:
        times["PyTorch"] = torch_times(torch_python, "fit", task, repeats)
    return times


def torch_times(python, what, task, repeats):
    """`Times` of PyTorch's loop, in a process of the interpreter that has it; None where that fails."""
    with tempfile.TemporaryDirectory() as folder:
        data = pathlib.Path(folder) / "task.npz"
        options = {name: value for name, value in vars(task).items() if name not in ("x", "y")}
        np.savez(data, x=task.x, y=task.y, options=json.dumps(options))
        script = pathlib.Path(__file__).with_name("torch_loop.py")
        done = subprocess.run(
            [python, str(script), what, str(data), str(repeats)], capture_output=True, text=True, check=False
        )
    return Times(json.loads(done.stdout)) if done.returncode == 0 else None
