"""Which rule belongs to which layer, operation, activation, loss or regulariser.

    @backward_rule(layers.Dense)                      a rule: (call, dy) -> Gradients
    @forward_rule(layers.BatchNormalization)          its own forward pass, and what to keep of it for the rule
    elementwise(ops.Tanh, lambda x, y: 1 - y**2)      only a local derivative dy/dx
    linear(ops.Transpose, lambda call, dy: …)         only an adjoint
    not_differentiable(ops.Argmax)                    nothing flows back

Something is in exactly one of three states: it has a rule, it is declared not differentiable, or it is unknown. The unknown is
followed through the operations that it creates (`chain/operations.py`).
"""

import inspect
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from keras_backprop import _keras
from keras_backprop.rule import Gradients, MissingRuleError, Operation


@dataclass
class Rule:
    """What is known about one kind of operation.

    Attributes:
        name: str, how the rule is called in reports.
        backward: `(call, dy) -> Gradients`.
        forward: `(call_arguments…) -> (outputs, saved)`, or None where the operation's own forward pass serves.
        derivative: `(x, y, **options) -> dy/dx` of an elementwise function, else None.
        activation: bool, the layer ends in `self.activation`, which is a link of its own; the rule is of what precedes it.
        reads_logits: bool, a cross-entropy that Keras computes from the logits an activation left on its output.
        applies: `(op) -> bool`, for which instances the rule holds; the others are followed.
        composition: `(record, op, call_arguments…) -> outputs` of a layer that runs other layers, else None.
        broadcasts: bool, inputs of different shapes are broadcast against each other.
        indices: bool, integers among the inputs are places in a table, not numbers.
        state: "rule" or "not differentiable".
        couples: `(call) -> str or None`, why the gradients below depend on other examples; None where they do not.
        given: bool, somebody has put it in the place of the package's own: it is for all calls.
    """

    name: str
    backward: Callable
    forward: Callable | None = None
    derivative: Callable | None = None
    activation: bool = False
    reads_logits: bool = False
    applies: Callable | None = None
    composition: Callable | None = None
    broadcasts: bool = False
    indices: bool = False
    state: str = "rule"
    couples: Callable | None = None
    given: bool = False

    @property
    def formula(self) -> Any:
        """How the rule is written (see `formula.py`), or None. It belongs to `backward`: another function has another."""
        return getattr(self.backward, "formula", None)


_rules: dict = {}
_forward_rules: dict = {}
_keys: weakref.WeakKeyDictionary = (
    weakref.WeakKeyDictionary()
)  # class -> the class whose rule holds for it, as far as asked

# What a subclass may redefine without changing the mathematics of its forward pass.
_HARMLESS = {
    "__init__", "__doc__", "__module__", "__qualname__", "__firstlineno__", "__static_attributes__", "__annotations__",
    "build", "get_config", "from_config", "compute_output_shape", "compute_output_spec", "compute_mask", "__repr__",
    "build_from_config", "get_build_config", "load_own_variables", "save_own_variables", "backward",
}  # fmt: skip


def backward_rule(
    *keys, activation=False, reads_logits=False, applies=None, broadcasts=False, indices=False, couples=None
):
    """Register the decorated function as the backward rule of layers, operations or functions.

    Args:
        *keys: layer classes, operation classes, or activation, loss and regulariser functions or classes.
        activation: the layer applies `self.activation` last. The rule then is of the layer without it; the activation has
            its own rule.
        reads_logits: the function is a cross-entropy that uses the logits which an activation left on its output. They
            are then the last of `call.inputs`.
        applies: `(op) -> bool`; instances for which it is False are treated as if they had no rule.
        broadcasts: the inputs are broadcast against each other; the rule may return gradients of the output's shape.
        indices: integers among a layer's inputs are places in a table, not numbers to compute with.
        couples: `(call) -> str or None`, why the gradients below depend on other examples; None where they do not.

    Returns:
        A decorator that returns the function unchanged.
    """

    def register(function):
        for key in keys:
            _rules[key] = Rule(
                _name(function), function, activation=activation, reads_logits=reads_logits, applies=applies,
                broadcasts=broadcasts, indices=indices, couples=couples,
            )  # fmt: skip
        return function

    check_keys(keys)
    return register


def forward_rule(*keys: Any) -> Any:
    """Register the decorated function as the forward pass that the backward rule of `keys` needs.

    The function takes the layer (or operation) and the arguments of its `call`, computes what `call` would, state updates
    included, and returns `(outputs, saved)` with `saved` a dict. It runs in the place of `layer.call` inside
    `Layer.__call__`, so autocasting, masks, activity regularisers and the training flag stay Keras's.
    """

    def register(function):
        for key in keys:
            _forward_rules[key] = function
        return function

    check_keys(keys)
    return register


def composition(*keys, applies=None):
    """Register the decorated function as the way through a layer that runs other layers.

    The function takes the record, the layer and the arguments of its `call`, and returns what `call` would, state updates
    included. Whatever it runs by `record.run(…)`, `record.run_body(…)` or `record.run_as(…)` becomes a link of the chain
    with a rule of its own; the layer itself is none.
    """

    def register(function):
        def backward(call, dy):
            raise TypeError(f"'{call.path}' is a composition of other links and has no backward rule of its own.")

        for key in keys:
            _rules[key] = Rule(_name(function), backward, applies=applies, composition=function)
        return function

    check_keys(keys)
    return register


def elementwise(*keys_and_derivative, fused=None):
    """Register y = f(x), elementwise, by its local derivative.

    Args:
        *keys_and_derivative: keys as in `backward_rule`, and last the derivative `(x, y) -> dy/dx`. Further parameters
            of the function are filled with the call's arguments of that name.
        fused: `(x, y, dy) -> dx`, a kernel that multiplies in the same pass. Training uses it, `explain` shows the
            derivative.
    """
    *keys, derivative = keys_and_derivative
    check_keys(keys)
    local, product = _with_options(derivative, 2), _with_options(fused, 3) if fused else None

    def backward(call, dy):
        if product:
            return Gradients(product(call, call.input, call.output, dy))
        return Gradients(dy * local(call, call.input, call.output))

    for key in keys:
        _rules[key] = Rule(_name(key), backward, derivative=lambda call: local(call, call.input, call.output))


def linear(*keys_and_adjoint):
    """Register an operation that is linear in its one input by its adjoint `(call, dy) -> dx`."""
    *keys, adjoint = keys_and_adjoint
    check_keys(keys)
    for key in keys:
        _rules[key] = Rule(_name(key), lambda call, dy: Gradients(adjoint(call, dy)))


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

    check_keys(keys)
    for key in keys:
        _rules[key] = Rule(_name(key), backward, state="not differentiable")


def rule_for(op: Any) -> Rule | None:
    """The rule of a layer, operation or function, or of its class; None where it is unknown.

    A rule registered for the exact class wins; then, up the class's method resolution order, a `backward` method or a
    registered rule. The rule of a base class holds for a subclass only if the subclass changes nothing that the forward pass
    could depend on.

    Returns:
        A `Rule`, or None.
    """
    if isinstance(op, Operation):
        return _rules.get(op.operation.type) or _rules[Operation]
    if isinstance(op, keras.Operation) and _keras.is_overwritten(op, "call"):
        return None
    if not isinstance(op, type) and _hashable(op) and op in _rules:
        key = op
    else:
        key = _key_of(op if isinstance(op, type) else type(op))
    rule = _rules.get(key)
    if rule is None:
        return None
    if rule.applies is not None and key is not op and not isinstance(op, type) and not rule.applies(op):
        return None
    rule.forward = _forward_rules.get(key)
    return rule


def _key_of(kind):
    """The class up the method resolution order of `kind` whose rule holds for it, or None."""
    if kind not in _keys:
        key = None
        for position, base in enumerate(kind.__mro__):
            if base not in _rules and "backward" in vars(base) and issubclass(base, keras.Operation):
                _rules[base] = _own_rule(base)
            if base in _rules:
                key = None if _changed_since(kind.__mro__[:position], base) else base
                break
        _keys[kind] = key  # at once: replicas are threads
    return _keys[kind]


def registered():
    """All keys with a rule or a declaration: a dict key -> `Rule`."""
    return dict(_rules)


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


def version():
    """A number that grows whenever something is registered: what was traced before is of other rules."""
    return _version


_version = 0


def put(key, rule):
    """Put a `Rule` in the place of another."""
    _rules[key] = rule


def check_keys(keys, types=True):
    """Raise a `TypeError` where something cannot have a rule; what was looked up so far is forgotten.

    Args:
        keys: layer classes, operation classes, functions, and, if `types`, names of TensorFlow's types of operations: "Relu".
    """
    global _version
    _version += 1
    _keys.clear()
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
