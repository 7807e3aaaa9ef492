"""docs/equality.md: every option that the equality suite covers, from its tables.

python -m tests.equality.report
"""

import pathlib

import keras

from tests.equality import compare, grid, options, scenarios

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "equality.md"

TITLES = {
    "problem": "Models",
    "data": "How the data is given",
    "weights": "Sample and class weights",
    "fit": "Arguments of `fit`",
    "optimizer": "Optimizers",
    "compile": "Arguments of `compile`",
    "precision": "Dtype policies",
    "callbacks": "Callbacks",
    "trainable": "Trainable flags",
    "saving": "Saving, loading, copying: stock to ours, ours to stock, ours to ours",
    "training": "Other ways to train",
}


DIFFERENCES = """
## Where one can tell the two apart
* `clone_model` of a `BackpropSequential` is one, where Keras makes a plain `Sequential` of any other subclass. A stock model, loaded from a file
  or not, is made ours by `BackpropModel.from_keras(model)`; the way to stock is `keras.Model(model.inputs, model.outputs)`.
* A model without a name is called after its class, as with Keras's: `backprop_model` and `backprop_sequential`, not `functional` and
  `sequential`. It shows where Keras uses the name: in the paths of a `Sequential`'s weights, and, of a model that is an output of
  another, in the names of losses and metrics (`backprop_sequential_loss`). `from_keras` keeps the name.
* What TensorFlow itself has no gradient for raises `MissingRuleError` before the first update, with the operation's path, and so does
  forward-mode differentiation (`tf.autodiff.ForwardAccumulator`) in steps that run eagerly.
* A few operations have a gradient here and none, or NaN, in TensorFlow: `keras.ops.image.hsv_to_rgb`, `keras.ops.slice_update`, and
  `std` and `cdist` where they are 0. So have cross-entropies, `Poisson` and `KLDivergence` that compute in float16 (`dtype="float16"`, or
  such a `floatx`) next to 0, where Keras's gradient overflows.
* A loss that contains `tf.gradients` over a loop or a call of a function (`keras.layers.GRU`, a convolution in groups, `tf.while_loop`,
  `tf.function`) has its whole gradient here. In stock Keras the part that goes through values within is missing, without an error; over
  a `tf.cond` it fails. With a tape in `call` it is whole in both.
* `shuffle=True` draws another order than stock Keras does where whole epochs run compiled (`docs/fit.md`); every example still comes once
  an epoch, and a seed repeats the run. `epochs_per_execution=None` draws stock's order.
* Targets that do not fit the predictions raise a `ValueError` that says so, whatever stock Keras raises.
* Keras's own tests that fail on our classes, with reasons: `tests/keras_own/differences.txt`.
"""


def is_current():
    """Whether this is the Keras that the page is about: the tables depend on what it has."""
    return keras.__version__.rsplit(".", 1)[0] == "3.15"


def page():
    """The text of docs/equality.md."""
    alone, pairs = grid.alone(), grid.pairs()
    lines = [
        "# What is compared with stock Keras",
        "",
        "Made by `python -m tests.equality.report` from the tables in `tests/equality/`; do not edit.",
        "",
        "A case trains the same model twice from the same seed, once as `keras.Model` and once as `BackpropModel`, for 50",
        "steps where the option allows it. Then all weights and states, the optimizer's variables, the history, the metrics,",
        "`evaluate`, `predict`, `train_on_batch`, `test_on_batch` and the warnings must be equal: texts, types, dtypes,",
        "shapes and the order of keys exactly, numbers within",
        ", ".join(f"{tolerance:g} ({name})" for name, tolerance in options.PRECISION.items())
        + f", {grid.XLA:g} (float32 under XLA),",
        "relative to the largest number of their array or to 1. LoRA is held to the tolerance of float32 in float64 too,",
        "because Keras keeps its weights in float32. Where training lets the rounding of float32 grow beyond this, the case must be",
        f"equal in float64, and its weights, history and so on may be {compare.ROUNDING} times as far from stock Keras's as these move when",
        "inputs, targets and weights begin one unit in the last place higher.",
        "",
        f"{len(alone)} cases have one option, in float32 and in float64. {len(pairs)} cases have an option of every table, so that",
        "every pair of options of different tables that stock Keras accepts occurs (except each optimizer with each model).",
        f"{sum(map(len, scenarios.SCENARIOS.values()))} scenarios are longer programs. A part runs with the tests, all of it with `-m slow`.",
    ]
    for axis, table in {**grid.TABLES, **scenarios.SCENARIOS}.items():
        lines += ["", f"## {TITLES[axis]}", *(f"* {name}" for name in table if name not in ("nothing", "none"))]
    return "\n".join(lines) + "\n" + DIFFERENCES


if __name__ == "__main__":
    PAGE.write_text(page())
