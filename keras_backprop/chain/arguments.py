"""What a call was given: arguments by name, the tensors among them, what goes along with these; whether a rule is for them."""

import functools
import inspect
import itertools
import types
from typing import Any

import keras
import tensorflow as tf

from keras_backprop import _keras, _tensorflow


def suits(rule, op, args):
    """Whether the rule of a layer or an operation is for this call; if not, what the call does is followed.

    Where nothing flows back TensorFlow says whether that is None or zeros. Rules compute with floating-point numbers: what
    Keras promotes, integers and truth values, is left to it. And functions of `keras.ops` have rules for tensors of which only
    the number of examples is unknown while a function is traced.
    """
    if rule.given:
        return True
    if isinstance(op, keras.layers.Layer) and _learns_its_settings(op):
        return False
    if not isinstance(op, keras.Operation) or not type(op).__module__.startswith("keras."):
        return True
    if rule.kind == "not differentiable":
        return False
    tensors = [x for x in leaves(args) if is_tensor(x)]
    if _is_listed(args) and _is_mixed(leaves(args[0])):
        return False  # arrays and numbers among what is joined
    if not isinstance(op, keras.layers.Layer):
        listed = _is_listed(args) and getattr(op, "keepdims", None) is not None
        sparse = any(isinstance(x, tf.SparseTensor) for x in tensors)  # Keras has other ways for these
        return not listed and not sparse and all(map(is_sized, tensors))  # a sum of a list Keras stacks first
    return rule.indices or rule.composition is not None or all(_is_cast(op, x) for x in tensors)


def _is_listed(args):
    return bool(args) and isinstance(args[0], (list, tuple))


def _is_mixed(values):
    """Whether tensors stand beside what is none; sizes, or a list of numbers in the place of an array, do not."""
    return any(map(is_tensor, values)) and not all(x is None or is_tensor(x) for x in values)


def _learns_its_settings(layer):
    """Whether something that a layer was told when it was made, such as a scale or ε, is a weight; rules take it for a number."""
    kind: Any = type(layer)
    settings = map(vars(layer).get, _parameters(kind))
    return any(isinstance(x, keras.Variable) and x.trainable for x in settings)


@functools.lru_cache(maxsize=1024)
def _parameters(kind):
    """The names of all that the classes of a layer are told."""
    classes = itertools.takewhile(lambda one: one is not keras.layers.Layer, kind.__mro__)
    return {name for one in classes if "__init__" in vars(one) for name in inspect.signature(one.__init__).parameters}


def knows(rule, function, options):
    """Whether a rule is for these options of a function, as of a loss; if not, what the call does is followed.

    Rules know numbers. A tensor in the place of one would be among the inputs of the call, and taken for another of them.
    """
    if rule.given:
        return True
    _, defaults = _signature(function)
    numbers = [value for name, value in options.items() if isinstance(defaults.get(name), (int, float))]
    return not any(is_tensor(x) or isinstance(x, keras.Variable) for x in leaves(numbers))


def _is_cast(layer, x):
    """Whether a tensor is one that a layer computes with: if somebody calls `layer.call` by itself, Keras has cast nothing."""
    dtype = tf.as_dtype(x.dtype)
    return dtype.is_floating and (not layer.autocast or dtype.name == layer.compute_dtype)


def is_sized(x):
    """Whether all sizes but that of the batch are known."""
    if isinstance(x, _tensorflow.EagerTensor):
        return True
    return x.shape.rank is not None and None not in x.shape[1:].as_list()


def bind(call, args, kwargs):
    """All arguments of a call by name, defaults included."""
    signature, defaults = _signature(call)
    given = dict(zip(defaults, args, strict=False)) | kwargs
    if len(given) == len(args) + len(kwargs) and given.keys() <= defaults.keys():
        arguments = defaults | given  # in the order of the signature
        if all(value is not inspect.Parameter.empty for value in arguments.values()):
            return arguments
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    arguments = {}
    for name, value in bound.arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(value)
        else:
            arguments[name] = value
    return arguments


def _signature(call):
    """`inspect.signature(call)` and the defaults, looked up once for each method of a class and each function of a module.

    The defaults are a dict of all parameters, with `inspect.Parameter.empty` for none; an empty one if some parameters cannot be
    given by position or cannot be given by name, so that only Python can say which argument is whose.
    """
    if isinstance(call, types.MethodType):
        return _signature_of_method(call.__func__)
    if isinstance(call, types.FunctionType) and call.__closure__ is None:
        return _signature_of_function(call)
    return _signature_of(call)


def _signature_of(call):
    signature = inspect.signature(call)
    parameters = signature.parameters.values()
    plain = all(one.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for one in parameters)
    return signature, {one.name: one.default for one in parameters} if plain else {}


@functools.lru_cache(maxsize=1024)
def _signature_of_method(function):
    return _signature_of(types.MethodType(function, object()))


_signature_of_function = functools.lru_cache(maxsize=1024)(_signature_of)


def tensors_in(arguments):
    """The tensors among the arguments; rules see a sparse one as the dense one that it stands for."""
    tensors = [x for x in leaves(arguments.values()) if is_tensor(x)]
    return [densified(x) if isinstance(x, tf.SparseTensor) else x for x in tensors]


def leaves(values):
    """All that is in some arguments, as `keras.tree.flatten` finds it, which takes its time where nothing is nested."""
    found: list = []
    for value in values:
        if isinstance(value, _LEAVES):
            found.append(value)
        else:
            found += keras.tree.flatten(value)
    return found


def densified(x):
    """The sparse one goes along, for products that can make use of it (`Contraction`)."""
    x = tf.sparse.reorder(x)
    dense = tf.sparse.to_dense(x)
    _tensorflow.remember_sparse(dense, x)
    return dense


def copied(x, copy=tf.identity):
    """The same values under another identity. The mask goes along."""
    copy = copy(x)
    mask = _keras.get_keras_mask(x)
    if mask is not None:
        _keras.set_keras_mask(copy, mask)
    if _keras.logits_of(x) is not None:
        _keras.leave_logits(copy, _keras.logits_of(x))
    return copy


def name_of(function):
    return getattr(function, "name", None) or getattr(function, "__name__", type(function).__name__)


def is_float(x):
    return is_tensor(x) and tf.as_dtype(x.dtype).is_floating and not isinstance(x, tf.SparseTensor)


def is_tensor(x):
    """`tf.is_tensor(x)`, which takes its time where x is none."""
    return isinstance(x, tf.Tensor) or (not isinstance(x, _NO_TENSORS) and tf.is_tensor(x))


_NO_TENSORS = (type(None), bool, int, float, str)
_LEAVES = (tf.Tensor, *_NO_TENSORS)
