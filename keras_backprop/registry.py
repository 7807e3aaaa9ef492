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
from collections.abc import Mapping
from typing import Any

from keras_backprop.rule import Gradients, MissingRuleError
from keras_backprop.rule_table import Registry, Rule

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


def elementwise(*keys_and_derivative, fused=None, forward_and_derivative=None, **facts):
    """Register y = f(x), elementwise, by its local derivative.

    Args:
        *keys_and_derivative: keys as in `backward_rule`, and last the derivative `(x, y) -> dy/dx`. Further parameters
            of the function are filled with the call's arguments of that name.
        fused: `(x, y, dy) -> dx`, a kernel that multiplies in the same pass. Training uses it, `explain` shows the
            derivative.
        forward_and_derivative: pair of a forward rule and `(x, y, …) -> dy/dx`, the derivative from what that rule saves:
            those of its further parameters that the first derivative does not have. Training uses it where that rule, and no
            other, has run.
        **facts: further fields of `Rule`.
    """
    *keys, derivative = keys_and_derivative
    local, product = _with_options(derivative, 2), _with_options(fused, 3) if fused else None
    forward: Any = None
    of_saved: Any = None
    if forward_and_derivative:
        forward, function = forward_and_derivative
        of_saved = _with_options(function, 2, saved={*_options(function, 2)} - {*_options(derivative, 2)})

    def backward(call, dy):
        if forward and call.rule and call.rule.forward is forward:
            return Gradients(dy * of_saved(call, call.input, call.output))
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


def _options(function, positional):
    return list(inspect.signature(function).parameters)[positional:]


def _with_options(function, positional, saved=()):
    """`function(x, y, …, option, …)` as `(call, x, y, …)`: options are looked up in the call, or in what it saved."""
    options = _options(function, positional)

    def of_call(call, *values):
        return function(*values, **{name: call.saved[name] if name in saved else call[name] for name in options})

    return of_call


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


def _name(key):
    return getattr(key, "__name__", str(key))
