"""Whether numbers agree with those of the record."""

from typing import Any

import numpy as np

__all__ = ["CLOSE", "agrees"]

CLOSE = 2e-3
"""How far the gradient of a weight that a graph gives may be from the record's, relatively to the largest number: what is
added up over many paths in single precision."""


def agrees(found: Any, recorded: Any, rtol: float = 1e-3) -> bool:
    """Whether two arrays of one shape agree number by number, but for rounding, however small all of them are."""
    largest = np.max(np.abs(recorded), where=np.isfinite(recorded), initial=0.0)
    return bool(np.allclose(found, recorded, rtol=rtol, atol=1e-5 * largest))
