"""What is known about one kind of operation, and the table of it: which class, layer or function has which rule."""

import inspect
import itertools
import types
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_backprop import _keras
from keras_backprop.rule import Operation


@dataclass(frozen=True)
class Rule:
    """What is known about one kind of operation: how to go back through it, and facts about that.

    Attributes:
        name: str, how the rule is called in reports.
        backward: `(call, dy) -> Gradients`.
        kind: "differentiable", "composition" or "not differentiable".
        forward: `(call_arguments…) -> (outputs, saved)`, or None where the operation's own forward pass serves.
        derivative: `(x, y, **options) -> dy/dx` of an elementwise function, else None.
        activation: bool, the layer ends in `self.activation`, which is a link of its own; the rule is of what precedes it.
        reads_logits: bool, a cross-entropy that Keras computes from the logits an activation left on its output.
        applies: `(op) -> bool`, for which instances the rule holds; the others are followed.
        composition: `(record, op, call_arguments…) -> outputs` of a layer that runs other layers, else None.
        broadcasts: bool, inputs of different shapes are broadcast against each other.
        indices: bool, integers among the inputs are places in a table, not numbers.
        couples: `(call) -> str or None`, why the gradients below depend on other examples; None where they do not.
        rowwise: bool, a row of the output is a function of the same row of the input and of weights, and of nothing else: no
            random numbers, no statistics of the batch, no state.
        needs: str, which of x and y `backward` reads, of a call with default options: "y", or "xy" where nobody has said.
        joins: bool, a few elementwise passes at most, which XLA joins with what stands around them.
        given: bool, somebody has put it in the place of the package's own: it is for all calls.
    """

    name: str
    backward: Callable
    kind: str = "differentiable"
    forward: Callable | None = None
    derivative: Callable | None = None
    activation: bool = False
    reads_logits: bool = False
    applies: Callable | None = None
    composition: Callable | None = None
    broadcasts: bool = False
    indices: bool = False
    couples: Callable | None = None
    rowwise: bool = False
    needs: str = "xy"
    joins: bool = False
    given: bool = False

    @property
    def formula(self) -> Any:
        """How the rule is written (see `formula.py`), or None. It belongs to `backward`: another function has another."""
        return getattr(self.backward, "formula", None)


class Registry:
    """An immutable table of rules: key -> `Rule`. Look-ups change nothing; whatever is registered makes another table.

    Args:
        rules: mapping key -> `Rule`.
        forward_rules: mapping key -> the forward pass that the rule of the key needs.
    """

    def __init__(self, rules: Mapping, forward_rules: Mapping) -> None:
        self._rules, self._forward_rules = rules, forward_rules
        self._bases: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # what `_rule_of_class` found, by class

    def with_rules(self, rules: Mapping) -> "Registry":
        """This table and some rules more, or others."""
        served = {key: replace(rule, forward=self._forward_rules.get(key)) for key, rule in rules.items()}
        return Registry({**self._rules, **served}, self._forward_rules)

    def with_forward_rules(self, functions: Mapping) -> "Registry":
        """This table and some forward passes more, for rules that are registered before or after."""
        rules = {key: replace(self._rules[key], forward=f) for key, f in functions.items() if key in self._rules}
        return Registry({**self._rules, **rules}, {**self._forward_rules, **functions})

    def __getitem__(self, key: Any) -> Rule:
        """The rule that was registered for a key itself."""
        return self._rules[key]

    def items(self) -> Any:
        """All pairs of a key and its rule."""
        return self._rules.items()

    def rule_for(self, op: Any) -> Rule | None:
        """See `keras_backprop.rule_for`."""
        if isinstance(op, Operation):
            return self._rules.get(op.operation.type) or self._rules[Operation]
        if isinstance(op, keras.Operation) and _keras.is_overwritten(op, "call"):
            return None
        if not isinstance(op, type) and _hashable(op) and op in self._rules:
            return self._rules[op]
        rule = self._rule_of_class(op if isinstance(op, type) else type(op))
        if rule is not None and rule.applies is not None and not isinstance(op, type) and not rule.applies(op):
            return None
        return rule

    def _rule_of_class(self, kind):
        """The rule of the first class up the method resolution order that has one, if it holds for `kind` too."""
        if kind not in self._bases:
            self._bases[kind] = self._sought(kind)  # at once: replicas are threads
        return self._bases[kind]

    def _sought(self, kind):
        for position, base in enumerate(kind.__mro__):
            rule = self._rules.get(base)
            if rule is None and "backward" in vars(base) and issubclass(base, keras.Operation):
                rule = _own_rule(base)
            if rule is not None:
                return None if _changed_since(kind.__mro__[:position], base) else rule
        return None


# What a subclass may redefine without changing the mathematics of its forward pass.
_HARMLESS = {
    "__init__", "__doc__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__", "__annotations__",
    "build", "get_config", "from_config", "compute_output_shape", "compute_output_spec", "compute_mask", "__repr__",
    "build_from_config", "get_build_config", "load_own_variables", "save_own_variables", "backward",
}  # fmt: skip


def _own_rule(base):
    """The rule that a layer class carries as its method `backward(self, call, dy)`."""

    def backward(call, dy):
        return call.op.backward(call, dy)

    backward.formula = getattr(vars(base)["backward"], "formula", None)  # type: ignore[attr-defined]
    return Rule(
        f"{base.__qualname__.split('.')[-1]}.backward",
        backward,
        activation=bool(getattr(base, "activation_is_a_link", False)),
    )


def _changed_since(subclasses, base):
    """Whether classes derived from `base` redefine a method that its forward pass may use, or compute an attribute of it."""
    return any(
        (name not in _HARMLESS and hasattr(base, name) and callable(getattr(base, name)))
        or name == "call"
        or _is_computed(name, value, base)
        for subclass in subclasses
        for name, value in vars(subclass).items()
    )


def _is_computed(name, value, base):
    """Whether what a subclass has under a name stands in the place of an attribute that the methods of `base` read."""
    if isinstance(inspect.getattr_static(base, name, None), property):
        return not hasattr(keras.layers.Layer, name)
    descriptor = hasattr(type(value), "__get__") and not isinstance(
        value, types.FunctionType | classmethod | staticmethod
    )
    return descriptor and name in _names_read_by(base)


def _names_read_by(base):
    """The names that the methods of a class use, those of `keras.layers.Layer` apart: of attributes, and of globals."""
    classes = itertools.takewhile(lambda one: one is not keras.layers.Layer, base.__mro__)
    methods = [getattr(value, "fget", value) for one in classes for value in vars(one).values()]  # properties, too
    codes = [method.__code__ for method in methods if isinstance(method, types.FunctionType)]
    names: set = set()
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return names


def _hashable(op):
    try:
        hash(op)
    except TypeError:
        return False
    return True
