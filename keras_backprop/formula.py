"""How a rule is written: its formulas as text, which `evaluate` makes a number of and `latex` a picture.

    Formula("sigmoid(x)", "y*(1 - y)")      latex("y*(1 - y)", {"y": "a_2"}) is a_2(1 - a_2)

A formula is an attribute of the backward function of a rule (`Rule.formula`): another function in its place never shows it. The
text is Python's syntax, with the letters of `rules/README.md`; a condition counts 1 where it holds and 0 elsewhere. The tests
evaluate every formula and compare it with its rule.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Cases", "Formula", "LossFormula", "RecurrentFormula", "written"]


class _Conditional:
    """What holds under conditions: `when`, option -> the value that it must have, or a function of it that says so.

    An option that a call does not have meets no condition: a formula is rather missing than wrong.
    """

    when: dict

    def of(self, options: Any) -> Any:
        """This formula, if it is that for a call with these options (a dict); else None."""

        def holds(name, wanted):
            return name in options and (wanted(options[name]) if callable(wanted) else options[name] == wanted)

        return self if all(holds(*condition) for condition in self.when.items()) else None


@dataclass(frozen=True)
class Formula(_Conditional):
    """A layer, an operation or an activation.

    Attributes:
        value: str, y; of `x` (several inputs: `a`, `b`), the weights and the options. "" where there is no short way to write it.
        derivative: str, dy/dx of an elementwise function, of `x` and `y`; else None.
        gradients: dict, name -> str: `{"x": …}` is dx; of `dy`, the inputs and the weights.
        when: dict, option -> the value that it must have for the formula to hold; "class" -> the name of the operation's class,
            where others share the rule.
        inputs: str, the letters of the inputs in their order, where they are others than `x`, or `a` and `b`: "qkv".
        outputs: tuple of (letter, expression), of several outputs each; `value` is then "". The gradient of `e` is `de`.
        parts: tuple of (letter, expression), in order, what the other expressions are made of: `(("P", "softmax(q @ k.T)"),)`.
            One that begins with d is a gradient, and is of `dy`.
    """

    value: str
    derivative: str | None = None
    gradients: dict = field(default_factory=dict)
    when: dict = field(default_factory=dict)
    inputs: str = ""
    parts: tuple = ()
    outputs: tuple = ()


@dataclass(frozen=True)
class LossFormula(_Conditional):
    """A loss: factor · the sum, or the mean, over the k outputs of a term in `T` and `a`.

    Attributes:
        term: str.
        slope: str, the derivative of the term by a, but for `times`.
        times: float, a factor of the slope.
        factor: float, before the sum.
        mean: bool, a mean over the outputs and no sum.
        row: bool, the term is of all outputs already: neither mean nor sum.
        parts: tuple of (letter, expression), in order, what term and slope are made of; one that begins with d is a part of the
            slope only.
        couples: bool, the slope of one example depends on the others: then c, with which every example enters E, stands in it.
        logits: str or None, the derivative by z where the loss is computed from the logits that a softmax or sigmoid made a of.
        classes: bool, the targets are numbers of classes; T in the formulas is then one hot.
        shown: str, the term as books write it, where a sums to 1 or another number is understood; else as it is.
        shown_slope: str, the derivative of `shown` by a, where it is another than `slope`.
        when: dict, option -> the value that it must have for the formula to hold.
    """

    term: str
    slope: str
    times: float = 1.0
    factor: float = 1.0
    mean: bool = True
    logits: str | None = None
    classes: bool = False
    shown: str = ""
    shown_slope: str = ""
    row: bool = False
    parts: tuple = ()
    couples: bool = False
    when: dict = field(default_factory=dict)


@dataclass(frozen=True)
class RecurrentFormula(_Conditional):
    """A recurrent layer: one time step forward, and one backward.

    The letters: `x` goes in, `h0` and `c0` are the states of the step before, `h` and `c` those after; `dh` and `dc` are their
    gradients; `phi` and `sigma` are the activations, `phi1` and `sigma1` their derivatives.

    Attributes:
        forward: tuple of (letters, expression), in order. Several letters, "i, f", name the parts of what the expression gives.
        backward: tuple of the same, in order. `dh0` and `dc0` are what goes to the step before.
        gradients: dict, letter -> what one step adds to the gradient of that weight; "x" -> that of the step's input.
        factor: (letter, expression), the shortest way from step to step: ∂h/∂h0, or ∂c/∂c0 and what else goes past the gates.
        when: dict, option -> the value that it must have for the formula to hold.
    """

    forward: tuple
    backward: tuple
    gradients: dict
    factor: tuple
    when: dict = field(default_factory=dict)


class Cases(tuple):
    """Several formulas of one rule: that which holds for a call's options is its formula."""

    def of(self, options: Any) -> Any:
        """The formula for a call with these options (a dict); None for none."""
        return next((formula for formula in self if formula.of(options) is not None), None)


def written(formula: Any) -> Callable[[Any], Any]:
    """A decorator: the formula of a rule's backward function.

    Raises:
        ValueError: the function, which several rules may share, has another one already.
    """

    def decorator(function):
        if getattr(function, "formula", formula) != formula:
            raise ValueError(
                f"{function.__module__}.{function.__qualname__} has a formula already: {function.formula}. What shares a "
                f"function shares its formula: put both in one `Cases`, with a condition each. Received: {formula}"
            )
        function.formula = formula
        return function

    return decorator
