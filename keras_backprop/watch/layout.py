"""What a row of figures consists of, and what is read from it."""

import functools
from typing import Any, NamedTuple

import numpy as np

from keras_backprop.watch.quantities import ACTIVATION


class Column(NamedTuple):
    """One figure of a row.

    Attributes:
        moment: str, see `moments.moment`.
        width: int, how many numbers.
        same: bool, whether all replicas have the same, not each that of its part of the batch.
        scalar: str or None. Of a tensor that is one number in each replica, "mean" or "sum": what the number of the whole batch
            is. A loss is a mean over the batch, its delta the sum of those of the parts; of a sum over the batch it is the other
            way round. The squares of such a tensor are kept as the number itself, for its sign.
    """

    moment: str
    width: int = 1
    same: bool = False
    scalar: Any = None


class Figure(NamedTuple):
    """What a user gets: one quantity of one tensor.

    Attributes:
        path, of, quantity: str.
        columns: tuple of int, the columns that it is made of; what they mean `_MADE` says.
        size: int, the number of elements of the tensor; None where a column says it.
    """

    path: str
    of: str
    quantity: str
    columns: tuple
    size: Any = None


class Layout(NamedTuple):
    """The columns of a row, and the figures that are made of them.

    Attributes:
        columns: tuple of `Column`.
        figures: tuple of `Figure`, in the order in which a history tells them.
        scale, updated: int, the columns of the loss scale and of whether the step has updated; -1 where there is none.
        loss: int, the column of the error.
        double: bool, whether figures are kept in double precision.
    """

    columns: tuple
    figures: tuple
    scale: int
    updated: int
    loss: int
    double: bool

    @property
    def width(self) -> int:
        """The number of numbers in a row."""
        return sum(column.width for column in self.columns)


class Rows:
    """Rows of figures of all replicas, read.

    Args:
        layout: `Layout`.
        rows: array of shape `(replicas, rows, layout.width)`.
    """

    def __init__(self, layout: Layout, rows: Any) -> None:
        self.layout, self._rows = layout, rows

    @functools.cached_property
    def _first(self):
        return np.cumsum([0, *(column.width for column in self.layout.columns)])

    @functools.cached_property
    def _scale(self):
        return 1.0 if self.layout.scale < 0 else self._of(self.layout.scale)[0, :, 0]

    @property
    def loss(self) -> Any:
        """The error of each step, shape `(rows,)`."""
        return self._of(self.layout.loss).sum(0)[:, 0]

    def values(self, figure: Figure) -> Any:
        """The values of a figure: shape `(rows,)`, or `(rows, width)`."""
        columns = [self._of(i) for i in figure.columns]
        parts = [
            c if self.layout.columns[i].width > 1 else c[..., 0] for i, c in zip(figure.columns, columns, strict=True)
        ]
        size = figure.size
        if figure.quantity in _COUNTED and size is not None:  # of each replica's part
            parts.append(np.full(parts[0].shape[:2], float(size)))
        with np.errstate(all="ignore"):
            values = _MADE[figure.quantity](*parts)
            return values / self._scale if self._is_scaled(figure) else values

    def told(self, figure: Figure) -> Any:
        """Which rows say something of a figure, an array of bool; None for all of them."""
        if figure.quantity not in _OF_UPDATES or self.layout.updated < 0:
            return None
        return self._of(self.layout.updated)[0, :, 0] > 0

    @classmethod
    def joined(cls, parts: list["Rows"]) -> "Rows":
        """Rows of the same layout, one after another."""
        return cls(parts[0].layout, np.concatenate([part._rows for part in parts], 1))

    def _of(self, i):
        column = self.layout.columns[i]
        part = self._rows[:, :, self._first[i] : self._first[i] + column.width].astype("float64")
        if column.scalar is not None:
            part = (part.mean if column.scalar == "mean" else part.sum)(0, keepdims=True)
            return part**2 / 2 if column.moment == "squares" else part
        return part[:1] if column.same else part

    def _is_scaled(self, figure):
        """Whether there is a loss scale in it, to be divided out."""
        return figure.of != ACTIVATION and figure.quantity in _LINEAR


def _norm(*halves):
    """Of the halves of sums of squares."""
    return np.sqrt(2 * sum(half.sum(0) for half in halves))


def _mean(means, counts):
    return np.where(counts > 0, means * counts, 0).sum(0) / counts.sum(0)


def _std(means, spreads, counts):
    """Of the parts of several replicas (Chan, Golub & LeVeque, "Updating formulae", 1979)."""
    between = np.where(counts > 0, counts * (means - _mean(means, counts)) ** 2, 0)
    return np.sqrt((2 * spreads.sum(0) + between.sum(0)) / counts.sum(0))


def _share(count, sizes):
    return count.sum(0) / sizes.sum(0)


_LINEAR = ("norm", "mean", "std", "min", "max", "given_norm", "global_norm", "delta_by_step")
_COUNTED = ("mean", "std", "zeros", "nonfinite", "saturated", "dead")
_OF_UPDATES = ("update_ratio", "clipped_norm", "clipped_global_norm")

_MADE: dict[str, Any] = {
    "norm": _norm,
    "scaled_norm": _norm,
    "given_norm": _norm,
    "clipped_norm": _norm,
    "global_norm": _norm,
    "clipped_global_norm": _norm,
    "mean": _mean,
    "std": _std,
    "min": lambda x: x.min(0),
    "max": lambda x: x.max(0),
    "zeros": _share,
    "nonfinite": lambda finite, sizes: 1 - _share(finite, sizes),
    "saturated": _share,
    "histogram": lambda counts: counts.sum(0),
    "gain": lambda *squares: _norm(*squares[:-1]) / _norm(squares[-1]),
    "delta_by_step": lambda squares: np.sqrt(squares.sum(0)),
    "update_ratio": lambda change, before: _norm(change) / _norm(before),
    # Of a column of tr Σ and ‖G‖² (`example_statistics.gradient_noise_scale`).
    "example_variance": lambda noise: noise[0, :, 0],
    "noise_scale": lambda noise: np.where(noise[0, :, 1] > 0, noise[0, :, 0] / noise[0, :, 1], np.inf),
    "example_cosine": lambda cosine: cosine[0],
    "dead": lambda alive, sizes: 1 - (alive.max(0).mean(-1) if alive.ndim == 3 else alive[0] / sizes[0]),
}
