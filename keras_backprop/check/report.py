"""The result of a gradient check, for people."""

from dataclasses import dataclass, field

from keras_backprop.report.notebook import check_html


@dataclass
class Row:
    """One tensor's gradient, compared.

    Attributes:
        path: str, the weight's path, or `input 0`, …
        shape: tuple.
        tape_absolute: float, the largest absolute difference from the tape's gradient.
        tape_relative: float, the same, relative to the largest entry of the tape's gradient.
        difference_absolute: float, the difference between the directional derivative and a central difference along
            a random direction; NaN where none was taken.
        difference_relative: float, the same, relative.
        verdict: "ok", "wrong", "kink" (the tape agrees, finite differences cannot: the error has a kink here, and they agree
            beside it), "held" (the tape agrees; finite differences do not, because the layer holds something constant in its
            backward pass, by `stop_gradient` for instance), "random" (the forward pass draws other numbers each time, so that
            two cannot be compared; the rules of the layers were, each in one and the same pass), "not finite" (NaN or infinite
            by the rules and by the tape alike), or "no gradient" (neither the rules nor the tape have one).
        kinks: int, the number of kinks found along the direction.
    """

    path: str
    shape: tuple
    tape_absolute: float
    tape_relative: float
    difference_absolute: float = float("nan")
    difference_relative: float = float("nan")
    verdict: str = "ok"
    kinks: int = 0


@dataclass
class Culprit:
    """A call whose rule, fed with the right upstream gradient, gives a wrong downstream one.

    Attributes:
        path: str, the call's path.
        rule: str, the name of the rule.
        what: str, which of its gradients is wrong.
        relative: float, the largest difference, relative to the largest entry of the tape's; infinite for NaN.
        missing: bool, whether the rule gives no such gradient at all.
    """

    path: str
    rule: str
    what: str
    relative: float
    missing: bool = False

    def __str__(self) -> str:
        if self.missing:
            wrong = "is missing"
        elif self.relative == float("inf"):
            wrong = "is NaN or infinite, and the tape's is not"
        else:
            wrong = f"differs from the tape's by {self.relative:.1e} of its largest entry"
        return f"The rule '{self.rule}' of '{self.path}' is wrong: {self.what} {wrong}."


@dataclass
class Report:
    """What `check_gradients` and `check_layer` return.

    Attributes:
        subject: str, what was checked.
        rows: list of `Row`, one for each trainable weight and each floating-point input.
        culprits: list of `Culprit`, empty if everything is right.
        tolerance: float, the relative difference from the tape that passes.
        forward: str, what is wrong with the forward pass of the rules; None if it is that of the layers.
    """

    subject: str
    rows: list = field(default_factory=list)
    culprits: list = field(default_factory=list)
    tolerance: float = 0.0
    forward: str | None = None

    @property
    def max_error(self) -> float:
        """The largest relative difference from the tape's gradients."""
        return max((row.tape_relative for row in self.rows), default=0.0)

    @property
    def passed(self) -> bool:
        """Whether every gradient agrees with both references, and the forward pass with the layers' own."""
        return all(row.verdict != "wrong" for row in self.rows) and not self.culprits and self.forward is None

    @property
    def said(self) -> str:
        """The result in two words: "all agree", "WRONG", or "not comparable" where the forward pass draws anew each time."""
        if not self.passed:
            return "WRONG"
        return "not comparable" if any(row.verdict == "random" for row in self.rows) else "all agree"

    def raise_if_failed(self) -> "Report":
        """Raise an `ArithmeticError` that names the rule, if a gradient is wrong. Returns the report."""
        if not self.passed:
            raise ArithmeticError(str(self))
        return self

    def _repr_html_(self) -> str:
        return check_html(self)

    def __str__(self) -> str:
        width = max([len(row.path) for row in self.rows] + [6])
        lines = [
            f"Gradients of {self.subject}: {self.said} "
            f"(largest relative error {self.max_error:.1e}, allowed {self.tolerance:.0e})",
            f"{'tensor':<{width}}  {'shape':<16} {'against the tape':>20}  {'finite differences':>20}  verdict",
        ]
        for row in self.rows:
            lines.append(
                f"{row.path:<{width}}  {row.shape!s:<16} {_pair(row.tape_absolute, row.tape_relative)}  "
                f"{_pair(row.difference_absolute, row.difference_relative)}  {row.verdict}"
                + (f" ({row.kinks} found)" if row.kinks else "")
            )
        if any(row.verdict == "not finite" for row in self.rows):
            lines.append(
                "Where both are NaN or infinite there is nothing to compare: the error itself has no derivative there."
            )
        if any(row.verdict == "random" for row in self.rows):
            lines.append(
                "The forward pass draws other numbers each time: `keras.random` with a `keras.random.SeedGenerator` makes it "
                "the same, and comparable."
            )
        lines += map(str, self.culprits)
        if self.forward is not None:
            lines.append(self.forward)
        elif not self.passed and not self.culprits and all(row.tape_relative <= self.tolerance for row in self.rows):
            lines.append(
                "The tape says the same, and central differences do not: what TensorFlow was told to take for a gradient "
                "(`tf.custom_gradient`, a registered gradient) is not that of what runs forward."
            )
        elif not self.passed and not self.culprits:
            lines.append("No single rule is wrong: look at what runs between the layers, and at the forward rules.")
        return "\n".join(lines)


def _pair(absolute, relative):
    if absolute != absolute:
        return f"{'-':>20}"
    return f"{absolute:>9.1e} ({relative:>7.1e})"
