"""The figures that were noted, as records."""

import csv
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np


class Block(NamedTuple):
    """Figures of some steps, of one layout.

    Attributes:
        epochs, steps: arrays of int, shape `(rows,)`.
        losses: array, shape `(rows,)`, the error of each step.
        names: list of (path, of, quantity).
        values: list of arrays, shape `(rows,)` or `(rows, width)`.
        told: array of bool, shape `(rows, figures)`: which figures there are.
    """

    epochs: Any
    steps: Any
    losses: Any
    names: list
    values: list
    told: Any


class History(Sequence):
    """A tidy list of records, one for each figure of each step that was noted. A record is a dict:

    * `epoch`, `step`: int, counted from 0; steps are counted over all epochs, and over all calls of `fit`.
    * `path`: str, of the link, or of the weight.
    * `of`: "activation", "delta", "gradient" or "weight".
    * `quantity`: str, such as "norm".
    * `value`: float; an array for "histogram" and "delta_by_step".

    Records are made when they are asked for; what is kept is arrays.
    """

    def __init__(self) -> None:
        self.blocks: list[Block] = []

    def __len__(self) -> int:
        return sum(int(block.told.sum()) for block in self.blocks)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return list(self)[index]
        position = index + len(self) if index < 0 else index
        for block in self.blocks:
            count = int(block.told.sum())
            if 0 <= position < count:
                row, column = np.argwhere(block.told)[position]
                return _record(block, row, column)
            position -= count
        raise IndexError(f"There are {len(self)} records. Received: index {index}")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for block in self.blocks:
            for row, column in np.argwhere(block.told).tolist():
                yield _record(block, row, column)

    def __repr__(self) -> str:
        steps = sum(len(block.steps) for block in self.blocks)
        return f"<History: {len(self)} records of {steps} steps>"

    @property
    def steps(self) -> Any:
        """The steps that were noted: an array of shape `(rows,)`."""
        return np.concatenate([block.steps for block in self.blocks] or [np.zeros(0, int)])

    @property
    def epochs(self) -> Any:
        """The epoch of each of `steps`."""
        return np.concatenate([block.epochs for block in self.blocks] or [np.zeros(0, int)])

    @property
    def losses(self) -> Any:
        """The error of each of `steps`, penalties included, before the step's update."""
        return np.concatenate([block.losses for block in self.blocks] or [np.zeros(0)])

    def names(self) -> list[tuple[str, str, str]]:
        """What there is: a list of (path, of, quantity), in the order of the forward pass."""
        return list(dict.fromkeys(name for block in self.blocks for name in block.names))

    def series(self, path: str, of: str, quantity: str) -> Any:
        """One figure over time: an array of shape `(rows,)` or `(rows, width)`, a row for each of `steps`, NaN where there is none.

        Raises:
            KeyError: there is no such figure.
        """
        name, parts, known = (path, of, quantity), [], None
        for block in self.blocks:
            if name in block.names:
                column = block.names.index(name)
                known = block.values[column].astype("float64")
                known[~block.told[:, column]] = np.nan
                parts.append(known)
            else:
                parts.append(len(block.steps))
        if known is None:
            raise KeyError(f"There is no figure {name}. There are: {self.names()[:20]}")
        return np.concatenate(
            [np.full((part, *known.shape[1:]), np.nan) if isinstance(part, int) else part for part in parts]
        )

    def to_pandas(self) -> Any:
        """The records as a `pandas.DataFrame`, a column for each key.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("`to_pandas` needs pandas: `pip install pandas`.") from error
        return pd.DataFrame(list(self), columns=KEYS)

    def to_csv(self, path: Any) -> None:
        """Write the records to a file, a line each, with a line of names before them."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(KEYS)
            writer.writerows(line(record) for record in self)


KEYS = ["epoch", "step", "path", "of", "quantity", "value"]


def line(record: dict[str, Any]) -> list[Any]:
    """A record as the fields of a line of a CSV file; arrays as JSON."""
    value = record["value"]
    return [*(record[key] for key in KEYS[:-1]), json.dumps(value.tolist()) if isinstance(value, np.ndarray) else value]


def _record(block, row, column):
    path, of, quantity = block.names[column]
    value = block.values[column][row]
    return {
        "epoch": int(block.epochs[row]), "step": int(block.steps[row]), "path": path, "of": of, "quantity": quantity,
        "value": float(value) if np.ndim(value) == 0 else value,
    }  # fmt: skip
