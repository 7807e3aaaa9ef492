"""Whether numbers agree with those of the record."""

from typing import Any

import numpy as np

__all__ = ["CLOSE", "agrees"]

CLOSE = 2e-3
"""How far what a graph gives may be from the record, relatively to the largest number: single precision, and kinks."""


def agrees(found: Any, recorded: Any) -> bool:
    """Whether two arrays of one shape agree, up to `CLOSE` of the largest finite number of the record, however small it is."""
    largest = np.max(np.abs(recorded), where=np.isfinite(recorded), initial=0.0)
    return bool(np.allclose(found, recorded, rtol=0.0, atol=CLOSE * largest))
