"""Checks of what is asked for. Each error says what was received, and what there is."""

from fractions import Fraction
from typing import Any

import numpy as np

__all__ = ["number_of", "place", "places", "whole"]


def whole(value: Any) -> bool:
    """Whether this is a whole number, and no truth value."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def place(name: str, value: Any, count: int, first: int = 0) -> int:
    """A place among so many, the first of which is called `first`.

    Raises:
        TypeError: it is no whole number.
        IndexError: there is no such place.
    """
    if not whole(value):
        raise TypeError(f"`{name}` must be a whole number, from {first} to {first + count - 1}. Received: {value!r}")
    if not first <= value < first + count:
        raise IndexError(f"`{name}` must be from {first} to {first + count - 1}. Received: {value!r}")
    return int(value)


def places(name: str, values: Any, count: int, first: int = 0) -> list[int]:
    """A list of places.

    Raises:
        TypeError: it is no list of whole numbers.
        ValueError: it is empty.
        IndexError: there is no such place.
    """
    if isinstance(values, str) or not np.iterable(values) or not all(map(whole, values)):
        raise TypeError(
            f"`{name}` must be a list of whole numbers, from {first} to {first + count - 1}. Received: {values!r}"
        )
    if not len(values := list(values)):
        raise ValueError(f"`{name}` must name at least one, from {first} to {first + count - 1}. Received: []")
    return [place(name, value, count, first) for value in values]


def number_of(name: str, text: str) -> str:
    """A number as somebody wrote it, as Python writes it: with a point, a minus of ASCII; a fraction divided out.

    Raises:
        ValueError: it is none.
    """
    written = text.strip().replace("−", "-").replace("–", "-")
    if written.count(",") == 1 and "." not in written:
        written = written.replace(",", ".")
    try:
        number = float(Fraction(written)) if "/" in written else float(written)
    except (ValueError, ZeroDivisionError):
        raise ValueError(
            f"What {name!r} is compared with is no number: {text!r}. Write 0.0822, 8.22e-2 or 1/3."
        ) from None
    return repr(number) if "/" in written else written
