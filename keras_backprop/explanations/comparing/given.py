"""A number as somebody wrote it down: how exactly it was given."""

from decimal import Decimal
from typing import Any

import numpy as np

__all__ = ["Given"]

NEAR = 2e-3
"""So far off, relatively, a number may be by rounding of intermediate results."""

FLOOR = 5e-7
"""So far off, by the largest entry of an array, any entry may be in single precision: some of its last digits."""

OF_CHANGE = 2e-5
"""So far off, relatively, the change of a weight may be: Keras keeps the numbers of an optimizer in single precision."""


class Given:
    """How exactly a number was given: by its decimals.

    Args:
        given: a number, an array, or a str.
        eps: float, how far, relatively, the model's own rounding may be from the exact number.
        ulp: float, the relative distance of two numbers in the weights' precision.
        before: float or array, of a new weight the weight before: it is the change that is judged. None of other numbers.
        change: bool, whether the number is such a change itself.
    """

    def __init__(
        self, given: Any, eps: float = 0.0, ulp: float = 0.0, before: Any = None, change: bool = False
    ) -> None:
        self.eps, self.ulp, self.before, self.change = eps, ulp, before, change
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
        tolerance = self._of_precision(number, exact)
        if not self.full:
            share = 0.03 if exact else 1e-3
            unsure = self.change or self._in_doubt
            tolerance = min(self.half * (1 + 1e-9), share * float(np.abs(number))) + (tolerance if unsure else 0.0)
        return bool(np.all(np.abs(self.value - number) <= tolerance + 1e-15))

    def is_near(self, number: Any) -> bool:
        """Whether the number that was given may be this one but for rounding; of new weights the change counts."""
        number = np.asarray(number, "float64")
        difference, size = np.abs(self.value - number), np.abs(number)
        largest = float(np.max(size, initial=0.0))
        if self.full and self.before is not None and not self.change:
            change = np.abs(number - self.before)
            last = self._last_decimal() if 4 * self._last_decimal() <= np.max(change, initial=0.0) else 0.0
            return bool(np.all(difference <= np.maximum(NEAR * change, 1.5 * last) + self._of_precision(number, True)))
        turned = (self.value * number < 0) & (size > FLOOR * largest)
        worst = float(np.max(difference, initial=0.0))
        return worst <= NEAR * (largest or 1.0) and not (self.value.ndim and np.any(turned))

    @property
    def _in_doubt(self):
        """Whether there are more digits than are the same in either precision."""
        return self.full or (bool(self.eps) and self.significant > 6)

    def _last_decimal(self):
        """One unit of the last decimal to which all entries were rounded; 0 where they were not."""
        decimals = next((d for d in range(11) if np.array_equal(np.round(self.value, d), self.value)), None)
        return 0.0 if decimals is None else 10.0**-decimals

    def digits(self, number: Any) -> str:
        """In how many digits the number that was given is this one, which it is; "" where all were given."""
        if self.full:
            return ""
        if self.eps and not self.rounds(number) and self.value:
            return "as exactly as single precision computes"
        return "in the digit given" if self.significant == 1 else f"in the {self.significant} digits given"

    def _of_precision(self, number, exact):
        """How far off a number may be that was computed in another precision, or another order: each entry on its own."""
        size = np.abs(number)
        if self.before is not None:
            change = size if self.change else np.abs(number - self.before)
            after = np.abs(number + self.before) if self.change else size
            share = OF_CHANGE if self._in_doubt else 0.0
            return share * change + self.ulp * np.maximum(np.abs(self.before), after)
        rounded = self.single or self.eps
        share = max(self.eps, 2e-6 if self.single else 1e-8 if exact else 1e-7)
        floor = (FLOOR if rounded else 1e-13) * float(np.max(size, initial=0.0)) if size.ndim else 0.0
        return share * size + floor
