"""Watch activations, deltas and gradients while `fit` runs."""

import math
import numbers
import warnings
from typing import Any

import keras
import numpy as np

from keras_backprop import _keras
from keras_backprop.callbacks.backprop_trainer import require_backprop_trainer
from keras_backprop.report import monitor_page, page
from keras_backprop.report.notebook import monitor_html
from keras_backprop.report.pictures import plot
from keras_backprop.training.cadence import Cadence
from keras_backprop.watch import sinks
from keras_backprop.watch.history import Block, History
from keras_backprop.watch.quantities import parsed
from keras_backprop.watch.selection import Selection
from keras_backprop.watch.statistics import Statistics

EPOCHS_IN_A_CALL = 256
"""So many epochs may run before a callback is told of the first (`training/loops/epochs.py`)."""


OFTEN = 100
"""One step in so many, or more, is worth an operation of our own (`watch/native/`)."""


class BackwardMonitor(keras.callbacks.Callback):
    """Keeps figures of every link of the backward pass and of every weight while `fit` runs, in the compiled loop too.

        monitor = keras_backprop.callbacks.BackwardMonitor("encoder/*", ("norm", "gain", "update_ratio"), every=10)
        model.fit(x, y, callbacks=[monitor])
        monitor.history.to_pandas()

    They are computed inside the step that is compiled, from the tensors that it has, and cost no pass of their own. A step's
    figures are of the weights before its update. What the error does not go back through, the layers below the lowest weight that
    is trained, is not seen.

    Quantities, each of activations (what comes out of a link), deltas (∂E/∂ of it; of a layer that ends in an activation ∂E/∂z)
    and gradients (∂E/∂W, of each weight, summed over its uses); with `"delta.norm"` of one of the three only:

    * `"norm"` (Euclidean), `"mean"`, `"std"` (of all elements, with divisor n), `"min"`, `"max"`
    * `"zeros"`, `"nonfinite"`: the shares of elements that are 0, and that are NaN or infinite
    * `"histogram"`: counts of magnitudes in fixed bins, two for each power of ten, between `keras_backprop.watch.moments.EDGES`

    And of one kind:

    * `"gain"`, of links: ‖∂E/∂x‖ / ‖∂E/∂y‖, of all inputs together. Below 1 in many links in a row gradients vanish, above 1 they
      explode.
    * `"dead"`, of relu and relu6: the share of units, along the last axis, that are 0 for all examples
    * `"saturated"`, of sigmoid, tanh and their like: the share of values where the local derivative is below 1 % of its largest
    * `"delta_by_step"`, of recurrent layers: the norm of δ at every time step, an array of shape `(T,)`, first step first
    * `"update_ratio"`, of weights: ‖change of W by the update‖ / ‖W before‖; infinite where W was 0
    * `"scaled_norm"`, `"norm"`, `"given_norm"`, `"clipped_norm"`, of ∂E/∂W: with the loss scale in it; without; of what
      `compile(gradients=…)` has made of it; of what the optimizer has, having accumulated and clipped it
    * `"global_norm"` and `"clipped_global_norm"`: of all weights' gradients together, of `"norm"` and `"clipped_norm"`; the path
      is `"*"`
    * `"example_variance"`, `"noise_scale"`, of ∂E/∂W, and of the chosen weights together (path `"*"`): tr Σ and tr Σ/‖G‖² of
      the gradients of single examples; `"example_cosine"`, of all weights together: the mean cosine of an example's gradient to
      the mean (`keras_backprop.gradients.gradient_noise_scale`, `example_cosines`)

    All but `"scaled_norm"` are without the loss scale of mixed precision. Of several replicas they are of the whole batch. In
    steps that update nothing, because the optimizer accumulates gradients or a loss scale skips the update, there is no
    `"update_ratio"` and no `"clipped_norm"`.

    Args:
        layers: pattern of paths, a layer, or a list of them: which links and weights. `"*"` is everything; `"encoder"` also means
            what lies under it.
        quantities: str or tuple of str, as above; `"all"` is everything but histograms and what is asked of single
            examples.
        every: int N ≥ 1, note the steps 0, N, 2·N, … of each `fit`; or "epoch", the last step of every epoch.
        tensorboard: directory, to write scalars and histograms to, by path.
        csv: path of a file to write records to.
        logger: an object with a method `log(dict)`, called for every step that is noted.
        batch_freq: int N ≥ 1, after every N-th step, counted over all epochs, what has been noted goes into `history` and to
            TensorBoard, the file and the logger; None: at the end of every epoch.

    Attributes:
        history: a list of records, see `keras_backprop.watch.History`; it goes on over several calls of `fit`.
        epoch_logs: list of (epoch, logs), what `fit` said at the end of each epoch.

    Raises:
        ValueError: a nonsensical argument; in training, a pattern that matches nothing, a model that trains by the tape,
            figures that would take too much memory, or weights without gradients of single examples where these are asked for.
    """

    def __init__(
        self, layers: Any = "*", quantities: Any = ("norm", "gain", "update_ratio", "dead", "saturated"), every: Any = "epoch", *,
        tensorboard: Any = None, csv: Any = None, logger: Any = None, batch_freq: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if not _is_count(every) and every != "epoch":
            raise ValueError(
                f'`every` must be a whole number of steps, 1 or more, or "epoch". Received: every={every!r}'
            )
        if batch_freq is not None and not _is_count(batch_freq):
            raise ValueError(
                "`batch_freq` must be a whole number of steps, 1 or more, or None, for the end of every epoch. Received: "
                f"batch_freq={batch_freq!r}"
            )
        if logger is not None and not callable(getattr(logger, "log", None)):
            raise ValueError(f"`logger` must have a method `log(dict)`. Received: logger={logger!r}")
        self.layers, self.quantities = layers, quantities
        self.every = every
        self._every = None if every == "epoch" else int(every)
        self._cadence = None if batch_freq is None else Cadence(int(batch_freq))
        self.history = History()
        self.epoch_logs: list = []
        self._epoch = 0
        often = self._every is not None and self._every <= OFTEN
        self.backward_observer = Statistics(Selection(layers), parsed(quantities), self._every == 1, often)
        self._sinks: list = []
        self._sinks += [] if tensorboard is None else [sinks.TensorBoard(tensorboard)]
        self._sinks += [] if csv is None else [sinks.Csv(csv)]
        self._sinks += [] if logger is None else [sinks.Logger(logger)]

    # What the loop wants to know of a callback, see `training/callbacks.py`. It is said of the class: of methods that a subclass
    # overrides it must not hold.

    @property
    def batch_freq(self) -> Any:
        """How often figures are told within epochs: a number of steps, or "never"."""
        return "never" if self._cadence is None else self._cadence.every

    @property
    def reads_only_logs(self) -> bool:
        """Whether many epochs may share a call: what is noted stays in the step's variables until somebody reads it."""
        return self._cadence is None

    def on_train_begin(self, logs: Any = None) -> None:
        model = self.model
        require_backprop_trainer(model, "there is nothing to watch")
        steps, epochs = self.params.get("steps"), self.params.get("epochs") or 1
        self._steps = int(steps) if steps else None
        self._last_only = self._every is None and self._steps is None
        every = self._every or self._steps or 1  # where nobody knows how many steps there are, each may be the last
        first = 0 if self._every else every - 1
        rows: Any = self._steps and (math.ceil(self._steps / every) + 1, min(epochs, EPOCHS_IN_A_CALL))
        if self._cadence is not None:
            self._cadence.reset()
            rows = math.ceil((self._cadence.every + model.steps_per_execution) / every) + 1, 1
        layers = [layer.path or layer.name for layer in _keras.layers_in(model)]
        self.backward_observer.begin(
            model.distribute_strategy, every, first, rows, [*layers, *(w.path for w in model.weights)],
        )  # fmt: skip
        self._end = self._start = self.backward_observer.steps

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._cadence is not None and self._cadence.due(batch) and not self._last_only:
            self._take(self._epoch, min(self.backward_observer.steps, self._start + self._cadence.step))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.epoch_logs.append((epoch, dict(logs or {})))
        reached = self.backward_observer.steps  # perhaps steps of later epochs too, which share a call with this one
        self._end = reached if self._steps is None else min(reached, self._end + self._steps)
        self._take(epoch, self._end)

    def on_train_end(self, logs: Any = None) -> None:
        observer = self.backward_observer
        if observer.steps == self._start and self.model.trainable_weights:
            warnings.warn(
                "BackwardMonitor has seen no step: the model's own `train_step` does not call that of `BackpropModel`.",
                stacklevel=2,
            )
        if observer.lost:
            warnings.warn(
                f"BackwardMonitor: the figures of {observer.lost} steps were written over before they were read, because nobody "
                "knew how many steps an epoch has. Note fewer steps (`every`).",
                stacklevel=2,
            )

    def _take(self, epoch, before):
        for steps, rows in self.backward_observer.collect(before, self._last_only):
            block = Block(np.full(len(steps), epoch), steps, rows)
            self.history.add(block)
            if self._sinks:
                records = list(block)
                for sink in self._sinks:
                    sink.write(records)

    def flush(self) -> None:
        """Take into the history what has been noted of an epoch that was cut short, by an exception for instance."""
        self._take(self._epoch, None)

    def to_pandas(self) -> Any:
        """`history` as a `pandas.DataFrame`."""
        return self.history.to_pandas()

    def report(self, path: Any, *, title: Any = None, epsilon: Any = None, findings: Any = None) -> Any:
        """Write a page of what was watched: one HTML file that needs no network and no other file.

        It shows the error, the flow of the gradient through links and steps, the network with a slider through the noted steps,
        update ratios, gains, dead and saturated units, and histograms: each of them if its quantity was noted.

        Args:
            path: str or path that ends in .html.
            title: str, the heading.
            epsilon: float, an error ε to be drawn into the curve of the error.
            findings: list of objects with `title`, `evidence`, `remedy`, `path` and `severity`, such as `keras_backprop.diagnose`
                finds; None: the page has no such section.

        Returns:
            The path, as a `pathlib.Path`.

        Raises:
            ValueError: another suffix.
        """
        return page.write(monitor_page(self, title or self._title(), epsilon, findings), path)

    def plot(self, path: Any, what: str = "flow") -> Any:
        """Draw a figure of the report as a picture.

        Args:
            path: str or path that ends in .png, .svg or .pdf.
            what: "flow" (‖∂E/∂y‖, links × steps), "error", "update_ratio", "gain", "dead" or "saturated" (each over the steps).

        Returns:
            The path, as a `pathlib.Path`.

        Raises:
            ImportError: Matplotlib is not installed.
            ValueError: another suffix, another figure, or one of which nothing was noted.
        """
        return plot(self, path, what)

    def _title(self):
        return f"Backward pass of {self.model.name}" if self.model is not None else "Backward pass"

    def _repr_html_(self) -> str:
        return monitor_html(self)


def _is_count(x):
    return isinstance(x, numbers.Integral) and not isinstance(x, bool) and int(x) >= 1
