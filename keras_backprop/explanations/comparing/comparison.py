"""What `explanation.compare` returns."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_backprop.explanations.writing.notation import brief, precision

__all__ = ["UNKNOWN", "Compared", "Comparison", "said"]

UNKNOWN = "none I know"


@dataclass(frozen=True, eq=False)
class Compared:
    """One number, or one array, compared.

    Attributes:
        name: str, as it was given.
        value, expected: float or array, what was given and what is right.
        verdict: "exact" (right in all digits that were given), "rounding" (off by what rounding intermediate results makes),
            "mistake" (a usual mistake reproduces it) or "unknown".
        mistakes: list of str, sentences: the mistakes that reproduce the number, the likeliest first.
        difference: float, the largest |value − expected|.
        where: tuple, the place of the largest difference in an array.
        remark: str, what else there is to say.
    """

    name: str
    value: Any
    expected: Any
    verdict: str
    mistakes: list
    difference: float
    where: tuple = ()
    remark: str = ""

    @property
    def mistake(self) -> str | None:
        """The likeliest mistake; None where the number is right, "none I know" where no usual mistake reproduces it."""
        if self.verdict in ("exact", "rounding"):
            return None
        return self.mistakes[0] if self.mistakes else UNKNOWN

    @property
    def correct(self) -> bool:
        """Whether the number is right, but for rounding."""
        return self.verdict in ("exact", "rounding")

    def __str__(self) -> str:
        with precision(9):
            value, expected = brief(self.value), brief(self.expected)
        if self.verdict == "exact":
            return f"{self.name} = {value}: exact{said(self.remark)}"
        off = f"largest difference {self.difference:.3g}" + (f" at {list(self.where)}" if self.where else "")
        if self.verdict == "rounding":
            word = "close" if np.size(self.value) > 1 else "rounding"
            return f"{self.name} = {value}: {word}{said(self.remark)}; exactly {expected} ({off})"
        head = f"{self.name} = {value}: not {expected} ({off}). Mistake: "
        return head + ("; or: ".join(self.mistakes) if self.mistakes else UNKNOWN + said(self.remark))

    def __repr__(self) -> str:
        return f"<Compared {self}>"


class Comparison(list):
    """The results of `explanation.compare`, a list of `Compared`. Printed it has a line for each."""

    @property
    def correct(self) -> bool:
        """Whether all numbers are right, but for rounding."""
        return all(one.correct for one in self)

    @property
    def verdict(self) -> str:
        """The verdict where one number was compared.

        Raises:
            ValueError: several were.
        """
        return self._only().verdict

    @property
    def mistake(self) -> str | None:
        """The likeliest mistake where one number was compared; of several the first that there is."""
        return next((one.mistake for one in self if one.mistake is not None), None)

    @property
    def mistakes(self) -> list:
        """All sentences."""
        return [sentence for one in self for sentence in one.mistakes]

    @property
    def difference(self) -> float:
        """The largest difference."""
        return max((one.difference for one in self), default=0.0)

    def _only(self):
        if len(self) != 1:
            raise ValueError(
                f"There are {len(self)} results: take one of them. Their verdicts: {[one.verdict for one in self]}"
            )
        return self[0]

    def __str__(self) -> str:
        return "\n".join(map(str, self))

    def __repr__(self) -> str:
        return str(self)

    def _repr_markdown_(self) -> str:
        signs = {"exact": "✓", "rounding": "≈", "mistake": "✗", "unknown": "?"}
        return "\n".join(f"* {signs[one.verdict]} {one}".replace("|", r"\|") for one in self)


def said(remark):
    return f" ({remark})" if remark else ""
