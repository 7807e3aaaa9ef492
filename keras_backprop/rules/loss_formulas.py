"""How the losses are written. See `LossFormula`; tests/rules/test_formulas.py compares every one with its rule.

Sources of those that are not in every book: dice, Milletari, Navab and Ahmadi (2016), "V-Net"; tversky, Salehi, Erdogmus and
Gholipour (2017); circle, Sun et al. (2020); connectionist temporal classification, Graves et al. (2006), equation 16; focal,
Lin et al. (2017); generalized cross-entropy, Zhang and Sabuncu (2018).
"""

import re
from dataclasses import replace
from typing import Any

from keras import losses

from keras_backprop.formula import Cases, LossFormula

_LAST = {"axis": -1}
_PLAIN = {**_LAST, "label_smoothing": 0.0, "from_logits": False}
_FOCAL = {**_PLAIN, "apply_class_balancing": False}


def _smoothed(formula: LossFormula, rest: str) -> LossFormula:
    """The same with smoothed targets: T·(1 − s) + s over the number of classes."""

    def smooth(text):
        return re.sub(r"\bT\b", f"(T*(1 - label_smoothing) + {rest})", text)

    texts: Any = {name: smooth(getattr(formula, name)) for name in ("term", "slope", "shown", "shown_slope")}
    return replace(
        formula,
        **texts,
        logits=formula.logits and smooth(formula.logits),
        when={**formula.when, "label_smoothing": _some},
    )


def _some(smoothing):
    return bool(smoothing)


def _is_number(value):
    return isinstance(value, (int, float))


_BINARY = LossFormula("-(T*log(a) + (1 - T)*log(1 - a))", "(1 - T)/(1 - a) - T/a", logits="a - T", when=_PLAIN)
_BINARY_LOGITS = LossFormula("log(1 + exp(a)) - T*a", "sigmoid(a) - T", when={**_PLAIN, "from_logits": True})
_CATEGORICAL = LossFormula(
    "-T*log(a/total(a))",
    "total(T)/total(a) - T/a",
    mean=False,
    logits="a - T",
    shown="-T*log(a)",
    shown_slope="-T/a",
    when=_PLAIN,
)
_CATEGORICAL_LOGITS = LossFormula(
    "-T*log(softmax(a))", "softmax(a) - T", mean=False, when={**_PLAIN, "from_logits": True}
)
_SPARSE = replace(_CATEGORICAL, classes=True, when={**_LAST, "from_logits": False, "ignore_class": None})
_SPARSE_LOGITS = replace(_CATEGORICAL_LOGITS, classes=True, when={**_LAST, "from_logits": True, "ignore_class": None})
_HALF, _SHARE = "label_smoothing/2", "label_smoothing/classes(T)"

_SEEN = "(1 - a)**gamma"
_FOCAL_SLOPE = f"alpha*T*(gamma*(1 - a)**(gamma - 1)*log(a) - {_SEEN}/a)"
_RIGHT = "(1 - T*a - (1 - T)*(1 - a))"
_WRONG = "(1 - T)*a"

_OVERLAP = "total(T*a)"
_DICE = LossFormula(
    "1 - 2*I/D",
    "2*(I/D - T)/D",
    mean=False,
    row=True,
    parts=(("I", _OVERLAP), ("D", "total(T) + total(a) + epsilon")),
    when={"over": "example"},
)
_TVERSKY = LossFormula(
    "1 - I/D",
    "((T*(1 - alpha) + beta*(1 - T))*I/D - T)/D",
    mean=False,
    row=True,
    parts=(("I", _OVERLAP), ("D", "I + alpha*total(T*(1 - a)) + beta*total(a*(1 - T)) + epsilon")),
    when={"over": "example"},
)


def _of_batch(formula: LossFormula) -> LossFormula:
    """The same with sums over all examples at once."""
    parts = tuple((letter, text.replace("total(", "whole(")) for letter, text in formula.parts)
    return replace(formula, parts=parts, when={"over": "batch"})


_CIRCLE = LossFormula(
    "log(1 + F*G)",
    "dS @ a + dS.T @ a",
    mean=False,
    row=True,
    couples=True,
    parts=(
        ("S", "a @ a.T"),
        ("D", "max(0, 1 - S)"),
        ("u", "-gamma*max(0, margin + D)*(margin - D)"),
        ("v", "gamma*max(0, 1 + margin - D)*(1 - margin - D)"),
        ("F", "total(same(T)*exp(u))"),
        ("G", "total(different(T)*exp(v))"),
        ("du", "gamma*(max(0, margin + D) - (margin - D)*(margin + D >= 0))"),
        ("dv", "-gamma*(max(0, 1 + margin - D) + (1 - margin - D)*(1 + margin - D >= 0))"),
        ("dS", "-c*(G*same(T)*exp(u)*du + F*different(T)*exp(v)*dv)*(S <= 1)/(1 + F*G)"),
    ),
    when={"ref_embeddings": None, "ref_labels": None, "remove_diagonal": True},
)

LOSSES: Any = {
    losses.dice: Cases((_DICE, _of_batch(_DICE))),
    losses.tversky: Cases((_TVERSKY, _of_batch(_TVERSKY))),
    losses.circle: _CIRCLE,
    losses.ctc: LossFormula(
        "-log(likelihood(T, softmax(a)))", "softmax(a) - occupancy(T, softmax(a))", mean=False, row=True
    ),
    losses.mean_squared_error: LossFormula("(T - a)**2", "-(T - a)", times=2),
    losses.mean_absolute_error: LossFormula("abs(T - a)", "-sign(T - a)"),
    losses.mean_absolute_percentage_error: LossFormula("abs(T - a)/abs(T)", "-sign(T - a)/abs(T)", factor=100),
    losses.mean_squared_logarithmic_error: LossFormula(
        "(log(T + 1) - log(a + 1))**2", "-(log(T + 1) - log(a + 1))/(a + 1)", times=2
    ),
    losses.huber: LossFormula(
        "min(abs(T - a), delta)*(abs(T - a) - min(abs(T - a), delta)/2)", "-max(-delta, min(T - a, delta))"
    ),
    losses.log_cosh: LossFormula("log(cosh(T - a))", "-tanh(T - a)"),
    losses.poisson: LossFormula("a - T*log(a + epsilon)", "1 - T/(a + epsilon)"),
    losses.kl_divergence: LossFormula("T*log(T/a)", "-T/a", mean=False),
    losses.binary_crossentropy: Cases(
        (_BINARY, _BINARY_LOGITS, _smoothed(_BINARY, _HALF), _smoothed(_BINARY_LOGITS, _HALF))
    ),
    losses.categorical_crossentropy: Cases(
        (_CATEGORICAL, _CATEGORICAL_LOGITS, _smoothed(_CATEGORICAL, _SHARE), _smoothed(_CATEGORICAL_LOGITS, _SHARE))
    ),
    losses.sparse_categorical_crossentropy: Cases((_SPARSE, _SPARSE_LOGITS)),
    losses.binary_focal_crossentropy: LossFormula(
        f"-{_RIGHT}**gamma*(T*log(a) + (1 - T)*log(1 - a))",
        f"{_RIGHT}**gamma*((1 - T)/(1 - a) - T/a) + gamma*{_RIGHT}**(gamma - 1)*(2*T - 1)*(T*log(a) + (1 - T)*log(1 - a))",
        when=_FOCAL,
    ),
    losses.categorical_focal_crossentropy: LossFormula(
        f"-alpha*T*{_SEEN}*log(a)",
        f"{_FOCAL_SLOPE} - total(a*{_FOCAL_SLOPE})",
        mean=False,
        when={**_PLAIN, "alpha": _is_number},
    ),
    losses.categorical_generalized_cross_entropy: LossFormula(
        "T*(1 - a**q)/q", "-T*a**(q - 1)", mean=False, classes=True
    ),
    losses.cosine_similarity: LossFormula(
        "-T*a/(length(T)*length(a))",
        "-(T/length(T) - total(T*a)/(length(T)*length(a))*a/length(a))/length(a)",
        mean=False,
        when=_LAST,
    ),
    losses.hinge: LossFormula("max(0, 1 - T*a)", "-T*(T*a <= 1)"),
    losses.squared_hinge: LossFormula("max(0, 1 - T*a)**2", "-max(0, 1 - T*a)*T", times=2),
    losses.categorical_hinge: LossFormula(
        f"max(0, 1 + largest({_WRONG}) - total(T*a))",
        f"((1 - T)*({_WRONG} == largest({_WRONG})) - T)*(1 + largest({_WRONG}) - total(T*a) >= 0)",
        mean=False,
        row=True,
    ),
}
"""Losses of Keras. (Where targets are 0 and 1 a hinge loss takes −1 and 1 for them.)"""
