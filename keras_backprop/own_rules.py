"""Rules of one's own, for good: they take the place of the package's, for every call and in all spellings of an activation.

What the package registers for itself goes to `registry` directly, key by key.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from keras_backprop import registry
from keras_backprop.scopes import spellings

F = TypeVar("F", bound=Callable[..., Any])


def backward_rule(
    *keys: Any, activation: Any = False, reads_logits: bool = False, applies: Any = None, broadcasts: bool = False
) -> Callable[[F], F]:
    """Register the decorated function as the backward rule of layers, operations or functions.

        @backward_rule(keras.activations.relu)
        def guided_relu(call, dy):
            return Gradients(tf.where((call.output > 0) & (dy > 0), dy, 0))

    Args:
        *keys: layer classes, operation classes, functions of `keras.ops`, or activation, loss and regulariser functions or
            classes. A function that is an activation stands for all its spellings: `Dense(activation="relu")`, `layers.ReLU`,
            `keras.ops.relu` and `tf.nn.relu`.
        activation: the layer applies `self.activation` last. The rule then is of the layer without it; the activation has
            its own rule.
        reads_logits: the function is a cross-entropy that uses the logits which an activation left on its output. They
            are then the last of `call.inputs`.
        applies: `(op) -> bool`, for which instances the rule holds; the others are followed.
        broadcasts: the inputs are broadcast against each other; the rule may return gradients of the output's shape.

    Returns:
        A decorator that returns the function unchanged.

    Raises:
        TypeError: a key is none of these.
        ValueError: a rule for a key could never be reached.
    """
    keys = _reached(keys)
    facts = {"activation": activation, "reads_logits": reads_logits, "applies": applies, "broadcasts": broadcasts}
    register = registry.backward_rule(*keys, **facts)

    def decorator(function: F) -> F:
        with _given(keys):
            register(function)
        return function

    return decorator


def elementwise(*keys_and_derivative: Any, fused: Any = None) -> None:
    """Register y = f(x), elementwise, by its local derivative.

    Args:
        *keys_and_derivative: keys as in `backward_rule`, and last the derivative `(x, y) -> dy/dx`. Further parameters
            of the function are filled with the call's arguments of that name.
        fused: `(x, y, dy) -> dx`, a kernel that multiplies in the same pass. Training uses it, `explain` shows the
            derivative.

    Raises:
        TypeError: a key is none of these, or the derivative is missing.
        ValueError: a rule for a key could never be reached.
    """
    keys, derivative = _split(keys_and_derivative, "elementwise", "derivative `(x, y) -> dy/dx`")
    with _given(keys):
        registry.elementwise(*keys, derivative, fused=fused)


def pullback(*keys_and_function: Any) -> None:
    """Register an operation of one differentiable input by `(call, dy) -> dx`, the vector–Jacobian product.

    Raises:
        TypeError: a key is none of those of `backward_rule`, or the function is missing.
        ValueError: a rule for a key could never be reached.
    """
    keys, function = _split(keys_and_function, "pullback", "function `(call, dy) -> dx`")
    with _given(keys):
        registry.pullback(*keys, function)


def not_differentiable(*keys: Any, because: Any = None) -> None:
    """Declare that no gradient flows back through these.

    Args:
        *keys: as in `backward_rule`.
        because: str, for what has a derivative that nobody wrote down: a sentence that says why, and what to do. Whoever needs
            the gradient then gets an error with that sentence, instead of a gradient that is silently missing.
    """
    keys = _reached(keys)
    with _given(keys):
        registry.not_differentiable(*keys, because=because)


def _split(keys_and_function, name, function):
    if len(keys_and_function) < 2 or isinstance(keys_and_function[-1], type):
        raise TypeError(
            f"`{name}` takes one or more keys and then the {function}. "
            f"Received: {', '.join(getattr(one, '__name__', repr(one)) for one in keys_and_function) or 'nothing'}"
        )
    return _reached(keys_and_function[:-1]), keys_and_function[-1]


def _reached(keys):
    registry.check_keys(keys, types=False)
    every: list = []
    for key in keys:
        reached = spellings(key)
        if not reached:
            raise ValueError(
                f"A rule for `{key.__name__}` could never be reached: it runs as TensorFlow operations. Register it for the "
                "layer that calls it."
            )
        every += reached
    return list(dict.fromkeys(every))


@contextlib.contextmanager
def _given(keys):
    """What is registered in the block for the keys counts as given; what is known of their forward passes stays true."""
    before = {key: registry.rule_for(key) for key in keys}
    yield
    given = {}
    for key, known in before.items():
        rule = dataclasses.replace(registry.current()[key], given=True)
        given[key] = rule if known is None else dataclasses.replace(rule, rowwise=known.rowwise, joins=known.joins)
    registry.register(given)
