"""What the trace of a step can depend on in Keras's objects: all their attributes, but for those that are named here."""

from typing import Any

import keras
from keras.src import backend, ops

_OF_TRACKING = {
    "_tracker", "_tracked", "_lock", "_auto_config", "_call_signature", "_saved_model_inputs_spec", "_saved_model_arg_spec",
    "_compile_config", "_compiled_trainable_state", "_called", "_nodes", "_trainable_variables_indices",
    "_distribution_strategy",
}  # fmt: skip
"""Whom an object belongs to, and what it was made of: configurations, signatures, tables by `id` or path."""

_OF_BUILDING = {"build", "quantize", "_initializer", "_initial_seed", "_build_shapes_dict"}
"""What has had its effect once the variables exist."""

_OF_NAMES = {"_name", "_path", "_parent_path"}
"""Names, which number the objects of a program. What finds weights by them is asked for by `finds_by_name`."""

_OF_LAST_CALL = {"_losses", "_loss_ids", "_initial_epoch", "_eval_epoch_iterator"}
"""What the last call has left, and the next one does away with."""

_OF_A_RUN = {"_dropout_mask", "_recurrent_dropout_mask"}
"""What a recurrent cell keeps for as long as its layer runs: absent before the first run, None after it."""

_OF_VALUES = {"_value"}
"""The numbers of a variable."""

_OF_TRAINING = {
    "train_function", "test_function", "predict_function", "history", "stop_training", "fit_path", "_loops", "_traced_with",
    "_observed_by", "_observers", "_scopes", "_jit_compile_auto", "epochs_per_execution", "loss",
}  # fmt: skip
"""What a model keeps of the last `fit`, and what is looked at elsewhere."""

_IGNORED = _OF_TRACKING | _OF_BUILDING | _OF_NAMES | _OF_LAST_CALL | _OF_VALUES | _OF_TRAINING

_NAMED = (keras.Operation, keras.optimizers.Optimizer, keras.KerasTensor, keras.random.SeedGenerator)
"""Whose `name` is but a name; that of a metric or a loss is the name of a log."""


def state_of(thing: Any) -> dict:
    """The attributes of a Keras object that a trace can depend on: a dict, name -> value."""
    found = {
        name: value for name, value in vars(thing).items() if name not in _IGNORED and not name.startswith("_self_")
    }
    for name in _OF_A_RUN:
        if name in found and found[name] is None:
            del found[name]
    if isinstance(thing, _NAMED):
        found.pop("name", None)
    if isinstance(thing, keras.random.SeedGenerator):
        found.pop("backend")
    if "seed_generator" in found:
        found.pop("seed", None)  # it has become the generator's state
    if len(found.get("output_names") or ()) == 1:  # it names logs where there are several
        found.pop("output_names")
    entries = list(found.get("_flat_losses") or [])
    if len(entries) == 1:
        found["_flat_losses"] = [entries[0]._replace(name=None)]
    return found


def finds_by_name(optimizer: Any) -> bool:
    """Whether an optimizer treats weights differently by their names."""
    return bool(getattr(optimizer, "_exclude_from_weight_decay_pattern", None))


def modules_that_compute() -> tuple:
    """The modules whose functions layers, losses and metrics call: somebody may have exchanged one."""
    return ops, backend, backend.core, backend.math, backend.nn, backend.numpy, backend.random


def starts_constant(initial_value: Any) -> bool:
    """Whether what computes the first value of a `tf.Variable` is Keras's zeros or ones: the same wherever it is called."""
    code = getattr(initial_value, "__code__", None)
    if code is None or code not in _FIRST_VALUES:
        return False
    cells = dict(zip(code.co_freevars, initial_value.__closure__, strict=True))
    constant = keras.initializers.Zeros, keras.initializers.Ones
    return "initializer" in cells and type(cells["initializer"].cell_contents) in constant


_FIRST_VALUES = {
    code for code in keras.Variable._initialize_with_initializer.__code__.co_consts if hasattr(code, "co_freevars")
}
"""The function that Keras gives to `tf.Variable`."""
