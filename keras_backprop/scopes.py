"""Rules that hold for a while: in a `with` block, or in the training of one model.

    with keras_backprop.use_rules({keras.activations.relu: guided_relu, "encoder/*": mine}):
        result = keras_backprop.backward(model, x, y)

    model.compile("sgd", "mse", rules={keras.layers.Dense: feedback_alignment})

What is said of a rule's key here holds for `backward_rule` as well: an activation is reached in all its spellings.
"""

import contextlib
import dataclasses
import fnmatch
import functools
import threading
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_backprop import _keras, registry
from keras_backprop.rule import Operation
from keras_backprop.rule_table import Rule


class Scope:
    """Rules by selector.

    Args:
        rules: dict, selector -> rule, a function `(call, dy) -> Gradients` or a `Rule`. A selector is a layer class or operation
            class (subclasses are meant too), a function such as `keras.activations.relu` or `keras.ops.relu`, one layer or
            operation object, or a pattern of paths, in which `*` stands for anything: `"encoder/*"`.

    Raises:
        TypeError: `rules` is no such dict, or a selector none of these.
        ValueError: a selector can never be reached.
    """

    def __init__(self, rules: Any) -> None:
        if not isinstance(rules, dict):
            raise TypeError(f"Rules are given as a dict of selector -> rule. Received: {rules!r}")
        for selector, rule in rules.items():
            if not isinstance(selector, str) and not callable(selector):
                raise TypeError(
                    "A selector is a class, a function, a layer or operation object, or a pattern of paths (a string). Received: "
                    f"{selector!r} (of type {type(selector).__name__})"
                )
            if not callable(rule) and not isinstance(rule, Rule):
                raise TypeError(
                    f"A rule is a function `(call, dy) -> Gradients`. Received for {_said(selector)}: {rule!r}"
                )
        self._entries = [(selector, _matcher(selector), rule) for selector, rule in rules.items()]
        self._matched: set = set()  # places among the entries
        self._overruled: set = set()
        self._overruled_inside: set = set()

    def rule(self, key: Any, op: Any, path: str, base: Any, overruled: bool = False) -> Any:
        """The rule for a link, or None. A later entry wins.

        Args:
            key: what the rule is looked up by: a layer, an operation, a function or an `Operation`.
            op: the layer, operation or function.
            path: str, the link's path.
            base: the `Rule` that it would have without scopes, or None.
            overruled: bool, whether an inner scope has a rule for it, so that this one is not asked for any.
        """
        found = [position for position, (_, matches, _) in enumerate(self._entries) if matches(key, op, path)]
        if overruled:
            self._overruled_inside.update(found)
        if overruled or not found:
            return None
        self._overruled.update(found[:-1])
        self._matched.add(found[-1])
        rule = self._entries[found[-1]][2]
        return rule if isinstance(rule, Rule) else _in_the_place_of(base, rule)

    def check(self) -> None:
        """Raise a `ValueError` that names the selectors that have matched nothing so far."""
        unmatched = {i: _said(s) for i, (s, _, _) in enumerate(self._entries) if i not in self._matched}
        overruled = [one for i, one in unmatched.items() if i in self._overruled]
        if unmatched:
            why = (
                f" Later entries select all links of {', '.join(overruled)}: the last one counts." if overruled else ""
            )
            if self._overruled_inside.intersection(unmatched):
                why += (
                    " An inner scope, or what the model was compiled with, has rules for the same links: these count."
                )
            raise ValueError(
                f"No link of the backward pass is selected by {', '.join(unmatched.values())}.{why} `keras_backprop.explain` "
                "shows the links of a model and their paths."
            )


_local = threading.local()


def current() -> Any:
    """The scopes that this thread is in, outermost first, a tuple."""
    return getattr(_local, "scopes", ())


@contextlib.contextmanager
def entered(*scopes: Any) -> Iterator[None]:
    """For the duration of the block, this thread is in some scopes more."""
    before = current()
    _local.scopes = (*before, *(scope for scope in scopes if scope not in before))
    try:
        yield
    finally:
        _local.scopes = before


def entered_for(model: Any) -> Any:
    """A context: the rules hold that a model was compiled with; in the threads of replicas those around its `fit` as well."""
    around = getattr(model, "_scopes", ()) if tf.distribute.has_strategy() else ()
    return entered(*(one for one in (*around, getattr(model, "_scope", None)) if isinstance(one, Scope)))


@contextlib.contextmanager
def use_rules(rules: Any) -> Iterator[Scope]:
    """For the duration of the block, other rules hold: for `fit`, `backward`, `explain` and the checks.

    What was traced before is traced anew. Scopes can be nested; the inner one wins, and the rules that a model was compiled with
    win over all of them. Other threads are not concerned, but for the replicas of a distribution strategy. The dict is as in
    `Scope`: layer classes, operation classes, functions, single layers or path patterns -> rules `(call, dy) -> Gradients`. A
    rule for a layer that ends in an activation is of what precedes it.

    Raises:
        TypeError: `rules` is no dict of selectors and rules.
        ValueError: a selector can never be reached; or, at the end, has matched nothing.
    """
    scope = Scope(rules)
    with entered(scope):
        yield scope
    scope.check()


def rule_of(key: Any, op: Any, path: str) -> Any:
    """The rule of a link: the innermost scope's that has one, or the registered one; None where there is none."""
    base, found = registry.rule_for(key), None
    for scope in reversed(current()):
        rule = scope.rule(key, op, path, base, overruled=found is not None)
        found = rule if found is None else found
    return base if found is None else found


def refuse_given(rule: Any, op: Any, where: str) -> None:
    """Raise a `ValueError` if a rule is somebody's own, for a layer that runs where its operations are followed.

    It would be dropped without a word.
    """
    if rule is not None and rule.given:
        raise ValueError(
            f"The rule '{rule.name}' cannot serve '{getattr(op, 'path', op)}', which runs {where} of TensorFlow: there it is "
            "followed operation by operation. Call the layer outside, or select it by no rule."
        )


def _in_the_place_of(base, function):
    """A rule that keeps what is known of the forward pass of the one that it stands in for."""
    name = getattr(function, "__name__", type(function).__name__)
    if base is None:
        return Rule(name, function, given=True)
    own = Rule(name, function)  # what the fields are that are of the backward pass
    changes = {
        field: getattr(own, field) for field in ("name", "backward", "kind", "derivative", "composition", "needs")
    }
    return dataclasses.replace(base, given=True, **changes)


def _matcher(selector):
    """A function (key, op, path) -> bool."""
    if isinstance(selector, str):
        return lambda key, op, path: matches(selector, path)
    if not isinstance(selector, keras.Operation):
        keys = spellings(selector)
        if not keys:
            raise ValueError(f"No link can be selected by {_said(selector)}: {_REMEDY}")
        return functools.partial(_matches_key, keys)
    return lambda key, op, path: op is selector or key is selector


def matches(pattern, path):
    """Whether a path, with or without the model's name in front, is of a pattern: `*` is anything, `?` one character."""
    _, inside, rest = path.partition("/")
    pattern = pattern.replace("[", "[[]")  # which means itself: `lstm[1]` is a second output
    return fnmatch.fnmatchcase(path, pattern) or (bool(inside) and fnmatch.fnmatchcase(rest, pattern))


def _matches_key(keys, key, op, path):
    if isinstance(key, Operation):
        return key.operation.type in keys
    if isinstance(key, keras.Operation):
        return any(isinstance(one, type) and isinstance(key, one) for one in keys)
    return any(key is one for one in keys if not isinstance(one, str))


def spellings(selector: Any) -> Any:
    """All that a rule for a class or a function is to reach.

    An activation has several: the function of `keras.activations` and that of `keras.ops`, the operation of a Functional graph,
    the layer, and the type of TensorFlow's operation. A class is reached as it is.

    Returns:
        A list of classes, functions and names of types; empty if no link can ever be reached.
    """
    if isinstance(selector, type):
        return [selector]
    name = getattr(selector, "__name__", "")
    is_activation = _keras.is_activation(selector)
    if _keras.is_function_of_ops(selector):
        operation = _keras.operation_of(selector)
        if operation is None:
            return []
        is_activation, selector = hasattr(keras.activations, name), operation
    if not is_activation:
        return [selector]
    every = [selector, *_keras.activations_called(name)]
    return [*every, *(one.__name__ for one in every if isinstance(one, type)), *_TENSORFLOW.get(name, ())]


_TENSORFLOW = {"leaky_relu": ("LeakyRelu",)}
"""Types of operations that are called otherwise than Keras's classes."""

_REMEDY = "it runs as TensorFlow operations. Select the layer that calls it, by its class or its path."


def _said(selector):
    return repr(selector) if isinstance(selector, str) else f"`{getattr(selector, '__qualname__', selector)}`"
