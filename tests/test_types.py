"""What a user's type checker sees."""

import pathlib
import subprocess
import sys

import pytest

pytest.importorskip("mypy")
ROOT = pathlib.Path(__file__).parents[1]

SCRIPT = """
from typing import Any

import keras  # type: ignore[import-untyped]
import numpy as np

import keras_backprop
from keras_backprop import Backward, BackpropSequential, BackwardObserver, Call, Gradients, ObservedLink

model = BackpropSequential([keras.Input((2,)), keras.layers.Dense(1)])
clipped = keras_backprop.gradients.ClippedByExample(1.0)
model.compile("sgd", keras_backprop.losses.HalfMeanSquaredError(), gradients=clipped)
x, y = np.ones((3, 2)), np.ones((3, 1))
model.fit(x, y, callbacks=[keras_backprop.callbacks.GradientCheck(every=2), keras_backprop.callbacks.StopAtError(0.1)])
result: Backward = keras_backprop.backward(model, x, y)
results: dict[str, Backward] = keras_backprop.backward(model, x, loss={"first": keras.ops.square})
print(result.per_example("dense/kernel"), result.example_norms(), result.links[0].path)
print(keras_backprop.explain(model, x, y).to_text())
monitor = keras_backprop.callbacks.BackwardMonitor("dense", ("norm", "gain"), every=2, csv="figures.csv")
print(monitor.history.to_pandas(), monitor.report("report.html", epsilon=0.1), monitor.history[0]["value"])
print(keras_backprop.check_gradients(model, x, y).passed, keras_backprop.check_layer(keras.layers.Dense(2), x))


@keras_backprop.backward_rule(keras.activations.relu)
def relu(call: Call, dy: Any) -> Gradients:
    return Gradients(dy)


class Norms(BackwardObserver):
    def observe(self, link: ObservedLink) -> None:
        self.note(link.path, 1.0)


with keras_backprop.use_rules({keras.activations.relu: relu}):
    pass
"""


def checked(tmp_path, script):
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=", "script.py"]
    run = subprocess.run(
        command, cwd=tmp_path, env={"PATH": "", "MYPYPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    return run.returncode, run.stdout


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("", "Success"),
        ("keras_backprop.backward(model, 1, 2, nonsense=3)", "No overload variant"),
        ("relu(3, 4)", 'Argument 1 to "relu" has incompatible type'),
    ],
)
def test_a_script_under_strict_checking(line, complaint, tmp_path):
    status, said = checked(tmp_path, f"{SCRIPT}\n{line}\n")
    assert complaint in said, said
    assert bool(status) == bool(line)
