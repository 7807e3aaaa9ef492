"""Cases from tables of options.

    grid(layers.Conv1D, (2, 7, 4), filters=[3], padding=["valid", "same"], strides=[1, 2])

is one case for every combination. A value may be a list of choices; a keyword that starts with `call_` is an argument of the call.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np


@dataclass
class GridCase:
    """One layer with one choice of every option.

    Attributes:
        kind: str, the class of the layer, as in `docs/coverage.md`; empty for what is no layer.
        name: str, unique.
        make: function without arguments that returns the layer.
        inputs: nested arrays or shapes.
        call: dict, arguments of the call.
        smooth: bool, whether a central difference is compared.
        problem: function that returns the `Problem` itself, instead of a layer and its inputs; or None.
    """

    kind: str
    name: str
    make: Callable
    inputs: tuple
    call: dict = field(default_factory=dict)
    smooth: bool = True
    problem: Callable | None = None


def grid(layer, *inputs, valid=lambda **options: True, kind=None, **options):
    """A `GridCase` for every combination of options that is `valid`.

    Args:
        layer: a layer class, or a function of the options that returns a layer.
        *inputs: shapes or arrays; a list where the layer takes a list. `Choice(a, b)` tries several.
        valid: function of the options, False for combinations that Keras refuses.
        kind: str, if `layer` is no class.
        **options: lists of choices. `call_x` is the argument x of the call.
    """
    kind = kind or layer.__name__
    inputs = [x if isinstance(x, Choice) else Choice(x) for x in inputs]
    cases = []
    for chosen in itertools.product(*(x.values for x in inputs)):
        for values in itertools.product(*options.values()):
            choice = dict(zip(options, values, strict=True))
            if not valid(**choice, **({"inputs": chosen} if "inputs" in _parameters(valid) else {})):
                continue
            call = {name.removeprefix("call_"): v for name, v in choice.items() if name.startswith("call_")}
            call = {name: v for name, v in call.items() if v is not None}
            config = {name: v for name, v in choice.items() if not name.startswith("call_")}
            text = ",".join(f"{k}={_short(v)}" for k, v in choice.items() if len(options[k]) > 1)
            if any(len(x.values) > 1 for x in inputs):
                text += "," + ",".join(_short(x) for x in chosen)
            cases.append(GridCase(kind, f"{kind}[{text}]", lambda c=config: layer(**_fresh(c)), chosen, call))
    return cases


class Choice:
    """Several inputs to try."""

    def __init__(self, *values):
        self.values = values


def _parameters(function):
    import inspect

    return inspect.signature(function).parameters


def _fresh(config):
    """Options that are layers or functions making them are made anew for each case."""
    return {k: v() if isinstance(v, type) and issubclass(v, keras.layers.Layer) else v for k, v in config.items()}


def _short(value):
    if isinstance(value, np.ndarray):
        return f"{value.dtype.name}{value.shape}"
    return getattr(value, "__name__", str(value)).replace(" ", "")
