"""What is seen of the backward pass: observers of its links.

    class Norms(keras_backprop.BackwardObserver):
        def observe(self, link):
            self.note(link.path, tf.norm(link.upstream[0]), over_steps="last")

    class PrintNorms(keras.callbacks.Callback):
        backward_observer = Norms()

        def on_epoch_end(self, epoch, logs=None):
            print(self.backward_observer.read())

`fit` finds the observers of its callbacks, and its compiled step tells them of every link. An observer is asked once, while the
step is traced, which tensors it wants to keep; the figures are in variables, and are read when somebody wants to see them.

What the optimizer is given, and the weights before and after it, are told to those that have the methods `before_update` and
`after_update`.
"""

import contextlib
from collections.abc import Iterator
from concurrent import futures
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_backprop.chain.operations import Uses


class ObservedLink(NamedTuple):
    """One link of the backward pass, as an observer sees it.

    Attributes:
        path: str, unique: `encoder/dense`, at its second use `encoder/dense·2`; its activation is `encoder/dense/tanh`.
        call: the `keras_backprop.Call`: what ran forward, with its inputs and outputs.
        upstream: tuple of ∂E/∂y for each output, None where E does not depend on it. Of a layer that ends in an activation y is
            z, what the activation is applied to.
        downstream: tuple of ∂E/∂x for each input, None where nobody needs it.
        weight_gradients: dict, name of a weight -> `keras_backprop.WeightGradient`, not summed over the batch yet.
        loss_scale: None, or a scalar tensor that is a factor of all gradients here (mixed precision).
    """

    path: str
    call: Any
    upstream: tuple
    downstream: tuple
    weight_gradients: dict
    loss_scale: Any


class ObservedUpdate(NamedTuple):
    """The update of a step, as an observer sees it.

    Attributes:
        model: the model that is trained.
        batch: `(x, y, sample_weight)` of tensors.
        examples: int32 tensor of shape `(n,)`: which examples of the data that `fit` was given are the rows of the batch. None
            unless an observer `needs_examples`, and in `train_on_batch`.
        result: the `keras_backprop.Backward` of the step: `loss`, `weights`, `gradients`, `scale`.
        given: list of gradients or None, in the order of `result.weights`: what the optimizer is given, after
            `compile(gradients=…)`, before its own clipping. They carry the loss scale. Empty if no weights are trained.
        optimizer: the model's optimizer.
    """

    model: Any
    batch: tuple
    examples: Any
    result: Any
    given: list
    optimizer: Any


class BackwardObserver:
    """Is told of every link of every step's backward pass. Subclass it with a method `observe(self, link)`.

    It belongs to the attribute `backward_observer` of a callback, and works in the compiled loop of `fit`, in Keras's own loop,
    eagerly, under XLA, and on several replicas, whose figures are put together.

    Attributes:
        needs_examples: bool, whether it must be told which examples a batch is made of. Then `fit` takes arrays only.
        notes: list of the variables that nothing but a step that it notes writes to, and that nothing else in a step depends on.
            One that does not note every step gives them: a step that nobody notes then runs without what writes them.
        differs_batch_by_batch: bool, whether it looks otherwise at steps that run in Keras's own loop, so that they are traced
            again.
    """

    needs_examples = False
    differs_batch_by_batch = False
    notes: Any = ()
    _notes: dict

    def __new__(cls, *args: Any, **kwargs: Any) -> "BackwardObserver":
        observer = super().__new__(cls)
        observer._notes = {}  # here, so that a subclass may have an `__init__` that does not know of this one
        return observer

    def observe(self, link: Any) -> None:
        """Look at an `ObservedLink` while the step is traced, and `note` what is to be kept. Links come in backward order."""
        raise NotImplementedError

    def before_update(self, update: Any) -> None:
        """Look at an `ObservedUpdate` when all links have been told of, and no weight has been changed."""

    def after_update(self, update: Any) -> None:
        """Look at it again when the optimizer has changed the weights: the end of the step."""

    def note(self, name: str, value: Any, over_steps: str = "last") -> None:
        """Keep a figure.

        Args:
            name: str, of the figure; one value for each name and step.
            value: tensor of a shape that is known.
            over_steps: "last", "sum", "mean", "max" or "min": what is made of the values of all steps since the last `reset`.
                Of several replicas, "last" and "mean" are the mean, the others what they say.

        Raises:
            ValueError: another `over_steps`, or the value's shape is unknown.
        """
        if over_steps not in _START:
            raise ValueError(f"`over_steps` must be one of {', '.join(map(repr, _START))}. Received: {over_steps!r}")
        value = tf.cast(tf.convert_to_tensor(value), tf.float32)
        if not value.shape.is_fully_defined():
            raise ValueError(
                f"A figure has a shape that is known before the step runs. Received for {name!r}: {value.shape}"
            )
        if name not in self._notes:
            strategy = tf.distribute.get_strategy()
            # Another thread knows nothing of the function that is being traced.
            with futures.ThreadPoolExecutor(1) as pool:
                self._notes[name] = pool.submit(_Note, name, value.shape, over_steps, strategy).result()
        self._notes[name].add(value)

    def read(self) -> dict[str, Any]:
        """The figures since the last `reset`: a dict, name -> NumPy array, in the order of the forward pass."""
        return {name: note.read() for name, note in reversed(self._notes.items())}

    def training_begins(self, model: Any, arguments: Any) -> None:
        """Is called by `fit`, with its arguments by name, before anything else happens."""

    def step_begins(self, model: Any, data: Any) -> Any:
        """Is called while a step is traced, before its forward pass: to look on at the whole of it.

        Args:
            model: the model.
            data: the batch, `(x, y, sample_weight)` of tensors.

        Returns:
            None; or the pair of the batch with which the step is to go on, and a function of the `ObservedUpdate`, which is
            called at the very end of the step.
        """

    def until_noted(self) -> Any:
        """How many of the next steps it does not note, an integer tensor; asked, where it has `notes`, between two steps."""
        return tf.constant(0)

    @property
    def variables(self) -> list[Any]:
        """The variables that hold the figures."""
        return [v for note in self._notes.values() for v in note.variables]

    def reset(self) -> None:
        """Begin anew with sums, means and extremes."""
        for note in self._notes.values():
            note.reset()


_START = {"last": 0.0, "sum": 0.0, "mean": 0.0, "max": float("-inf"), "min": float("inf")}


class _Note:
    """The variables of one figure: what has been made of its values, and of how many."""

    def __init__(self, name, shape, over_steps, strategy):
        self.over_steps, self._start = over_steps, np.full(shape, _START[over_steps], "float32")
        aggregation = {"sum": tf.VariableAggregation.SUM}.get(over_steps, tf.VariableAggregation.MEAN)
        safe = "".join(c if c.isascii() and (c.isalnum() or c in "_.-/") else "_" for c in name)
        options = {
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": aggregation,
        }
        with strategy.scope():
            self._value = tf.Variable(self._start, name=f"note/{safe}", **options)
            self._steps = tf.Variable(0.0, name=f"steps/{safe}", **options)

    @property
    def variables(self):
        return self._value, self._steps

    def add(self, value):
        if self.over_steps == "last":
            self._value.assign(value)
        elif self.over_steps in ("sum", "mean"):
            self._value.assign_add(value)
        else:
            pick = tf.maximum if self.over_steps == "max" else tf.minimum
            self._value.assign(pick(self._value, value))
        self._steps.assign_add(1.0)

    def read(self):
        value = self._value.read_value()
        if self.over_steps in ("max", "min"):
            of_replicas = getattr(self._value, "values", [value])
            value = (tf.reduce_max if self.over_steps == "max" else tf.reduce_min)(tf.stack(of_replicas), 0)
        value = keras.ops.convert_to_numpy(value)
        return value / max(float(self._steps.read_value()), 1.0) if self.over_steps == "mean" else value

    def reset(self):
        self._value.assign(self._start)
        self._steps.assign(0.0)


def observers_of(callbacks: Any) -> Any:
    """The observers of callbacks, a tuple, each once.

    Raises:
        TypeError: a `backward_observer` without a method `observe`.
    """
    found = {}
    for callback in keras.tree.flatten(getattr(callbacks, "callbacks", callbacks)):
        observer = declared(callback, "backward_observer")
        if observer is not None and not callable(getattr(observer, "observe", None)):
            raise TypeError(
                f"The `backward_observer` of {type(callback).__name__} must have a method `observe(link)`, as a "
                f"`keras_backprop.BackwardObserver` has. Received: {observer!r}"
            )
        if observer is not None:
            found[id(observer)] = observer
    return tuple(found.values())


def declared(callback: Any, name: str, otherwise: Any = None) -> Any:
    """An attribute of a callback, unless the callback answers to every name, as a mock in a test does: so it says nothing."""
    return otherwise if hasattr(callback, "no_attribute_of_a_callback") else getattr(callback, name, otherwise)


@contextlib.contextmanager
def updating(observers: Any, update: Any) -> Iterator[None]:
    """A context for the update of a step: observers are told of it before and after.

    Args:
        observers: list of `BackwardObserver`. One that has only `observe` is told of nothing.
        update: an `ObservedUpdate`.
    """
    for observer in observers:
        _call_if_given(observer, "before_update", update)
    yield
    for observer in observers:
        _call_if_given(observer, "after_update", update)


def need_examples(observers: Any) -> bool:
    """Whether one of the observers must be told which examples a batch is made of."""
    return any(getattr(observer, "needs_examples", False) for observer in observers)


def training_begins(observers: Any, model: Any, arguments: Any) -> None:
    """Tell observers of the beginning of a training. `arguments`: dict, those of `fit`."""
    for observer in observers:
        _call_if_given(observer, "training_begins", model, arguments)


def step_begins(observers: Any, model: Any, data: Any) -> Any:
    """Tell observers of the beginning of a step. Returns the batch to go on with, and a list of what to call at its end."""
    ends = []
    for observer in observers:
        looking_on = _call_if_given(observer, "step_begins", model, data)
        if looking_on is not None:
            data, end = looking_on
            ends.append(end)
    return data, ends


def _call_if_given(observer, name, *arguments):
    """What a method of an observer returns; None where it is none or is None: an observer may have `observe` alone."""
    method = getattr(observer, name, None)
    return None if method is None else method(*arguments)


def telling(observers: Any, calls: Any, loss_scale: Any) -> Any:
    """A function for `sweep` that tells observers of every link.

    Args:
        observers: list of `BackwardObserver`.
        calls: list of `Call`, in the order they ran.
        loss_scale: None or a scalar tensor.
    """
    uses = Uses()
    paths = {id(call): uses.unique(call.path or call.rule.name) for call in calls}

    def tell(call, dys, dxs, weight_gradients):
        link = ObservedLink(paths[id(call)], call, tuple(dys), tuple(dxs), weight_gradients, loss_scale)
        for observer in observers:
            observer.observe(link)

    return tell
