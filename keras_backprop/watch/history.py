"""The figures that were noted, as records."""

import csv
import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np


class Block:
    """Figures of some steps, of one layout. They are made of what was measured when somebody asks for them.

    Args:
        epoch: int.
        steps: array of int, shape `(rows,)`.
        rows: `Rows`, what was measured.
    """

    def __init__(self, epoch: int, steps: Any, rows: Any) -> None:
        self.steps, self._rows = steps, rows
        self.epochs = np.full(len(steps), epoch)
        self.names = [figure[:3] for figure in rows.layout.figures]

    @functools.cached_property
    def values(self) -> list[Any]:
        """An array for each of `names`, of shape `(rows,)` or `(rows, width)`."""
        return [self._rows.values(figure) for figure in self._rows.layout.figures]

    @functools.cached_property
    def told(self) -> Any:
        """Which figures there are: booleans of shape `(rows, figures)`."""
        told = [self._rows.told(figure) for figure in self._rows.layout.figures]
        return np.stack([np.full(len(self.steps), True) if t is None else t for t in told], 1)

    @property
    def losses(self) -> Any:
        """The error of each step, shape `(rows,)`."""
        return self._rows.loss

    def __len__(self) -> int:
        return int(self.told.sum())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self.record(row, column) for row, column in np.argwhere(self.told).tolist())

    def record(self, row: int, column: int) -> dict[str, Any]:
        """One figure of one step."""
        path, of, quantity = self.names[column]
        value = self.values[column][row]
        return {
            "epoch": int(self.epochs[row]), "step": int(self.steps[row]), "path": path, "of": of, "quantity": quantity,
            "value": float(value) if np.ndim(value) == 0 else value,
        }  # fmt: skip


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
        return sum(map(len, self.blocks))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return list(self)[index]
        position = index + len(self) if index < 0 else index
        for block in self.blocks:
            if 0 <= position < len(block):
                return block.record(*np.argwhere(block.told)[position])
            position -= len(block)
        raise IndexError(f"There are {len(self)} records. Received: index {index}")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for block in self.blocks:
            yield from block

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

