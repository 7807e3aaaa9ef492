"""How the optimizers of Keras make the new weights: their formulas as text that can be evaluated, with their numbers and state.

w is a weight, g its gradient ∂E/∂w, t the number of the update (the first is 1). Each line assigns, in order. The sources are the
`update_step` of Keras's optimizers.
"""

from typing import Any, NamedTuple

import keras
import numpy as np

from keras_backprop import _keras
from keras_backprop.formula import evaluate, latex

__all__ = ["OptimizerFormula", "optimizer_formula"]


class OptimizerFormula(NamedTuple):
    """How an optimizer makes the new weights.

    Attributes:
        steps: list of (letter, expression), in order: the last `w` is the new weight.
        numbers: dict, letter -> float: learning rate and constants.
        state: dict, letter -> (name of the list of the optimizer's variables, dict path of a weight -> array before the update).
        remarks: list of str, what happens to the gradients before, or to the weights after.
    """

    steps: list
    numbers: dict
    state: dict
    remarks: list

    def latex(self) -> list[str]:
        """The lines as LaTeX: `w \\leftarrow w - \\eta \\cdot g`."""
        return [rf"{letter} \leftarrow {latex(expression, NAMES)}" for letter, expression in self.steps]

    def evaluate(self, weight: Any, gradient: Any, path: str = "") -> dict[str, Any]:
        """What the lines give: a dict, letter -> array; `w` is the new weight."""
        values = {**self.numbers, "w": weight, "g": gradient}
        values |= {letter: before.get(path, np.zeros_like(weight)) for letter, (_, before) in self.state.items()}
        for letter, expression in self.steps:
            values[letter] = evaluate(expression, values)
        return values


NAMES = {
    "eta": r"\eta", "mu": r"\mu", "rho": r"\rho", "beta1": r"\beta_1", "beta2": r"\beta_2", "eps": r"\varepsilon",
    "lam": r"\lambda", "gm": r"\bar{g}", "d": "d",
}  # fmt: skip

_MOMENTS = [("m", "beta1*m + (1 - beta1)*g"), ("v", "beta2*v + (1 - beta2)*g**2")]


def optimizer_formula(optimizer: Any) -> OptimizerFormula | None:
    """How an optimizer of Keras makes the new weights; None for others, and without one."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    known = _FORMULAS.get(type(inner))
    if known is None:
        return None
    steps, names, state = known(inner)
    numbers: dict[str, float] = {"eta": _number(inner.learning_rate), "t": float(_number(inner.iterations)) + 1}
    numbers |= {letter: _number(getattr(inner, name)) for letter, name in names.items()}
    remarks = []
    for name in ("clipnorm", "global_clipnorm", "clipvalue"):
        if getattr(inner, name, None) is not None:
            remarks.append(f"g is clipped before: {name}={getattr(inner, name):g}")
    if getattr(inner, "use_ema", False):
        remarks.append("a moving average of the weights is kept besides")
    if getattr(inner, "gradient_accumulation_steps", None):
        remarks.append(f"the weights change once in {inner.gradient_accumulation_steps} updates")
    if inner.weight_decay:
        steps = [("w", "w - eta*lam*w"), *steps]
        numbers["lam"] = float(inner.weight_decay)
    return OptimizerFormula(steps, numbers, {n: (slot, _slots(inner, slot)) for n, slot in state.items()}, remarks)


def _sgd(o):
    if not o.momentum:
        return [("w", "w - eta*g")], {}, {}
    last = "w + mu*m - eta*g" if o.nesterov else "w + m"
    return [("m", "mu*m - eta*g"), ("w", last)], {"mu": "momentum"}, {"m": "momentums"}


def _rmsprop(o):
    steps, state = [("v", "rho*v + (1 - rho)*g**2")], {"v": "_velocities"}
    names, under = {"rho": "rho", "eps": "epsilon"}, "v + eps"
    if o.centered:
        steps.append(("gm", "rho*gm + (1 - rho)*g"))
        state["gm"], under = "_average_gradients", "v - gm**2 + eps"
    if o.momentum > 0:
        names["mu"], state["m"] = "momentum", "_momentums"
        return [*steps, ("m", f"mu*m + eta*g/sqrt({under})"), ("w", "w - m")], names, state
    return [*steps, ("w", f"w - eta*g/sqrt({under})")], names, state


def _adam(o):
    names, state = {"beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon"}, {"m": "_momentums", "v": "_velocities"}
    root, more = "sqrt(v)", []
    if o.amsgrad:
        root, more, state["u"] = "sqrt(u)", [("u", "max(u, v)")], "_velocity_hats"
    rate = ("d", "eta*sqrt(1 - beta2**t)/(1 - beta1**t)")
    return [*_MOMENTS, *more, rate, ("w", f"w - d*m/({root} + eps)")], names, state


def _adadelta(o):
    state = {"v": "_accumulated_grads", "u": "_accumulated_delta_vars"}
    steps = [("v", "rho*v + (1 - rho)*g**2"), ("d", "-sqrt(u + eps)*g/sqrt(v + eps)"), ("u", "rho*u + (1 - rho)*d**2"),
             ("w", "w + eta*d")]  # fmt: skip
    return steps, {"rho": "rho", "eps": "epsilon"}, state


def _adagrad(o):
    return [("v", "v + g**2"), ("w", "w - eta*g/sqrt(v + eps)")], {"eps": "epsilon"}, {"v": "_accumulators"}


def _adamax(o):
    steps = [_MOMENTS[0], ("u", "max(beta2*u, abs(g))"), ("w", "w - eta*m/((1 - beta1**t)*(u + eps))")]
    return steps, {"beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon"}, {"m": "_m", "u": "_u"}


def _nadam(o):
    # The product of the factors uᵢ of all updates before is one of the optimizer's variables.
    steps = [*_MOMENTS, ("p", "beta1*(1 - 0.5*0.96**t)"), ("q", "beta1*(1 - 0.5*0.96**(t + 1))"), ("c", "c*p"),
             ("d", "q*m/(1 - c*q) + (1 - p)*g/(1 - c)"), ("w", "w - eta*d/(sqrt(v/(1 - beta2**t)) + eps)")]  # fmt: skip
    names = {"beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon"}
    if o.built:
        names["c"] = "_u_product"
    else:
        steps.insert(2, ("c", "1"))
    return steps, names, {"m": "_momentums", "v": "_velocities"}


def _lion(o):
    steps = [("w", "w - eta*sign(beta1*m + (1 - beta1)*g)"), ("m", "beta2*m + (1 - beta2)*g")]
    return steps, {"beta1": "beta_1", "beta2": "beta_2"}, {"m": "_momentums"}


def _lamb(o):
    steps = [*_MOMENTS, ("d", "m/(1 - beta1**t)/(sqrt(v/(1 - beta2**t)) + eps)"), ("w", "w - eta*norm(w)/norm(d)*d")]
    return steps, {"beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon"}, {"m": "_momentums", "v": "_velocities"}


def _adafactor(o):
    # Of a vector; a matrix keeps the means of its rows and columns in the place of v.
    steps = [("r", "min(eta, 1/sqrt(t))"), ("b", "1 - t**k"), ("v", "b*v + (1 - b)*(g**2 + eps)"), ("d", "g/sqrt(v)"),
             ("w", "w - max(c, rms(w))*r*d/max(1, rms(d)/s)")]  # fmt: skip
    return steps, {"k": "beta_2_decay", "eps": "epsilon_1", "c": "epsilon_2", "s": "clip_threshold"}, {"v": "_v"}


def _ftrl(o):
    steps = [("h", "g + 2*s*w"), ("q", "v + g**2"), ("u", "u + h - (q**(-p) - v**(-p))/eta*w"),
             ("v", "q"), ("w", "(max(-k, min(k, u)) - u)/(q**(-p)/eta + 2*(c + b/(2*eta)))")]  # fmt: skip
    names = {"p": "learning_rate_power", "k": "l1_regularization_strength", "c": "l2_regularization_strength",
             "s": "l2_shrinkage_regularization_strength", "b": "beta"}  # fmt: skip
    return steps, names, {"v": "_accumulators", "u": "_linears"}


_FORMULAS: dict[Any, Any] = {
    keras.optimizers.SGD: _sgd, keras.optimizers.RMSprop: _rmsprop, keras.optimizers.Adam: _adam, keras.optimizers.AdamW: _adam,
    keras.optimizers.Adadelta: _adadelta, keras.optimizers.Adagrad: _adagrad, keras.optimizers.Adamax: _adamax,
    keras.optimizers.Nadam: _nadam, keras.optimizers.Lion: _lion, keras.optimizers.Lamb: _lamb, keras.optimizers.Ftrl: _ftrl,
    keras.optimizers.Adafactor: _adafactor,
}  # fmt: skip


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
