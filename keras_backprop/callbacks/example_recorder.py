"""What becomes of every training example: its loss, gradient, error and whether it is right, epoch after epoch."""

import numbers
import warnings
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop.callbacks.backprop_trainer import require_backprop_trainer
from keras_backprop.callbacks.example_quantities import QUANTITIES
from keras_backprop.observers import BackwardObserver
from keras_backprop.training.plans import plan_of
from keras_backprop.training.stock import has_own


@keras.saving.register_keras_serializable(package="keras_backprop")
class ExampleRecorder(keras.callbacks.Callback):
    """Records every training example in the training step itself, however the examples are shuffled; the loop stays compiled.

    What is recorded is what the step computes anyway, before its update and in training mode (dropout included): no example is
    run twice. The scores that are made of it find wrong labels, and examples that one can do without.

    Args:
        every: int ≥ 1, record each so-many-th epoch, the first included.
        quantities: which of "loss" (the example's own, sample weights left out), "gradient_norm" (of its own error, over all
            weights, as `Backward.example_norms` tells it), "error" (‖p − y‖ of probabilities, or of predictions), "correct" and
            "margin" (the log-odds of the given class over the best other). The last two are of models that predict one class
            for each example by a cross-entropy, of which a binary one has one output: several yes-or-no outputs are several
            answers, of which an example may have some right, and no one margin. By default all that the model has; a warning
            names what it has not.

    Attributes:
        history: dict, quantity -> float32 array of shape (examples, records), NaN where an example was in no batch. In the order
            of the examples that `fit` was given.
        epochs: list of int, the epoch of each record.

    Raises:
        ValueError: another `every` or quantity; data that are no arrays; a quantity that was asked for and does not exist.
        NotImplementedError: several replicas.
    """

    def __init__(self, every: Any = 1, quantities: Any = None) -> None:
        super().__init__()
        if isinstance(every, bool) or not isinstance(every, numbers.Integral) or every < 1:
            raise ValueError(f"`every` must be a whole number of epochs, 1 or more. Received: every={every!r}")
        wrong = [q for q in (quantities if quantities is not None else ()) if q not in QUANTITIES]
        if wrong or (quantities is not None and not list(quantities)):
            raise ValueError(f"`quantities` must be among {', '.join(QUANTITIES)}. Received: quantities={quantities!r}")
        self.every, self.quantities = int(every), None if quantities is None else list(quantities)
        self.history: dict[str, Any] = {}
        self.epochs: list[int] = []
        self.backward_observer = _Record(self.quantities)

    def on_train_begin(self, logs: Any = None) -> None:
        require_backprop_trainer(self.model, "it knows of no single examples")
        if has_own(self.model, "train_step"):
            raise ValueError(
                f"ExampleRecorder cannot look into the `train_step` of the model '{self.model.name}'. Override `backward_pass`, "
                "`make_gradients` or `update_weights` instead, in a class derived from `BackpropModel`."
            )
        self.history, self.epochs = {}, []

    def on_epoch_begin(self, epoch: Any, logs: Any = None) -> None:
        self.backward_observer.begin(epoch % self.every == 0)

    def on_epoch_end(self, epoch: Any, logs: Any = None) -> None:
        if epoch % self.every:
            return
        self.epochs.append(int(epoch))
        columns = self.backward_observer.read()
        n = max([len(c) for c in columns.values()] + [len(next(iter(self.history.values()), ()))])
        for name, column in columns.items():
            before = [_padded(self.history[name], n)] if name in self.history else []
            self.history[name] = np.concatenate([*before, _padded(column[:, None], n)], 1)

    def table(self) -> dict[str, Any]:
        """The history in long form: a dict of columns of equal length, "example", "epoch" and the quantities."""
        n, records = next(iter(self.history.values()), np.zeros((0, 0))).shape
        columns = {"example": np.repeat(np.arange(n), records), "epoch": np.tile(np.array(self.epochs, int), n)}
        return columns | {name: values.ravel() for name, values in self.history.items()}

    def grand(self, records: Any = None) -> Any:
        """GraNd: the mean norm of each example's gradient (Paul et al., "Deep Learning on a Data Diet", 2021), shape `(n,)`.

        Args:
            records: int, of the first so many records; None for all. The paper takes few, over several initial weights.
        """
        return _mean(self._column("gradient_norm"), records)

    def el2n(self, records: Any = None) -> Any:
        """EL2N: the mean of ‖p − y‖ (Paul et al., 2021), shape `(n,)`. High: hard, or labelled wrongly."""
        return _mean(self._column("error"), records)

    def forgetting_events(self) -> Any:
        """How often each example was right and then wrong (Toneva et al., 2019), shape `(n,)`; infinite if it never was right."""
        right = self._column("correct")
        events = np.zeros(len(right))
        last = np.zeros(len(right))
        for column in right.T:
            seen = ~np.isnan(column)
            events += seen & (last == 1) & (column == 0)
            last = np.where(seen, column, last)
        return np.where((right == 1).any(1), events, np.inf)

    def area_under_margin(self) -> Any:
        """AUM: the mean margin (Pleiss et al., 2020), shape `(n,)`. Low, negative above all: labelled wrongly."""
        return _mean(self._column("margin"), None)

    def _column(self, name):
        if name not in self.history:
            raise ValueError(f"There is no record of '{name}'. Recorded: {', '.join(self.history) or 'nothing yet'}")
        return self.history[name]

    def get_config(self) -> dict[str, Any]:
        return {"every": self.every, "quantities": self.quantities}

    @classmethod
    def from_config(cls, config: Any) -> Any:
        return cls(**config)


class _Record(BackwardObserver):
    """The quantities of every example, in variables.

    Args:
        quantities: list of str; None for all that the model has.
    """

    needs_examples = True

    def __init__(self, quantities: Any) -> None:
        super().__init__()
        self.quantities = quantities
        self._values: dict = {}
        self._wanted = keras.Variable(True, dtype="bool", trainable=False, name="record")

    def begin(self, wanted: bool) -> None:
        """Forget, and record from now on, or not."""
        self._wanted.assign(wanted)
        for variable in self._values.values():
            variable.assign(tf.fill([0], np.float32(np.nan)))

    def read(self) -> dict[str, Any]:
        """Quantity -> array of one number for each example up to the last that was seen."""
        columns = {name: variable.numpy() for name, variable in self._values.items()}
        written = {name: column for name, column in columns.items() if len(column)}
        return written or columns  # an earlier `fit` may have had others

    @property
    def variables(self) -> list[Any]:
        return list(self._values.values())

    def observe(self, link: Any) -> None:
        """It looks at examples, not at links."""

    def before_update(self, update: Any) -> None:
        if update.examples is None:  # `train_on_batch`
            return
        model, result, positions, (_, y, sample_weight) = update.model, update.result, update.examples, update.batch
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise NotImplementedError("ExampleRecorder does not record on several replicas.")
        drawn = plan_of(model) is not None and sample_weight is not None
        values = {}
        for name in self.quantities or QUANTITIES:
            try:
                values[name] = tf.cast(QUANTITIES[name](model, result, y), tf.float32)
            except ValueError as reason:
                if self.quantities is not None:
                    raise
                warnings.warn(f"ExampleRecorder records no {name}: {reason}", stacklevel=2)
        with tf.init_scope():
            for name in values:
                if name not in self._values:
                    self._values[name] = tf.Variable(
                        tf.zeros([0]), shape=[None], trainable=False, name=f"recorded_{name}"
                    )
        if drawn:  # rows that fill up a batch are of no example
            present = result.example_scale.weighted()[2] > 0
            positions = tf.boolean_mask(positions, present)
            values = {name: tf.boolean_mask(value, present) for name, value in values.items()}

        def record(_):
            for name, value in values.items():
                variable = self._values[name]
                column = variable.read_value()
                missing = tf.maximum(tf.reduce_max(tf.concat([positions, [-1]], 0)) + 1 - tf.size(column), 0)
                column = tf.concat([column, tf.fill([missing], np.float32(np.nan))], 0)
                variable.assign(tf.tensor_scatter_nd_update(column, positions[:, None], value))
            return (tf.constant(False),)

        # A loop of at most one turn, which unlike `tf.cond` leaves the step one that can run in one thread.
        tf.while_loop(lambda due: due, record, (tf.convert_to_tensor(self._wanted.value),))


def _padded(values, n):
    """With NaN for the examples up to the n-th, which were in no batch."""
    return np.concatenate([values, np.full((n - len(values), values.shape[1]), np.nan, "float32")])


def _mean(values, records):
    values = values[:, :records]
    count = (~np.isnan(values)).sum(1)
    return np.where(count, np.nansum(values, 1) / np.maximum(count, 1), np.nan)
