"""A number as somebody wrote it down: how exactly it was given."""

from decimal import Decimal
from typing import Any

import numpy as np

__all__ = ["Given"]


class Given:
    """How exactly a number was given: by its decimals.

    Args:
        given: a number, an array, or a str.
        eps: float, how far, relatively, the model's own rounding may be from the exact number.
    """

    def __init__(self, given: Any, eps: float = 0.0) -> None:
        self.eps = eps
        array = np.asarray(given) if not isinstance(given, str) else np.asarray(float(given))
        self.value = np.asarray(array, "float64")
        self.full = array.ndim > 0 or array.dtype == np.float32
        self.single = array.dtype in (np.float32, np.float16)
        text = given.strip() if isinstance(given, str) else repr(float(self.value)) if array.ndim == 0 else "0"
        if array.ndim == 0 and array.dtype == np.float32:
            text = str(np.float32(given))
        try:
            decimal = Decimal(text)
        except ArithmeticError:
            decimal = Decimal(0)
        exponent = decimal.as_tuple().exponent
        digits = decimal.as_tuple().digits
        if not isinstance(given, str) and isinstance(
            exponent, int
        ):  # 0.5 may be 0.50 and so on, 1300.0 is all its digits
            whole = decimal == decimal.to_integral_value()
            _, digits, exponent = (Decimal(int(decimal)) if whole else decimal.normalize()).as_tuple()
        self.significant = len(digits) if array.ndim == 0 else 16
        self.full = self.full or self.significant >= 12
        self.half = 0.5 * 10.0**exponent if isinstance(exponent, int) else 0.0

    def rounds(self, number: Any) -> bool:
        """Whether the number that was given is this one, rounded to the decimals given (two digits, or one behind the point)."""
        number = np.asarray(number, "float64")
        if self.full or number.shape != () or not self.value or not np.isfinite(number):
            return False
        return bool((self.significant > 1 or self.half < 0.5) and abs(self.value - number) <= self.half * (1 + 1e-9))

    def is_of(self, number: Any, exact: bool = False) -> bool:
        """Whether the number that was given is this one, as exactly as it was given."""
        number = np.asarray(number, "float64")
        if number.shape != self.value.shape or not np.all(np.isfinite(number)):
            return False
        difference, size = np.abs(self.value - number), np.abs(number)
        if self.full:
            tolerance = max(self.eps, 2e-6 if self.single else 1e-7 if not exact else 1e-8)
            largest = float(np.max(size, initial=0.0))
            return bool(
                np.all(
                    difference
                    <= (2e-5 if (self.single or self.eps) and self.value.ndim else tolerance) * max(largest, 1e-300)
                    + 1e-15
                )
            )
        share = 0.03 if exact else 1e-3
        difference, size = np.max(difference), np.max(size)
        return bool(difference <= min(self.half * (1 + 1e-9), share * float(size)) + self.eps * float(size) + 1e-15)
