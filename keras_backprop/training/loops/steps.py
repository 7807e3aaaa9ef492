"""The training and test steps that Keras traces: the same traces, for its loop and for ours.

Keras traces a step in the first batch and keeps it until the model is compiled anew: what callbacks and users change before
then takes effect, what they change afterwards does not. So our loop traces no step of its own. It asks Keras's function for the
trace that Keras's loop would run, and puts the operations of that trace into itself. A loop for data of another size, or with
validation, holds a copy; nothing is traced again. It does not matter whose step it is: a `train_step` of a user's own is traced
by Keras all the same, and what Python does in it, it does while it is traced.
"""

import contextlib
import functools

import keras
import tensorflow as tf

from keras_backprop import _keras, _tensorflow
from keras_backprop.training.path import NotCompiledError
from keras_backprop.training.plans import plan_of

_WITH_PARTS = ("If", "Case", "StatefulPartitionedCall")
"""Types of operations that TensorFlow takes apart: each operation inside runs as soon as what it needs is there."""


def train_step(model, batch):
    """The trace of a training step: a `tf.ConcreteFunction`, made when there is none yet.

    Args:
        model: a compiled Keras model.
        batch: what Keras's data set says of a batch, nested `tf.TypeSpec`.

    Raises:
        LookupError: the model's train function is not Keras's.
        Exception: whatever tracing the step raises.
    """
    model.make_train_function()
    step = _keras.step_of(model.train_function)
    with _made_anew_unless_traced(model, "train_function"):
        step = model._loops.traces.get("train", step, batch)
    plan = plan_of(model)
    if plan is not None and not plan.is_asked_in(step.graph):
        raise NotCompiledError("its steps do not ask the plan for their gradients")  # Keras's loop says so
    return step


def test_step(model, batch):
    """The same for a test step."""
    model.make_test_function()
    step = _keras.step_of(model.test_function)
    with _made_anew_unless_traced(model, "test_function"):
        return model._loops.traces.get("test", step, batch)


@contextlib.contextmanager
def _made_anew_unless_traced(model, name):
    """Of a step that makes variables and then fails, TensorFlow keeps an empty trace, which would run in Keras's loop."""
    try:
        yield
    except BaseException:
        getattr(model, f"make_{name}")(force=True)
        raise


class Operations:
    """The operations of a traced step, to be put into other functions.

    Args:
        step: a `tf.ConcreteFunction` of one argument, a batch.
        logs: bool, whether the logs that it returns are wanted.
        without: list of variables that the step need not change.
        due: list of variables. What is done once if it is due (`_tensorflow.once_if`) and uses one of them is due.
        substituted: bool, whether operations that XLA does not know may take the place of others (`_tensorflow.substitutable`).

    Attributes:
        operations: list of `tf.Operation`, those that change something, and what these, and the logs, need.
        names: list of str, of the logs in the order in which Keras tells them.

    Raises:
        NotCompiledError: the logs are wanted, and are no dict of numbers.
    """

    def __init__(self, step, logs=False, without=(), due=(), substituted=False):
        self._step, self._substituted = step, substituted
        self.names, self._logs = _named_numbers(step) if logs else ([], [])
        self.operations = _tensorflow.with_effects(step.graph, self._logs, without, substituted)
        handles = {id(v.handle) for v in due}
        used = {inner.op for outer, inner in step.graph.captures if id(outer) in handles}
        self._due = [
            one
            for one in self.operations
            if _tensorflow.is_once_if(one) and not used.isdisjoint(x.op for x in one.inputs)
        ]

    @property
    def variables(self):
        """The variables of the step, a list of `tf.Variable`: those too that no model knows of."""
        return list(self._step.graph.variables)

    @functools.cached_property
    def changed(self):
        """The numbers (`id`) of the handles of variables, tables and the like that the step changes, a set."""
        return {id(handle) for handle in _tensorflow.changed_by(self._step)}

    def as_returned(self, logs):
        """Logs by their names, in dicts as the step returns them: by these Keras decides what it tells, in which order."""
        return _nested(self._step.structured_outputs, logs)

    def run(self, batch, lowered):
        """Put them into the graph at hand, for a batch of tensors. `lowered`: see `_tensorflow.copy_operations`.

        Returns:
            list of tensors, the logs.
        """
        batch = [x for x in tf.nest.flatten(batch, expand_composites=True) if x is not None]
        inputs = list(zip(self._step.inputs, [*batch, *self._step.captured_inputs], strict=True))
        return _tensorflow.copy_operations(self.operations, inputs, lowered, self._logs, self._due, self._substituted)

    @functools.cached_property
    def has_parts_without_batch(self):
        """Whether an operation that needs the batch has operations of its own, of which some may need none."""
        return any(operation.type in _WITH_PARTS for operation in set(self.operations) - set(self._without_batch))

    @functools.cached_property
    def _without_batch(self):
        """Those that need no batch, in their order."""
        needing, others = {x.op for x in self._batch}, []
        for operation in self.operations:
            if not needing.isdisjoint([*(x.op for x in operation.inputs), *operation.control_inputs]):
                needing.add(operation)
            elif operation not in needing:
                others.append(operation)
        return others

    @property
    def _batch(self):
        return self._step.inputs[: len(self._step.inputs) - len(self._step.captured_inputs)]

    def run_without_batch(self, lowered):
        """Put those into the graph at hand that change something and need no batch, such as the counting of iterations."""
        inputs = zip(self._step.inputs[len(self._batch) :], self._step.captured_inputs, strict=True)
        _tensorflow.copy_operations(self._without_batch, list(inputs), lowered, substituted=self._substituted)

    def call(self, batch):
        """Put a call of the step into the graph at hand. Returns the same."""
        logs = dict(_named(self._step(batch)))
        return [logs[name] for name in self.names]


def _named_numbers(step):
    logs = step.structured_outputs
    named = dict(_named(logs)) if isinstance(logs, dict) else {"": None}
    if not all(_is_number(x) for x in named.values()):
        raise NotCompiledError("its steps return logs that are no dict of numbers")
    return list(named), list(named.values())


def _named(logs):
    """The logs as Keras names them: of a dict in a dict, the names inside."""
    for name in sorted(logs):
        if isinstance(logs[name], dict):
            yield from _named(logs[name])
        else:
            yield name, logs[name]


def _nested(logs, values):
    return {name: _nested(x, values) if isinstance(x, dict) else values[name] for name, x in logs.items()}


def _is_number(x):
    return (
        isinstance(x, tf.Tensor)
        and x.shape.rank == 0
        and (x.dtype.is_floating or x.dtype.is_integer or x.dtype.is_bool)
    )


def specification(dataset):
    """What Keras's steps are given of a data set: nested `tf.TypeSpec`. What may be absent, is absent."""
    return keras.tree.map_structure(
        lambda x: None if isinstance(x, (tf.OptionalSpec, tf.NoneTensorSpec)) else x, dataset.element_spec
    )
