"""`python -m keras_backprop`: the worked example, from the first forward pass to the stop at the threshold.

One input, one hidden and one output unit, both sigmoid; or the network of any such exercise: `--hidden 2 --outputs 2`.
Everything is float64, so that the figures can be compared digit by digit.
"""

import argparse
import csv
import itertools
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
from keras_backprop.explanations import exercise, explain, steps
from keras_backprop.explanations.notation import plain
from keras_backprop.explanations.plot import require_matplotlib
from keras_backprop.explanations.spelling import Spelling
from keras_backprop.layers import BackpropDense
from keras_backprop.losses import HalfMeanSquaredError, HalfSquaredError
from keras_backprop.model import BackpropSequential

LARGEST = 1_000_000
"""The largest number that the command line takes: its square, and what follows from it, is still a number."""

NOTE = [0.15, 0.40, 0.45, 0.65]
"""w₁, b₁, w₂, b₂ of the worked example."""

TEXTBOOK = [0.15, 0.20, 0.25, 0.30, 0.35, 0.40, 0.45, 0.50, 0.55, 0.60]
"""The 2-2-2 network of many textbooks: w₁ … w₄, b₁, w₅ … w₈, b₂."""

LOSSES = {
    "half_squared": HalfSquaredError, "half_mean_squared": HalfMeanSquaredError, "mse": keras.losses.MeanSquaredError,
    "binary_crossentropy": keras.losses.BinaryCrossentropy, "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
}  # fmt: skip


def main(arguments=None):
    """Run the worked example, or another.

    Args:
        arguments: list of str, the command line; by default the process's own.

    Returns:
        int, the exit status: 0, or 1 if the explicit gradients do not agree with the tape's.

    Raises:
        SystemExit: with status 2 and one line on standard error, for arguments that make no sense.
    """
    options, parser = _parse(arguments)
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")  # `fit` converts its data to this
    keras.config.set_dtype_policy("float64")
    try:
        return _run(options, parser)
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def _run(options, parser):
    model, x, target = _set_up(options, parser)
    explanation = explain(model, x, target)
    print(explanation.to_text(digits=options.digits, example=options.example))
    if abs(explanation.loss - 0.108229563) < 1e-9:
        print("  (Where E is printed as 0.1083, it was calculated by hand with a₂ rounded to 0.7153.)")
    print("\nAfter the first iteration")
    for line in _updated(explanation):
        print(f"  {line}")
    _asked(options, parser, explanation, model, x, target)
    report = check_gradients(model, x, target)
    print(f"\nThe same gradients from tf.GradientTape and from central differences\n{report}\n")
    stop = StopAtError(options.epsilon)
    batch = len(x)
    history = model.fit(x, target, epochs=options.epochs, batch_size=batch, shuffle=False, callbacks=[stop], verbose=0)
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


def _updated(explanation):
    """`w₂ = 0.4271718…` for every single new weight, counted through the network where there are several."""
    spelling = Spelling(explanation, explanation.graph)
    for weight in explanation.weights:
        for index in np.ndindex(weight.value.shape):
            also = spelling.running(weight.path, index)
            name = plain(spelling.name(weight.path, index))
            counted = (
                f" (w{str(also).translate(_SUBSCRIPTS)})" if also is not None and weight.symbol.letter == "W" else ""
            )
            yield f"{name}{counted} = {float(weight.updated[index]):.10f}"


_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def _asked(options, parser, explanation, model, x, target):
    """What `--chain`, `--compare` and `--steps` ask for."""
    for name in options.chain or ():
        try:
            print(f"\n{explanation.chain(name, example=options.example).to_text(digits=options.digits)}")
        except (KeyError, IndexError) as error:
            parser.error(f"argument --chain: {error.args[0]}")
    if options.compare:
        print("\nYour numbers")
        for given in options.compare:
            name, _, number = given.rpartition("=")
            try:
                print(f"  {explanation.compare(name.strip(), number.strip(), example=options.example)}")
            except (KeyError, IndexError, ValueError) as error:
                parser.error(
                    f"argument --compare: {error.args[0] if name else 'write NAME=NUMBER, as in dw5=0.0822'}. Received: {given!r}"
                )
    if options.steps:
        print(f"\n{steps(model, x, target, options.steps).to_text(digits=options.digits)}")


def _epochs(count):
    return "1 epoch" if count == 1 else f"{count} epochs"


def _set_up(options, parser):
    """The model and the data that the command line asks for."""
    x, target = _data(options, parser)
    units = [x.shape[1], *options.hidden, target.shape[1]]
    weights = _weights(options, units, parser)
    loss = LOSSES[options.loss](dtype="float64")
    last = options.last_activation or {"categorical_crossentropy": "softmax", "binary_crossentropy": "sigmoid"}.get(
        options.loss, options.activation
    )
    name = "worked_example" if units == [1, 1, 1] else "network_" + "_".join(map(str, units))
    rate = options.learning_rate if options.learning_rate is not None else 0.4 if units == [1, 1, 1] else 0.5
    model = build(weights, rate, units, options.activation, last, loss, options.hold_biases, name)
    if options.example is not None and not 1 <= options.example <= len(x):
        parser.error(f"argument --example: must be from 1 to {len(x)}. Received: {options.example}")
    options.example = None if options.example is None else options.example - 1
    return model, x, target


def _data(options, parser):
    """Inputs and targets, of shape (examples, numbers)."""
    if options.csv is not None:
        rows = _read(options.csv, parser)
        if rows.shape[1] <= options.outputs:
            parser.error(
                f"argument --csv: {rows.shape[1]} columns are no inputs and {options.outputs} targets. See --outputs."
            )
        return rows[:, : -options.outputs], rows[:, -options.outputs :]
    textbook = options.hidden == [2] and options.outputs == 2
    x = options.input or ([[0.05, 0.10]] if textbook else [[0.1]])
    target = options.target or ([[0.01, 0.99]] if textbook else [[0.25] * options.outputs])
    for name, rows in (("--input", x), ("--target", target)):
        if len({len(row) for row in rows}) > 1:
            parser.error(f"argument {name}: every example must have as many numbers. Received: {rows}")
    if len(x) != len(target):
        parser.error(f"argument --target: there must be one for each --input. Received: {len(x)} and {len(target)}")
    if len(target[0]) != options.outputs:
        parser.error(
            f"argument --target: {options.outputs} numbers are needed (see --outputs). Received: {len(target[0])}"
        )
    return np.array(x), np.array(target)


def _read(path, parser):
    """The numbers of a CSV file; a first line that is none is a head."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if any(cell.strip() for cell in line)]
    except OSError as error:
        parser.error(f"argument --csv: cannot read {str(path)!r}: {error.strerror}")
    rows: list = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append([_number(cell) for cell in line])
        except argparse.ArgumentTypeError as error:
            if number > 1:
                parser.error(f"argument --csv: line {number} of {str(path)!r}: {error}")
    if not rows or len({len(row) for row in rows}) > 1:
        parser.error(f"argument --csv: {str(path)!r} must have lines of as many numbers each.")
    return np.array(rows)


def _weights(options, units, parser: "_Parser") -> list:
    """A list of arrays as `set_weights` takes it."""
    sizes = list(itertools.pairwise(units))
    count, layers, biases = sum(i * o for i, o in sizes), len(sizes), sum(o for _, o in sizes)
    given: list = options.weights
    if given is None:
        given = NOTE if units == [1, 1, 1] else TEXTBOOK if units == [2, 2, 2] else None
        if given is None and options.biases is None:
            return exercise(*units, seed=options.seed).model.get_weights()
        if given is None:
            parser.error("argument --biases: give --weights too")
    extra = options.biases
    if extra is None and len(given) == count:
        extra = [0.0] * layers
    if extra is None:
        given = list(given)
        each = {count + layers: [1] * layers, count + biases: [o for _, o in sizes]}.get(len(given))
        if each is None:
            parser.error(
                f"argument --weights: {count} weights are needed, or these with {layers} biases (one for each layer, behind its "
                f"weights) or {biases} (one for each unit). Received: {len(given)} numbers"
            )
        rest: list = list(given)
        given, extra = [], []
        for (i, o), n in zip(sizes, each, strict=True):
            given, extra, rest = given + rest[: i * o], extra + rest[i * o : i * o + n], rest[i * o + n :]
    if len(given) != count:
        parser.error(f"argument --weights: {count} weights are needed beside --biases. Received: {len(given)} numbers")
    if len(extra) not in (layers, biases):
        parser.error(f"argument --biases: {layers} (one for each layer) or {biases} are needed. Received: {len(extra)}")
    every = []
    shared = len(extra) == layers
    for i, o in sizes:
        every.append(np.reshape(given[: i * o], (o, i)).T)
        every.append(np.full(o, extra[0]) if shared else np.array(extra[:o]))
        given, extra = given[i * o :], extra[1 if shared else o :]
    return every


def build(
    weights,
    learning_rate,
    units=(1, 1, 1),
    activation="sigmoid",
    last="sigmoid",
    loss=None,
    hold_biases=False,
    name="worked_example",
):
    """The compiled network of the worked example, or another.

    Args:
        weights: w₁, b₁, w₂, b₂; or a list of arrays as `set_weights` takes it.
        learning_rate: float, η.
        units: list of int, from the inputs to the outputs.
        activation, last: names, of the hidden layers and of the last.
        loss: a loss; by default half the mean squared error.
        hold_biases: bool, whether the biases are not trained.
        name: str, the model's.
    """
    names = ["hidden"] if len(units) == 3 else [f"hidden_{i}" for i in range(1, len(units) - 1)]
    functions = [activation] * (len(units) - 2) + [last]
    layers = [
        BackpropDense(n, function, name=layer, dtype="float64")
        for n, function, layer in zip(units[1:], functions, [*names, "output"], strict=True)
    ]
    model = BackpropSequential([keras.Input((units[0],), dtype="float64"), *layers], name=name)
    shapes = [weight.shape for weight in model.get_weights()]
    model.set_weights([np.reshape(value, shape) for value, shape in zip(weights, shapes, strict=True)])
    for layer in layers:
        layer.bias.trainable = not hold_biases
    model.compile(keras.optimizers.SGD(learning_rate), loss=loss or HalfMeanSquaredError())
    return model


def _draw(explanation, errors, options):
    """Write the pictures; returns what to say about them."""
    try:
        require_matplotlib("Drawing")
    except ImportError as error:
        return [str(error)]
    from keras_backprop.explanations.curve import error_curve

    network = explanation.plot(options.output_dir / "network.png", example=options.example)
    return [str(network), str(error_curve(errors, options.epsilon, options.output_dir / "error.png"))]


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _parse(arguments):
    parser = _Parser(prog="python -m keras_backprop", description="An example of backpropagation, step by step.",
                     allow_abbrev=False)  # fmt: skip
    parser._negative_number_matcher = re.compile(r"^-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$", re.IGNORECASE)  # knows no -1e-3
    add = parser.add_argument
    add("--epochs", type=_count, default=1000, help="at most so many (default: %(default)s)")
    add("--epsilon", type=_positive, default=0.001, help="stop at this error (default: %(default)s)")
    add("--learning-rate", type=_positive, help="η (default: 0.4, of other networks 0.5)")
    add("--hidden", type=_count, nargs="+", default=[1], help="units of the hidden layers (default: 1)")
    add("--outputs", type=_count, default=1, help="units of the last layer (default: %(default)s)")
    add("--input", "--inputs", type=_number, nargs="+", action="append",
        help="x, all numbers of an example; once for each example (default: 0.1)")  # fmt: skip
    add("--target", "--targets", type=_number, nargs="+", action="append", help="T, likewise (default: 0.25)")
    add("--csv", type=Path, metavar="FILE", help="examples, a line each: inputs, then targets")
    add("--weights", type=_number, nargs="+", metavar="W",
        help="layer by layer, in a layer unit by unit; behind a layer's weights its biases, one for all units or one for each "
        "(default: 0.15 0.4 0.45 0.65; of 2-2-2 the textbook's; of others round numbers)")  # fmt: skip
    add("--biases", type=_number, nargs="+", metavar="B", help="the biases, if they are not among --weights")
    add("--hold-biases", action="store_true", help="do not train the biases")
    add("--activation", default="sigmoid", choices=["sigmoid", "tanh", "relu", "linear"], help="(default: %(default)s)")
    add(
        "--last-activation",
        choices=["sigmoid", "tanh", "relu", "linear", "softmax"],
        help="of the last layer (default: the same)",
    )
    add("--loss", default="half_squared", choices=list(LOSSES), help="the error (default: %(default)s)")
    add("--chain", nargs="+", metavar="WEIGHT", help="every path to these weights: w5, w2_11, b1_2")
    add(
        "--compare",
        nargs="+",
        metavar="NAME=NUMBER",
        help="your own numbers, dw5=0.0822 w5_new=0.3589: which mistake is it?",
    )
    add("--steps", type=_count, metavar="N", help="N updates as a table")
    add("--digits", type=_count, help="decimals (default: 4)")
    add("--example", type=_count, help="the only example to show, from 1")
    add("--seed", type=int, default=0, help="of the round numbers (default: %(default)s)")
    add(
        "--output-dir",
        type=Path,
        default=Path("keras_backprop_output"),
        help="where the pictures go (default: ./%(default)s)",
    )
    options = parser.parse_args(arguments)
    if options.digits is not None and options.digits > 17:
        parser.error(f"argument --digits: must be from 1 to 17. Received: {options.digits}")
    try:
        options.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"argument --output-dir: cannot create {str(options.output_dir)!r}: {error.strerror}")
    if not os.access(options.output_dir, os.W_OK):
        parser.error(f"argument --output-dir: cannot write to {str(options.output_dir)!r}")
    return options, parser


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
