"""How the optimizers of Keras make the new weights: their formulas as text that can be evaluated, with their numbers and state.

w is a weight, g its gradient ∂E/∂w, t the number of the update (the first is 1). Each line assigns, in order.
"""

import re
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_backprop import _keras
from keras_backprop.explanations.writing.optimizer_steps import STEPS, adam_of_muon
from keras_backprop.formula_latex import latex
from keras_backprop.formula_value import evaluate

__all__ = ["OptimizerFormula", "optimizer_formula"]


class OptimizerFormula(NamedTuple):
    """How an optimizer makes the new weights.

    Attributes:
        steps: list of (letter, expression), in order: the last `w` is the new weight.
        numbers: dict, letter -> float: learning rate and constants.
        state: dict, letter -> (name of the list of the optimizer's variables, dict path of a weight -> array before the update).
        remarks: list of str, what happens to the gradients before, or to the weights after.
        words: list of str, what words in the lines mean.
        paths: list of the paths of the weights that are made so.
        others: list of `OptimizerFormula`, where other weights are made in another way: Muon's vectors, what has no weight decay.
    """

    steps: list
    numbers: dict
    state: dict
    remarks: list
    words: Any = ()
    paths: Any = ()
    others: Any = ()

    @property
    def groups(self) -> list:
        """This one and the others."""
        return [self, *self.others]

    def of(self, path: str) -> "OptimizerFormula":
        """How the weight of this path is made new."""
        return next((formula for formula in self.groups if path in formula.paths), self)

    def latex(self) -> list[str]:
        """The lines as LaTeX: `w \\leftarrow w - \\eta \\cdot g`."""
        return [rf"{letter} \leftarrow {latex(expression, NAMES)}" for letter, expression in self.steps]

    def evaluate(self, weight: Any, gradient: Any, path: str = "") -> dict[str, Any]:
        """What the lines give for the weight of this path: a dict, letter -> array; `w` is the new weight."""
        if path and path not in self.paths and self.others:
            return self.of(path).evaluate(weight, gradient, path)
        values = {**self.numbers, "w": weight, "g": gradient}
        values |= {letter: before.get(path, np.zeros_like(weight)) for letter, (_, before) in self.state.items()}
        for letter, expression in self.steps:
            values[letter] = evaluate(expression, values)
        return values


NAMES = {
    "eta": r"\eta", "mu": r"\mu", "rho": r"\rho", "beta1": r"\beta_1", "beta2": r"\beta_2", "eps": r"\varepsilon",
    "lam": r"\lambda", "gm": r"\bar{g}", "d": "d",
}  # fmt: skip


def optimizer_formula(optimizer: Any, weights: Any) -> OptimizerFormula | None:
    """How an optimizer of Keras makes the new weights; None for others, and without one.

    Args:
        optimizer: a Keras optimizer, or None.
        weights: list of the trainable variables. Some optimizers treat matrices and vectors differently.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    known = STEPS.get(type(inner))
    if known is None or not weights:
        return None
    groups: dict = {}
    for weight in weights:
        made = known(inner, weight)
        decay = _decay(inner, weight)
        groups.setdefault((tuple(made[0]), decay), (made, decay, []))[2].append(weight.path)
    formulas = [_of_group(inner, *group) for group in groups.values()]
    return formulas[0]._replace(others=formulas[1:])


def _of_group(inner, made, decay, paths):
    steps, names, state = made
    numbers: dict[str, float] = {"eta": _number(inner.learning_rate), "t": float(_number(inner.iterations)) + 1}
    numbers |= {letter: _number(getattr(inner, name)) for letter, name in names.items()}
    if decay:
        steps, numbers["lam"] = [("w", "w - eta*lam*w"), *steps], decay
    if not any(re.search(r"\bt\b", expression) for _, expression in steps):
        del numbers["t"]
    slots = {letter: (slot, _slots(inner, slot)) for letter, slot in state.items()}
    return OptimizerFormula(steps, numbers, slots, _remarks(inner), _words(inner, steps), paths)


def _remarks(inner):
    remarks = []
    for name in ("clipnorm", "global_clipnorm", "clipvalue"):
        if getattr(inner, name, None) is not None:
            remarks.append(f"g is clipped before: {name}={getattr(inner, name):g}")
    if getattr(inner, "use_ema", False):
        remarks.append("a moving average of the weights is kept besides")
    if getattr(inner, "gradient_accumulation_steps", None):
        remarks.append(f"the weights change once in {inner.gradient_accumulation_steps} updates")
    return remarks


def _words(inner, steps):
    used = " ".join(expression for _, expression in steps)
    words = []
    if "orthogonal(" in used:
        again = f"{inner.ns_steps} times d ← a·d + (b·d·dᵀ + c·(d·dᵀ)²)·d"
        words.append(f"orthogonal(d): d/‖d‖, then {again}: all its singular values come near 1")
    if "trust(" in used:
        words.append("norm(w)/norm(d) counts 1 where one of the two is 0")
    return words


def _decay(inner, weight):
    """The weight decay of a weight, 0 for none."""
    decay = inner.weight_decay
    if isinstance(inner, keras.optimizers.Muon) and adam_of_muon(inner, weight):
        decay = inner.adam_weight_decay
    return float(decay) if decay and _keras.decays(inner, weight) else 0.0


def _number(value):
    return float(keras.ops.convert_to_numpy(value))


def _slots(optimizer, name):
    """Path of a weight -> the optimizer's variable of it before the update; what it begins with, if it is not built."""
    if not optimizer.built:
        return _Start(getattr(optimizer, "initial_accumulator_value", 0.0) if name == "_accumulators" else 0.0)
    slots = getattr(optimizer, name, None) or []
    pairs = zip(_keras.built_for(optimizer), slots, strict=False)
    return {v.path: keras.ops.convert_to_numpy(slot).copy() for v, slot in pairs if slot is not None}


class _Start(dict):
    """What the optimizer's variables begin with, of every weight."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def get(self, path, default=None):
        return np.full_like(default, self.value) if self.value and default is not None else default
