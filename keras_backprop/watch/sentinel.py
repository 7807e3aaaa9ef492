"""Whether a step is sound, as arithmetic inside of it: the loss, what the optimizer receives, and the weights after the update.

In the compiled loop of `fit` the step notes the number of the first step that is not, and `training/guarded.py` goes back. Where
Keras's loop runs, there is no going back, for the batches are gone: there the step itself keeps the state of before it, and puts
it back by `where` if something is not finite.
"""

import collections
import threading
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.observers import BackwardObserver
from keras_backprop.training.snapshot import variables_of
from keras_backprop.watch.faults import Frame
from keras_backprop.watch.kept import KeptBatch, new_variable, value_of
from keras_backprop.watch.locating import extremes

SECONDS = 1.0
"""So often the weights are looked at between the calls of the compiled loop."""


class Sentinel(BackwardObserver):
    """Looks for the first step that is not finite.

    Args:
        freezes: bool, whether all steps after a fault are withheld as well, until somebody has looked.
        keep: int, how many of the last steps are remembered by their extremes.
        judge: function (model, batch, indices, epoch, step, position, broken=False) -> "pass", "skip" or "stop".
    """

    differs_batch_by_batch = True

    def __init__(self, freezes: bool, keep: int, judge: Any) -> None:
        super().__init__()
        self.freezes, self.keep, self.judge = freezes, keep, judge
        self.frames: Any = collections.deque(maxlen=max(keep, 1))
        self.data: Any = None
        self._variables: dict = {}
        self._batch = KeptBatch()
        self._last = 0.0
        self._paths: list = []
        self._lock = threading.Lock()

    def observe(self, link: Any) -> None:
        """It looks at steps, not at links."""

    def training_begins(self, model: Any, arguments: Any) -> None:
        self.data = arguments.get("x"), arguments.get("y"), arguments.get("sample_weight")
        self.frames.clear()
        if self._variables:
            self.reset()

    # What a compiled call is asked for (`training/guarded.py`).

    @property
    def variables(self) -> list[Any]:
        return [self._variables[name] for name in ("steps", "fault") if name in self._variables]

    def reset(self) -> None:
        for name, value in (("steps", 0), ("fault", -1), ("withheld", 0)):
            if name in self._variables:
                self._variables[name].assign(value)

    def objection(self) -> Any:
        """The number of the first step since `reset` that is not sound, or None."""
        if not self._variables:
            return None
        number = int(value_of(self._variables["fault"]))
        return None if number < 0 else number

    def taken(self) -> int:
        """How many steps there were since `reset`."""
        return int(value_of(self._variables["steps"])) if self._variables else 0

    def withheld(self) -> int:
        """How many of them were withheld."""
        return int(value_of(self._variables["withheld"])) if "withheld" in self._variables else 0

    def look(self, model: Any, batch: Any, position: int) -> None:
        """Remember the extremes of a step that is about to be taken, the `position`-th of the training."""
        self._remember(position, extremes(model, *_keras.unpack_x_y_sample_weight(batch)))

    def passed(self, position: int, weights: Any) -> None:
        """Remember the largest |entry| of each weight before the `position`-th step: at the end of a call, once in a while."""
        if self.keep and time.perf_counter() - self._last >= SECONDS:
            self._remember(position, Frame(0, float("nan"), {}, weights()))
            self._last = time.perf_counter()

    def _remember(self, position, frame):
        self.frames = collections.deque(
            (known for known in self.frames if known[0] < position), maxlen=max(self.keep, 1)
        )
        self.frames.append((position, frame))

    def recent(self, position: int) -> list[Frame]:
        """The frames of the steps before the `position`-th, oldest first."""
        frames = [(at, frame) for at, frame in self.frames if at < position] if self.keep else []
        for at, frame in frames:
            frame.step = at - position
        return [frame for _, frame in frames]

    # Inside the step.

    def step_begins(self, model: Any, data: Any) -> Any:
        self._make("steps", 0)
        self._make("fault", -1)
        if model.fit_path is not None and model.fit_path.compiled is False:
            return self._withholding(model, data)
        return data, self._noting(model)

    def _noting(self, model):
        """In the compiled loop. The weights after the update are looked at between the calls.

        Most optimizers make a weight that is not finite of a gradient that is not; then the loss is enough, for the step is found
        by the weights. To look at all gradients takes a tenth of the step of a network of small layers.
        """
        enough = _keeps_what_is_not_finite(model)

        def end(update):
            alike: dict = {}  # one NaN or infinity stays in every sum, and a sum of arrays takes fewer operations
            for x in (_dense(x) for x in (*(() if enough else update.given), update.result.loss) if x is not None):
                x = tf.cast(x, tf.float32) if x.dtype.size < 4 else x
                alike.setdefault((x.dtype, tuple(x.shape) if x.shape.is_fully_defined() else id(x)), []).append(x)
            sums = [_sum(group) for group in alike.values()]
            total = sums[0] if len(sums) == 1 else tf.add_n([tf.cast(x, tf.float64) for x in sums])
            self._note(~tf.math.is_finite(total))

        return end

    def _note(self, bad):
        steps, fault = self._variables["steps"], self._variables["fault"]
        fault.assign(tf.where(bad & (fault < 0), steps, fault))
        steps.assign_add(1)

    def _withholding(self, model, data):
        _build(model, data)
        fault = self._variables["fault"]
        self._make("withheld", 0)
        state = variables_of(model)
        before = [tf.identity(v.value) for v in state]
        frozen = fault >= 0
        if not tf.executing_eagerly():  # all that changes the state depends on the batch, and that on what was read
            with tf.control_dependencies([*before, frozen]):
                data = tf.nest.map_structure(
                    lambda x: tf.identity(x) if isinstance(x, tf.Tensor) else x, data
                )  # what is no tensor stays

        def end(update):
            result = update.result
            given = [_dense(g) for g in update.given if g is not None]
            weights = [v.value for v in result.weights]
            broken = ~_finite([result.loss, *weights])
            overflow = ~_finite(given)
            broken, overflow = _anywhere(broken), _anywhere(overflow)
            if result.scale is None:  # with a loss scale the optimizer itself leaves out what overflows
                broken |= overflow
            withheld = (broken | frozen) if self.freezes else broken
            first = (broken | overflow) & (fault < 0)
            self._batch.keep(data, first)
            self._frame(result, given, before, state, first | frozen)
            _put_back(state, before, withheld)
            self._variables["withheld"].assign_add(tf.cast(withheld, tf.int32))
            self._note(broken | overflow)

        return data, end

    def _frame(self, result, gradients, before, state, over):
        if not self.keep:
            return
        values = {id(v): x for v, x in zip(state, before, strict=True)}
        with self._lock:
            self._paths = [v.path for v in result.weights]
        absent = [tf.zeros(())] * (len(result.weights) - len(gradients))
        row = tf.stack([
            tf.cast(result.loss, tf.float32), *map(_largest, gradients), *absent,
            *(_largest(values[id(v)]) for v in result.weights),
        ])  # fmt: skip
        name = f"frames {len(self._paths)}"
        self._make(name, np.zeros((self.keep, row.shape[0]), "float32"))
        ring, steps = self._variables[name], self._variables["steps"]
        at = tf.one_hot(steps % self.keep, self.keep) > 0
        ring.assign(tf.where(at[:, None] & ~over, row[None], ring))

    def read_frames(self) -> None:
        """Take over the frames that steps of Keras's loop have noted before the fault."""
        self.frames.clear()
        ring = self._variables.get(f"frames {len(self._paths)}")
        if ring is None:
            return
        rows, fault, count = value_of(ring), self.objection() or 0, len(self._paths)
        for step in range(max(0, fault - self.keep), fault):
            row = rows[step % self.keep].tolist()
            gradients = dict(zip(self._paths, row[1 : 1 + count], strict=True))
            weights = dict(zip(self._paths, row[1 + count :], strict=True))
            self.frames.append((step, Frame(0, row[0], gradients, weights)))

    def read_batch(self) -> Any:
        """The batch of the first fault since `reset`, arrays of all replicas together; None if it could not be kept."""
        return self._batch.read()

    def _make(self, name, value):
        if name not in self._variables:
            value = np.asarray(value, None if isinstance(value, np.ndarray) else "int32")
            with self._lock:
                if name not in self._variables:
                    self._variables[name] = new_variable(value.dtype, value.shape, value, name)


def _keeps_what_is_not_finite(model):
    """Whether a weight is not finite after an update by a gradient that is not: no clipping of values, no signs, no waiting."""
    optimizer = model.optimizer
    waits = getattr(optimizer, "gradient_accumulation_steps", None)
    bounded = any(v.constraint is not None for v in model.trainable_variables)
    return type(optimizer) in _PLAIN and not waits and getattr(optimizer, "clipvalue", None) is None and not bounded


_PLAIN = (
    keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.AdamW, keras.optimizers.RMSprop, keras.optimizers.Adagrad,
    keras.optimizers.Nadam,
)  # fmt: skip


def _sum(arrays):
    """Of all entries of arrays of one shape, in no more operations than it takes."""
    x = arrays[0] if len(arrays) == 1 else tf.add_n(arrays)
    return x if x.shape.rank == 0 else tf.reduce_sum(x)


def _dense(g):
    return g.values if isinstance(g, tf.IndexedSlices) else tf.convert_to_tensor(g)


def _finite(tensors):
    flags = [tf.reduce_all(tf.math.is_finite(x)) for x in tensors]
    return tf.reduce_all(tf.stack(flags)) if flags else tf.constant(True)


def _largest(x):
    return tf.cast(tf.reduce_max(tf.abs(x)), tf.float32)


def _anywhere(flag):
    """Whether it is so in any replica."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return flag
    return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(flag, tf.float32)) > 0


def _put_back(state, before, withheld):
    """Give variables their values of before, if the step is withheld."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        for variable, old in zip(state, before, strict=True):
            variable.assign(tf.where(withheld, old, variable.value))
        return

    def update(strategy, before, withheld):
        for variable, old in zip(state, before, strict=True):
            value = _keras.stored_in(variable)
            strategy.extended.update(
                value, lambda v, old, withheld: v.assign(tf.where(withheld, old, v)), (old, withheld)
            )

    context.merge_call(update, (before, withheld))


def _build(model, data):
    """Make the variables that a step needs before it reads them all."""
    if _keras.strategy_of(model) is None and not _is_built(model):
        spec = keras.tree.map_structure(
            lambda x: None if x is None else keras.KerasTensor(x.shape, keras.backend.standardize_dtype(x.dtype)), data
        )
        with tf.init_scope():
            _keras.build_all(model, tuple(spec))


def _is_built(model):
    parts = (*_keras.metrics_and_loss(model), model.optimizer)
    return model.built and all(part is None or part.built for part in parts)
