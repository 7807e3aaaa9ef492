"""`python -m keras_backprop`: the worked example, from the first forward pass to the stop at the threshold.

One input, one hidden and one output unit, both sigmoid. Everything is float64, so that the figures can be
compared digit by digit.
"""

import argparse
import math
import os
import re
import sys
from pathlib import Path
from typing import NoReturn

import keras
import numpy as np

from keras_backprop.callbacks import StopAtError
from keras_backprop.check import check_gradients
from keras_backprop.explain import explain
from keras_backprop.explain.plot import require_matplotlib
from keras_backprop.layers import BackpropDense
from keras_backprop.losses import HalfMeanSquaredError
from keras_backprop.model import BackpropSequential

LARGEST = 1_000_000
"""The largest number that the command line takes: its square, and what follows from it, is still a number."""


def main(arguments=None):
    """Run the worked example.

    Args:
        arguments: list of str, the command line; by default the process's own.

    Returns:
        int, the exit status: 0, or 1 if the explicit gradients do not agree with the tape's.

    Raises:
        SystemExit: with status 2 and one line on standard error, for arguments that make no sense.
    """
    options = _parse(arguments)
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")  # `fit` converts its data to this
    keras.config.set_dtype_policy("float64")
    try:
        return _run(options)
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def _run(options):
    x, target = np.array([[options.input]]), np.array([[options.target]])
    model = build(options.weights, options.learning_rate)
    explanation = explain(model, x, target)
    print(explanation.to_text())
    if abs(explanation.loss - 0.108229563) < 1e-9:
        print("  (Where E is printed as 0.1083, it was calculated by hand with a₂ rounded to 0.7153.)")
    print("\nAfter the first iteration")
    for weight in explanation.weights:
        print(f"  {weight.symbol} = {float(weight.updated.item()):.10f}")
    report = check_gradients(model, x, target)
    print(f"\nThe same gradients from tf.GradientTape and from central differences\n{report}\n")
    stop = StopAtError(options.epsilon)
    history = model.fit(x, target, epochs=options.epochs, callbacks=[stop], verbose=0)
    errors = history.history["loss"]
    print(f"Training: model.fit(epochs={options.epochs}, callbacks=[StopAtError({options.epsilon:g})])")
    if stop.stopped_epoch is None:
        print(
            f"  did not reach ε = {options.epsilon:g} in {_epochs(len(errors))}; the error of the last is {errors[-1]:.9f}"
        )
    else:
        print(
            f"  stopped after {_epochs(stop.stopped_epoch)} with the error {stop.error:.9f} ≤ ε = {options.epsilon:g}"
        )
    print("\nPictures")
    for line in _draw(explanation, errors, options):
        print(f"  {line}")
    return 0 if report.passed else 1


def _epochs(count):
    return "1 epoch" if count == 1 else f"{count} epochs"


def build(weights, learning_rate):
    """The compiled network of the worked example.

    Args:
        weights: w₁, b₁, w₂, b₂.
        learning_rate: float, η.
    """
    model = BackpropSequential(
        [
            keras.Input((1,), dtype="float64"),
            BackpropDense(1, "sigmoid", name="hidden", dtype="float64"),
            BackpropDense(1, "sigmoid", name="output", dtype="float64"),
        ],
        name="worked_example",
    )
    w1, b1, w2, b2 = weights
    model.set_weights([np.array(value) for value in ([[w1]], [b1], [[w2]], [b2])])
    model.compile(keras.optimizers.SGD(learning_rate), loss=HalfMeanSquaredError())
    return model


def _draw(explanation, errors, options):
    """Write the pictures; returns what to say about them."""
    try:
        require_matplotlib("Drawing")
    except ImportError as error:
        return [str(error)]
    network = explanation.plot(options.output_dir / "network.png")
    return [str(network), str(_error_curve(errors, options.epsilon, options.output_dir / "error.png"))]


def _error_curve(errors, epsilon, path):
    """The error of every epoch, on a logarithmic scale, with the line it has to reach."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from keras_backprop.explain.canvas import FAINT, FONTS, GRADIENT, INK

    last, error = len(errors), errors[-1]
    with rc_context({**FONTS, "font.size": 14, "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(7.5, 4.5), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(epsilon, color=GRADIENT, linewidth=1.5, linestyle="--")
        axes.plot(range(1, last + 1), errors, color=INK, linewidth=2.2)
        axes.plot(last, error, "o", color=INK, markersize=8, zorder=3)
        axes.annotate(
            rf"$\varepsilon = {epsilon:g}$", (0.012, epsilon), xycoords=("axes fraction", "data"), xytext=(0, 6),
            textcoords="offset points", color=GRADIENT,
        )  # fmt: skip
        sign = r"\leq" if error <= epsilon else ">"
        axes.set_title(rf"epoch {last}:  $E = {error:.3g} {sign} \varepsilon$", loc="right", fontsize=15, pad=10)
        if min(errors) > 0:
            axes.set_yscale("log")
            axes.set_ylim(0.6 * min(*errors, epsilon), 1.6 * max(*errors, epsilon))
            axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlim(0, 1.04 * last + 0.5)
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("epoch")
        axes.set_ylabel("error $E$ before the epoch's update")
        axes.grid(color=FAINT, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=200)
    return path


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _parse(arguments):
    parser = _Parser(prog="python -m keras_backprop", description="The worked example of backpropagation, step by step.",
                     allow_abbrev=False)  # fmt: skip
    parser._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$", re.IGNORECASE)  # knows no -1e-3
    parser.add_argument("--epochs", type=_count, default=1000, help="at most so many (default: %(default)s)")
    parser.add_argument("--epsilon", type=_positive, default=0.001, help="stop at this error (default: %(default)s)")
    parser.add_argument("--learning-rate", type=_positive, default=0.4, help="η (default: %(default)s)")
    parser.add_argument("--input", type=_number, default=0.1, help="x (default: %(default)s)")
    parser.add_argument("--target", type=_number, default=0.25, help="T (default: %(default)s)")
    parser.add_argument("--weights", type=_number, nargs=4, metavar=("W1", "B1", "W2", "B2"),
                        default=[0.15, 0.40, 0.45, 0.65], help="the start values (default: 0.15 0.4 0.45 0.65)")  # fmt: skip
    parser.add_argument("--output-dir", type=Path, default=Path("keras_backprop_output"),
                        help="where the pictures go (default: ./%(default)s)")  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        options.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"argument --output-dir: cannot create {str(options.output_dir)!r}: {error.strerror}")
    if not os.access(options.output_dir, os.W_OK):
        parser.error(f"argument --output-dir: cannot write to {str(options.output_dir)!r}")
    return options


def _number(text):
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= LARGEST:
        raise argparse.ArgumentTypeError(f"must be a number of at most {LARGEST:,} in size. Received: {text!r}")
    return value


def _positive(text):
    value = _number(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be greater than 0. Received: {text!r}")
    return value


def _count(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more. Received: {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
