"""Rules of `compile(rules=…)` as what a saved model can hold: the names of selectors and of functions.

A function is saved by its name, as Keras saves losses and activations. Whoever loads the model must have it: registered by
`keras.saving.register_keras_serializable`, or among `load_model(…, custom_objects=…)`. What has no name is an error when the
model is loaded and compiled, because a model that silently trains by other rules would be worse.
"""

import types
import warnings
from typing import Any

import keras

from keras_backprop import _keras


def config_of(rules: dict, model: Any) -> list[dict]:
    """What `rules_of` makes the rules from again: a list of a dict for each, which can be written as JSON.

    Args:
        rules: dict, selector -> rule, as `compile` takes it.
        model: whose layers may be selectors.

    Warns about what cannot be saved.
    """
    layers = {id(layer): number for number, layer in enumerate(_keras.layers_in(model))}
    config = [{"selector": _selector(s, layers), "rule": _rule(rule)} for s, rule in rules.items()]
    unsaved = [
        part["unsaved"] for pair in config for part in pair.values() if isinstance(part, dict) and "unsaved" in part
    ]
    if unsaved:
        warnings.warn(
            f"The model '{model.name}' is compiled with rules that cannot be saved: {', '.join(unsaved)}. Load it by "
            f"`load_model(…, compile=False)` and compile it again. {_REMEDY}",
            stacklevel=4,
        )
    return config


def rules_of(config: Any, model: Any) -> dict:
    """The rules again.

    Args:
        config: list, as `config_of` returns it.
        model: the model that is to be compiled.

    Raises:
        ValueError: a selector or a rule is not known in this program, or could not be saved.
    """
    return {_loaded(pair["selector"], model): _loaded(pair["rule"], model) for pair in config}


_REMEDY = (
    "What can be saved are rules and selectors that are functions or classes with a name, registered by "
    "`keras.saving.register_keras_serializable`, callable objects with `get_config`, layers of the model, and patterns of paths."
)


def _selector(selector, layers):
    if isinstance(selector, str):
        return {"pattern": selector}
    if id(selector) in layers:
        # By its number: paths are not all there before models are built.
        return {"layer": [layers[id(selector)], len(layers), type(selector).__name__]}
    return _named(selector)


def _rule(rule):
    if isinstance(rule, (type, types.FunctionType)):
        return _named(rule)
    if hasattr(rule, "get_config"):
        return {"object": keras.saving.serialize_keras_object(rule)}
    return {"unsaved": f"the rule {getattr(rule, 'name', repr(rule))}"}


def _named(thing):
    """A class or a function by its name."""
    name = getattr(thing, "__name__", "<no name>")
    if name.startswith("<"):
        return {"unsaved": f"`{getattr(thing, '__qualname__', repr(thing))}`"}
    of_keras = _keras.name_in_keras(thing)
    return {"keras": of_keras} if of_keras else {"registered": keras.saving.get_registered_name(thing)}


def _loaded(part, model):
    ((kind, what),) = part.items()
    if kind == "pattern":
        return what
    if kind == "object":
        return keras.saving.deserialize_keras_object(what)
    if kind == "layer":
        number, count, name = what
        layers = list(_keras.layers_in(model))
        if count == len(layers) and type(layers[number]).__name__ == name:
            return layers[number]
        kind, what = "unsaved", f"the layer of the class {name} that one is for"
    if kind == "unsaved":
        raise ValueError(
            f"The model '{model.name}' was compiled with rules of which {what} could not be saved. Load the model with "
            f"`compile=False` and compile it again. {_REMEDY}"
        )
    found = _keras.named_in_keras(what) if kind == "keras" else keras.saving.get_registered_object(what)
    if found is None:
        raise ValueError(
            f"The model '{model.name}' was compiled with rules of which {what!r} is not known here. Register it by "
            f"`keras.saving.register_keras_serializable`, or give it to `load_model(…, custom_objects={{{what!r}: …}})`, or load "
            "the model with `compile=False` and compile it again."
        )
    return found
