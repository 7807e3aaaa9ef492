"""The command line: which network, which data, and what is asked of them."""

import argparse
import csv
import itertools
import math
import os
import re
from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np

from keras_backprop.explanations.exercise import exercise
from keras_backprop.losses import HalfMeanSquaredError, HalfSquaredError

__all__ = ["LOSSES", "Parser", "data_of", "options_of", "weights_of"]

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


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def options_of(arguments):
    parser = Parser(prog="python -m keras_backprop", description="An example of backpropagation, step by step.",
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
    add("--seed", type=_seed, default=0, help="of the round numbers (default: %(default)s)")
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


def _seed(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, 0 or more. Received: {text!r}")
    return int(text)


def _count(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more. Received: {text!r}")
    return int(text)


def data_of(options: Any, parser: Parser) -> Any:
    """Inputs and targets, of shape (examples, numbers)."""
    x, target = _given_data(options, parser)
    if options.loss == "categorical_crossentropy":
        if options.outputs < 2:
            parser.error("argument --loss: categorical_crossentropy is of two or more --outputs, one for each class.")
        if np.any(target < 0) or not np.allclose(target.sum(-1), 1):
            parser.error(
                "argument --target: with categorical_crossentropy the numbers of an example are shares and add up to 1. "
                f"Received: {target.tolist()}"
            )
    if options.loss == "binary_crossentropy" and (np.any(target < 0) or np.any(target > 1)):
        parser.error(
            "argument --target: with binary_crossentropy a number is a class, 0 or 1, or a share between the two. "
            f"Received: {target.tolist()}"
        )
    if "crossentropy" in options.loss and options.last_activation not in (None, "sigmoid", "softmax"):
        parser.error(
            f"argument --last-activation: {options.loss} is of probabilities, which sigmoid and softmax give. "
            f"Received: {options.last_activation!r}"
        )
    return x, target


def _given_data(options, parser):
    if options.csv is not None:
        rows = _read(options.csv, parser)
        if rows.shape[1] <= options.outputs:
            parser.error(
                f"argument --csv: {rows.shape[1]} columns are no inputs and {options.outputs} targets. See --outputs."
            )
        return rows[:, : -options.outputs], rows[:, -options.outputs :]
    textbook = options.hidden == [2] and options.outputs == 2
    x = options.input or ([[0.05, 0.10]] if textbook else [[0.1]])
    shares = [1.0] + [0.0] * (options.outputs - 1) if options.loss == "categorical_crossentropy" else None
    target = options.target or [shares or ([0.01, 0.99] if textbook else [0.25] * options.outputs)]
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
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        parser.error(f"argument --csv: cannot read {str(path)!r}: {error.strerror}")
    except UnicodeDecodeError:
        parser.error(f"argument --csv: {str(path)!r} is no text in UTF-8.")
    sign = next((sign for sign in ";\t" if sign in text), ",")
    decimal = "," if sign == ";" else "."  # as spreadsheets write it where the comma is the decimal sign
    lines = [line for line in csv.reader(text.splitlines(), delimiter=sign) if any(cell.strip() for cell in line)]
    rows: list = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append([_number(cell.replace(decimal, ".")) for cell in line])
        except argparse.ArgumentTypeError as error:
            if number > 1:
                parser.error(f"argument --csv: line {number} of {str(path)!r}: {error}")
    if not rows:
        parser.error(f"argument --csv: {str(path)!r} has no numbers: a line for each example, inputs and then targets.")
    if len({len(row) for row in rows}) > 1:
        parser.error(f"argument --csv: {str(path)!r} must have as many numbers in every line.")
    return np.array(rows)


def weights_of(options, units, parser: "Parser") -> list:
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
