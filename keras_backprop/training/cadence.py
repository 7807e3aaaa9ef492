"""How often a callback wants to be called within an epoch.

    class Norms(keras.callbacks.Callback):
        batch_freq = 100

        def on_train_begin(self, logs=None):
            self.cadence = Cadence(self.batch_freq)

        def on_train_batch_end(self, batch, logs=None):
            if self.cadence.due(batch):
                print(self.cadence.step, …)

With `batch_freq` a callback promises that its methods for batches do something only after every n-th step, counted from 1 over
all epochs of a `fit`: after n, 2n, 3n, … steps; with `first_batch`, after first_batch, first_batch + n, …. A compiled call ends
there, and the callback sees the model, the logs and the observers' figures as they are then. `batch_freq = "epoch"` says that
nothing within an epoch matters, and "never" that its methods for batches are for Keras's own loop only. At which other batches it
is called is left open, so it counts the steps itself.
"""

from typing import Any


class Cadence:
    """Counts the steps of a training by the numbers of batches that a callback is told, and says when one is due.

    Args:
        every: int ≥ 1.
        first: int ≥ 1, the first step after which it is due; by default `every`.

    Attributes:
        step: int, the number of steps made so far.
    """

    def __init__(self, every: int, first: int | None = None) -> None:
        self.every, self.first = every, every if first is None else first
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.step, self._before_epoch, self._last = 0, 0, -1

    def due(self, batch: Any) -> bool:
        """Whether a step after which it is due has been made since the last call.

        Args:
            batch: int, the number of the last batch in its epoch, as `on_train_batch_end` is told. A number that is not larger
                than the one before begins another epoch. Batches in between may have been left out.
        """
        if batch <= self._last:
            self._before_epoch = self.step
        self._last, before = batch, self.step
        self.step = self._before_epoch + batch + 1
        return next_due(before, self.every, self.first) <= self.step


def next_due(step: int, every: int, first: int) -> int:
    """The number of steps after which it is due next, when `step` steps have been made."""
    return first if step < first else step + every - (step - first) % every
