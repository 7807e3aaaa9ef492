"""Arguments of a plan, each checked by itself: it is returned, or the error says what was received."""

import math
import numbers
from typing import Any


def count(name: str, value: Any, most: int | None = None, least: int = 1) -> int:
    """A whole number between two bounds."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or int(value) < least or (most and int(value) > most):
        limit = f"from {least:,} to {most:,}" if most else f"of {least} or more"
        raise ValueError(f"`{name}` must be a whole number {limit}. Received: {name}={value!r}")
    return int(value)


def number(name: str, value: Any, zero: bool = False, below: float | None = None) -> float:
    """A positive finite number; or 0, or one below a bound."""
    try:
        good = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # a whole number that is no float
        good = False
    if not good or value < 0 or (value == 0 and not zero) or (below is not None and value >= below):
        what = "0 or more" if zero else "positive" if below is None else f"between 0 and {below}"
        raise ValueError(f"`{name}` must be a number, {what}. Received: {name}={value!r}")
    return float(value)


def one_of(name: str, value: Any, choices: Any) -> Any:
    """One of several."""
    if value not in list(choices):
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}. Received: {name}={value!r}")
    return value
