"""The figures that were noted, as records."""

import csv
import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from keras_backprop.watch.layout import Rows


class Block:
    """Figures of some steps, of one layout. They are made of what was measured when somebody asks for them.

    Args:
        epochs, steps: arrays of int, shape `(rows,)`.
        rows: `Rows`, what was measured.
    """

    def __init__(self, epochs: Any, steps: Any, rows: Any) -> None:
        self.epochs, self.steps, self._rows = epochs, steps, rows

    @functools.cached_property
    def names(self) -> list[Any]:
        """The (path, of, quantity) of each figure."""
        return [figure[:3] for figure in self._rows.layout.figures]

    @functools.cached_property
    def _places(self):
        return {name: i for i, name in enumerate(self.names)}

    def series(self, name: tuple[str, str, str]) -> Any:
        """The values of a figure, NaN where it is not told; None where there is no such figure."""
        if name not in self._places:
            return None
        i = self._places[name]
        values = self.values[i].astype("float64")
        values[~self.told[:, i]] = np.nan
        return values

    def follows(self, other: "Block") -> bool:
        """Whether it has the same figures as one before it, so that the two may be joined."""
        return self._rows.layout is other._rows.layout

    @classmethod
    def joined(cls, blocks: list["Block"]) -> "Block":
        """Blocks of the same figures as one."""
        epochs, steps = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("epochs", "steps"))
        return cls(epochs, steps, Rows.joined([block._rows for block in blocks]))

    @functools.cached_property
    def values(self) -> list[Any]:
        """An array for each of `names`, of shape `(rows,)` or `(rows, width)`."""
        return [self._rows.values(figure) for figure in self._rows.layout.figures]

    @functools.cached_property
    def told(self) -> Any:
        """Which figures there are: booleans of shape `(rows, figures)`."""
        if not self._rows.layout.figures:  # of frozen layers alone, for one
            return np.zeros((len(self.steps), 0), bool)
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
        self._blocks: list[Block] = []
        self._new: list[Block] = []

    def add(self, block: Block) -> None:
        """Add what has been noted since."""
        self._new.append(block)

    @property
    def blocks(self) -> list[Block]:
        """What the history consists of: as few blocks as there are kinds of steps in a row."""
        while self._new:
            run = [self._new.pop(0)]
            if self._blocks and run[0].follows(self._blocks[-1]):
                run.insert(0, self._blocks.pop())
            while self._new and self._new[0].follows(run[-1]):
                run.append(self._new.pop(0))
            self._blocks.append(Block.joined(run) if len(run) > 1 else run[0])
        return self._blocks

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
        """One figure over time: an array of shape `(rows,)` or `(rows, width)`, a row for each of `steps`; NaN for none.

        Raises:
            KeyError: there is no such figure.
        """
        parts = [block.series((path, of, quantity)) for block in self.blocks]
        known = next((part for part in parts if part is not None), None)
        if known is None:
            raise KeyError(f"There is no figure {(path, of, quantity)}. There are: {self.names()[:20]}")
        none = [np.full((len(block.steps), *known.shape[1:]), np.nan) for block in self.blocks]
        return np.concatenate([n if part is None else part for part, n in zip(parts, none, strict=True)])

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
