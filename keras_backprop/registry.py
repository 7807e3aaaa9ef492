"""Which rule belongs to which layer, operation, activation, loss or regulariser.

    @backward_rule(layers.Dense)                      a rule: (call, dy) -> Gradients
    @forward_rule(layers.BatchNormalization)          its own forward pass, and what to keep of it for the rule
    elementwise(ops.Tanh, lambda x, y: 1 - y**2)      only a local derivative dy/dx
    pullback(ops.Transpose, lambda call, dy: …)       only dx, of one input
    not_differentiable(ops.Argmax)                    nothing flows back

Something is in exactly one of three states: it has a rule, it is declared not differentiable, or it is unknown. The unknown is
followed through the operations that it creates (`chain/operations.py`).
"""

import inspect
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_backprop import _keras
from keras_backprop.rule import Gradients, MissingRuleError, Operation


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


_current = Registry({}, {})


def current() -> Registry:
    """The table that holds now. What was traced belongs to the table of its time."""
    return _current


def registered() -> dict:
    """All keys with a rule: a dict key -> `Rule`."""
    return dict(_current.items())


def hold(registry: Registry) -> None:
    """From now on another table holds."""
    global _current
    _current = registry


def register(rules: Mapping) -> None:
    """Put rules, key -> `Rule`, into the table, in the place of others."""
    check_keys(rules)
    hold(_current.with_rules(rules))


# What a subclass may redefine without changing the mathematics of its forward pass.
_HARMLESS = {
    "__init__", "__doc__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__", "__annotations__",
    "build", "get_config", "from_config", "compute_output_shape", "compute_output_spec", "compute_mask", "__repr__",
    "build_from_config", "get_build_config", "load_own_variables", "save_own_variables", "backward",
}  # fmt: skip


def backward_rule(*keys, **facts):
    """Register the decorated function as the backward rule of layers, operations or functions.

    Args:
        *keys: layer classes, operation classes, or activation, loss and regulariser functions or classes.
        **facts: fields of `Rule`: `activation`, `reads_logits`, `applies`, `broadcasts`, `indices`, `couples`, `rowwise`,
            `needs`, `joins`. The rule of a layer with `activation=True` is of the layer without its activation, which has
            its own. Where `reads_logits`, the logits are the last of `call.inputs`; where `broadcasts`, the rule may return
            gradients of the output's shape.

    Returns:
        A decorator that returns the function unchanged.
    """

    def decorator(function):
        register(dict.fromkeys(keys, Rule(_name(function), function, **facts)))
        return function

    check_keys(keys)
    return decorator


def forward_rule(*keys: Any) -> Any:
    """Register the decorated function as the forward pass that the backward rule of `keys` needs.

    The function takes the layer (or operation) and the arguments of its `call`, computes what `call` would, state updates
    included, and returns `(outputs, saved)` with `saved` a dict. It runs in the place of `layer.call` inside
    `Layer.__call__`, so autocasting, masks, activity regularisers and the training flag stay Keras's.
    """

    def decorator(function):
        hold(current().with_forward_rules(dict.fromkeys(keys, function)))
        return function

    check_keys(keys)
    return decorator


def composition(*keys, **facts):
    """Register the decorated function as the way through a layer that runs other layers.

    The function takes the record, the layer and the arguments of its `call`, and returns what `call` would, state updates
    included. Whatever it runs by `record.run(…)`, `record.run_body(…)`, `record.run_function(…)` or `record.run_as(…)` becomes a
    link of the chain with a rule of its own; the layer itself is none. `facts` are fields of `Rule`, of the layer apart from
    what it runs.
    """

    def decorator(function):
        def backward(call, dy):
            raise TypeError(f"'{call.path}' is a composition of other links and has no backward rule of its own.")

        rule = Rule(_name(function), backward, "composition", composition=function, **facts)
        register(dict.fromkeys(keys, rule))
        return function

    check_keys(keys)
    return decorator


def elementwise(*keys_and_derivative, fused=None, **facts):
    """Register y = f(x), elementwise, by its local derivative.

    Args:
        *keys_and_derivative: keys as in `backward_rule`, and last the derivative `(x, y) -> dy/dx`. Further parameters
            of the function are filled with the call's arguments of that name.
        fused: `(x, y, dy) -> dx`, a kernel that multiplies in the same pass. Training uses it, `explain` shows the
            derivative.
        **facts: further fields of `Rule`.
    """
    *keys, derivative = keys_and_derivative
    local, product = _with_options(derivative, 2), _with_options(fused, 3) if fused else None

    def backward(call, dy):
        if product:
            return Gradients(product(call, call.input, call.output, dy))
        return Gradients(dy * local(call, call.input, call.output))

    def of_call(call):
        return local(call, call.input, call.output)

    register({key: Rule(_name(key), backward, derivative=of_call, **facts) for key in keys})


def pullback(*keys_and_function, **facts):
    """Register an operation of one differentiable input by `(call, dy) -> dx`, the vector–Jacobian product."""
    *keys, function = keys_and_function

    def backward(call, dy):
        return Gradients(function(call, dy))

    register({key: Rule(_name(key), backward, **facts) for key in keys})


def not_differentiable(*keys, because=None):
    """Declare that no gradient flows back through these.

    Args:
        *keys: as in `backward_rule`.
        because: str, for what has a derivative that nobody wrote down: a sentence that says why, and what to do. Whoever needs
            the gradient then gets an error with that sentence, instead of a gradient that is silently missing.
    """

    def backward(call, dy):
        def refuse():
            raise MissingRuleError(
                f"'{call.path}' ({type(call.op).__name__}) is declared not differentiable. {because}"
            )

        if getattr(call.op, "trainable_variables", None):
            raise MissingRuleError(
                f"'{call.path}' ({type(call.op).__name__}) is declared not differentiable, and has trainable weights. Freeze it "
                "with `layer.trainable = False`."
            )
        return Gradients(*[refuse if because else None] * len(call.inputs))

    register({key: Rule(_name(key), backward, "not differentiable") for key in keys})


def rule_for(op: Any) -> Rule | None:
    """The rule of a layer, operation or function, or of its class; None where it is unknown.

    A rule registered for the exact class wins; then, up the class's method resolution order, a `backward` method or a
    registered rule. The rule of a base class holds for a subclass only if the subclass changes nothing that the forward pass
    could depend on.

    Returns:
        A `Rule`, or None.
    """
    return current().rule_for(op)


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
    """Whether classes derived from `base` redefine a method that its forward pass may use."""
    return any(
        (name not in _HARMLESS and hasattr(base, name) and callable(getattr(base, name))) or name in ("call", "kernel")
        for subclass in subclasses
        for name in vars(subclass)
    )  # fmt: skip


def _with_options(function, positional):
    """`function(x, y, …, option, …)` as `(call, x, y, …)`: options are looked up in the call."""
    options = list(inspect.signature(function).parameters)[positional:]
    return lambda call, *values: function(*values, **{name: call[name] for name in options})


def check_keys(keys, types=True):
    """Raise a `TypeError` where something cannot have a rule.

    Args:
        keys: layer classes, operation classes, functions, and, if `types`, names of TensorFlow's types of operations: "Relu".
    """
    for key in keys:
        if not callable(key) and not (types and isinstance(key, str)):
            raise TypeError(
                "A rule is registered for layer classes, operation classes, or activation, loss and regulariser "
                f"functions. Received: {key!r} (of type {type(key).__name__})"
            )


def _hashable(op):
    try:
        hash(op)
    except TypeError:
        return False
    return True


def _name(key):
    return getattr(key, "__name__", str(key))
