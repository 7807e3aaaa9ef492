"""One pass over the data in compiled calls of some steps, between which callbacks hear of the batches."""

import contextlib
import math
import time
from typing import Any

from keras_backprop import _keras
from keras_backprop.training.interrupts import let_through
from keras_backprop.training.loops.pace import Pace
from keras_backprop.training.loops.some_steps import ROWS
from keras_backprop.training.plans import drawing
from keras_backprop.training.snapshot import Snapshot


class Memory:
    """Examples in memory, as something that gives batches. See `stream.Stream`, which is used alike.

    Args:
        examples: `Examples`.
        batches: the `Batches` of them.
        seed: function without arguments that returns two integers, for the order.
        repeatable: bool, whether steps that have been undone can be made again.
    """

    error = None

    def __init__(self, examples, batches, seed=lambda: (0, 0), repeatable=True):
        self.most = 2**31 if repeatable else 1
        self.tensors, self.batch, self.order = examples.tensors, examples.batch, None
        self._examples, self._batches, self._seed = examples, batches, seed
        self._iterator: Any = None
        self._at: Any = None  # the number of the batch that the iterator gives next

    @contextlib.contextmanager
    def epoch(self, number):
        first, second = self._seed()
        self.order, self._at = self._batches.order(self.tensors, [first, second + number]), None
        with _keras.out_of_data_caught():
            yield

    def take(self, loop, first, count):
        del loop, first
        return self.tensors, count

    def iterator(self, first, count):
        """What gives Keras's function so many batches, from `first` on."""
        if self._at != first:
            self._iterator = iter(self._batches.dataset(self._examples, self.order, first))
        self._at = first + count
        return self._iterator

    def room(self, step):
        room = max(self._examples.steps - step, 0)
        if room and self._examples.steps_left < 1:
            self._examples.require_budget()
        return min(room, self._examples.steps_left)

    def reset(self):
        pass


class Pass:
    """Passes over the data.

    Raises (when it is called):
        NotCompiledError: `loop` has raised it, in the first call of an epoch.

    Args:
        model: a Keras model.
        source: a `Memory` or a `Stream`.
        loop: a `Served`, which returns the `CompiledSteps`, or what takes the place of one; asked before every call.
        listeners: `Listeners`.
        stop: str, the name of the model's attribute by which a callback ends it.
        progress: function (number of steps made, logs), called after a call if there are no listeners.
        made: int, how many steps have been made since training began.

    Attributes:
        logs: dict of float, or of such dicts, as the last step has returned it. {} before the first.
        made: as above.
    """

    def __init__(self, model, source, loop, listeners, stop, progress, made=0):
        self.model, self.source, self.loop, self.listeners = model, source, loop, listeners
        self._stop, self._progress = stop, progress
        self.pace, self.logs, self.made = Pace(), {}, made

    def __call__(self, epoch):
        """Make the steps of one epoch."""
        execution = self.model.steps_per_execution
        with self.source.epoch(epoch):
            step = 0
            while (room := self.source.room(step)) != 0:
                let_through()
                self.listeners.begin(step)
                made, wanted = self._some(step, room)
                if made:
                    step += -(-made // execution) * execution  # as Keras counts: by executions
                    if self._stopped():
                        break
                if made < wanted and self._is_finite():  # no more batches, which Keras finds out in the next execution
                    if made:
                        self.source.room(step)
                        self.listeners.begin(step)
                    self.loop.without_batch(step)
                    raise self.source.error or StopIteration  # which the source knows the meaning of

    def _size(self, loop, room):
        """How many steps to make in the next call."""
        execution = self.model.steps_per_execution
        size = min(self.pace.steps, self.source.most, loop.most) // execution
        if self.listeners.any:
            size = min(size, ROWS // execution, -(-self.listeners.until_due(self.made) // execution))
        if self._stopped():  # Keras, too, looks after the first execution
            size = 1
        if self.listeners.may_stop and not loop.repeatable:
            size = 1
        size = max(size, 1) * execution
        return size if room is None else min(size, room)

    def _some(self, first, room):
        """Make steps, and tell the callbacks. Returns how many, and how many were wanted."""
        start, loop = time.perf_counter(), self.loop(first)
        wanted = self._size(loop, room)
        may_undo = self.listeners.may_stop and wanted > self.model.steps_per_execution
        before = Snapshot(self.model, loop.variables) if may_undo else None
        batches, found = loop.taken(self.source, first, wanted)
        if not found:
            return 0, wanted
        made, rows = self._call(loop, batches, first, found)
        self.pace.took(made, time.perf_counter() - start)
        self._told = 0
        try:
            self._tell(first, made, rows)
        finally:
            self.made += self._told
            if before is not None and self._told < made:
                with drawing(self.model):
                    before.restore()
                    self._call(loop, batches, first, self._told)
        return self._told, wanted

    def _call(self, loop, batches, first, count):
        with drawing(self.model):
            return loop(batches, self.source.order, first, first + count, self.listeners.finite)

    def _tell(self, first, made, rows):
        """Tell the callbacks of executions, until one ends the pass."""
        if not self.listeners.any:
            self.logs, self._told = rows[-1], made
            self._progress(first + made, self.logs)
            return
        execution, ending = self.model.steps_per_execution, self._stopped()  # said by a thread or a signal
        for begin in range(0, made, execution):
            if begin:
                self.listeners.begin(first + begin)
            self._told = min(begin + execution, made)
            if self._told < begin + execution and self.source.error is not None:
                raise self.source.error  # in the middle of an execution, of whose end nobody is told
            self.logs = rows[min(self._told, len(rows)) - 1]
            self.listeners.end(first + begin + execution - 1, self.logs)
            if self._stopped() and not ending:
                return

    def _is_finite(self):
        logs = _keras.pythonify_logs(self.logs) if self.listeners.finite else {}
        return all(math.isfinite(logs.get(name, 0)) for name in self.listeners.finite)

    def _stopped(self):
        return getattr(self.model, self._stop)
