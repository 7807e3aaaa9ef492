"""Find the first NaN or infinity of a training: which link, which direction, which examples, and why."""

import collections
import numbers
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.callbacks.backprop_trainer import require_backprop_trainer
from keras_backprop.training.plans import plan_of
from keras_backprop.watch.faults import FORWARD, Fault, NonFiniteError
from keras_backprop.watch.locating import locate
from keras_backprop.watch.sentinel import Sentinel

_ACTIONS = ("raise", "stop", "skip")


@keras.saving.register_keras_serializable(package="keras_backprop")
class LocateNaN(keras.callbacks.Callback):
    """Says where a training turns non-finite, and keeps the model as it was before that step.

    In every step the loss, the gradients that the optimizer is given and the weights after the update must be finite. What is
    not finite in between and does not reach them, because the model masks it, is no fault; nor is a step that a loss scale
    (mixed precision) leaves out because its scaled gradients overflow. At a fault the batch is run once more, operation by
    operation, and the `Fault` names the epoch, the step, the link, the direction, the operation, the examples, the likely cause
    and what helps.

    The step's update is withheld: weights, optimizer, batch statistics, seeds and metrics are what they were before it.

    Args:
        action: "raise": `fit` raises a `NonFiniteError`. "stop": `fit` ends, as if a callback had set `stop_training`. "skip":
            training goes on with the next batch, as if this one did not exist.
        keep: int ≥ 0, how many of the last steps before a fault are remembered by their extremes, and of how many of the last
            faults the batches are kept.
        verbose: 1 prints the message of a fault that does not raise; 0 is silent.

    Attributes:
        faults: list of `Fault`, in order. `fault` is the last one, or None.
        skipped: int, the number of steps that were left out.

    Raises:
        ValueError: a nonsensical argument; a model that trains by the tape, or by a `train_step` that cannot be looked into.
        NonFiniteError: (`action="raise"`) a fault; a `FloatingPointError`, with the `Fault` as its attribute `fault`.
    """

    batch_freq = "never"  # in the compiled loop it is asked between the calls
    reads_only_logs = True

    def __init__(self, action: str = "raise", keep: Any = 8, verbose: int = 1) -> None:
        super().__init__()
        if action not in _ACTIONS:
            raise ValueError(f'`action` must be "raise", "stop" or "skip". Received: action={action!r}')
        if isinstance(keep, bool) or not isinstance(keep, numbers.Integral) or keep < 0:
            raise ValueError(f"`keep` must be a whole number of steps, 0 or more. Received: keep={keep!r}")
        self.action, self.keep, self.verbose = action, int(keep), verbose
        self.backward_observer = Sentinel(action != "skip", self.keep, self._judge)
        self._begin()

    def _begin(self):
        self.faults: list = []
        self.skipped = 0
        self._epoch, self._done, self._seen = 0, 0, False
        self._verdicts: dict = {}
        self._kept: Any = collections.deque()

    @property
    def fault(self) -> Any:
        """The last `Fault`, or None."""
        return self.faults[-1] if self.faults else None

    def on_train_begin(self, logs: Any = None) -> None:
        model = self.model
        require_backprop_trainer(model, "its backward pass cannot be looked into")
        if plan_of(model) is not None:
            raise ValueError(
                "LocateNaN names single examples and leaves steps out because of them, which a private plan "
                f"(`compile(gradients=…)` of the model '{model.name}') promises not to do. Train without one of the two."
            )
        self._begin()

    def on_epoch_begin(self, epoch: Any, logs: Any = None) -> None:
        self._epoch, self._done = epoch, 0
        if not self._compiled:
            self.backward_observer.reset()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        sentinel = self.backward_observer
        if self._compiled:
            return  # there it is asked after every compiled call
        number = sentinel.objection()
        steps = sentinel.taken()
        if not steps and not self._done:
            raise ValueError(
                f"LocateNaN has seen no step of the model '{self.model.name}': its `train_step` does not call that of "
                "`BackpropTrainer`. Override `backward_pass`, `make_gradients` or `update_weights` instead, "
                "in a class derived from `BackpropModel`."
            )
        if number is None:
            return
        sentinel.read_frames()
        batch_of_fault = sentinel.read_batch()
        withheld = sentinel.withheld()
        if batch_of_fault is not None:
            data = _keras.unpack_x_y_sample_weight(batch_of_fault[:3])
            verdict = self._judge(self.model, data, None, self._epoch, self._done + number, number, bool(withheld))
        else:
            verdict = self._unlocated(self._epoch, self._done + number)
        if verdict == "skip":
            self.skipped += max(withheld - 1, 0)  # those of the same execution after the first
        self._done += steps
        sentinel.reset()
        if verdict == "stop":
            self.model.stop_training = True

    @property
    def _compiled(self):
        path = getattr(self.model, "fit_path", None)
        return path is None or path.compiled

    def _judge(self, model, batch, indices, epoch, step, position, broken=False):
        """What is to become of a step that looks non-finite, and that has not been taken."""
        key = epoch, step
        if key in self._verdicts and not broken:
            return self._verdicts[key]  # training goes this way once more
        x, y, sample_weight = _keras.unpack_x_y_sample_weight(batch[:3])
        fault = locate(model, x, y, sample_weight, self.backward_observer.recent(position), broken)
        if fault is None and not broken:
            self._verdicts[key] = "pass"
            return "pass"
        if fault is None:
            fault = _unknown(batch)
        fault.indices = self._indices(fault, indices)
        return self._tell(fault, epoch, step)

    def _unlocated(self, epoch, step):
        return self._tell(_unknown(None), epoch, step)

    def _tell(self, fault, epoch, step):
        fault.epoch, fault.step = epoch, step
        withheld = "The update was not made: the model is as it was before this step"
        ending = {"raise": ".", "stop": "; training ends.", "skip": "; training goes on with the next batch."}
        fault.action = withheld + ending[self.action]
        self.faults.append(fault)
        self._kept.append(fault)
        if len(self._kept) > max(self.keep, 1):
            self._kept.popleft().batch = None
        self._verdicts[epoch, step] = self.action
        if self.action == "raise":
            raise NonFiniteError(fault)
        if self.action == "skip":
            self.skipped += 1
        if self.verbose:
            print(f"LocateNaN: {fault}")
        return self.action

    def _indices(self, fault, indices):
        """Where the examples of a fault lie in the data."""
        if not fault.examples:
            return None
        if indices is not None:
            return [int(indices[row]) for row in fault.examples]
        return _found(self.backward_observer.data, fault.batch, fault.examples)

    def get_config(self) -> dict[str, Any]:
        return {"action": self.action, "keep": self.keep, "verbose": self.verbose}

    @classmethod
    def from_config(cls, config: Any) -> Any:
        return cls(**config)


def _unknown(batch):
    cause = "it is finite where the step runs operation by operation, and not as it is compiled"
    remedy = "train a few steps with `run_eagerly=True`, or with `jit_compile=False`, and look for values near the dtype's limit"
    fault = Fault("model", FORWARD, "", cause, remedy)
    if batch is not None:
        fault.batch = keras.tree.map_structure(
            lambda t: None if t is None else keras.ops.convert_to_numpy(t), _keras.unpack_x_y_sample_weight(batch[:3])
        )
    return fault


def _found(data, batch, rows):
    """The numbers of rows of a batch in arrays that `fit` was given; None where they are no arrays, or do not have them."""
    given = [a for part in data[:2] for a in keras.tree.flatten(part) if a is not None]
    parts = [a for part in batch[:2] for a in keras.tree.flatten(part) if a is not None]
    arrays = all(isinstance(a, (np.ndarray, tf.Tensor)) for a in given)
    if not arrays or len(given) != len(parts) or not given:
        return None
    found = []
    for row in rows:
        same = np.ones(len(given[0]), bool)
        for whole, part in zip(given, parts, strict=True):
            whole = keras.ops.convert_to_numpy(whole)
            if whole.ndim == part.ndim - 1:
                whole = whole[:, None]
            if whole.shape[1:] != part.shape[1:]:
                return None
            equal = whole.astype(part.dtype) == part[row]
            if np.issubdtype(part.dtype, np.floating):
                equal |= np.isnan(whole.astype(part.dtype)) & np.isnan(part[row])
            same &= equal.reshape(len(whole), -1).all(1)
        if not same.any():
            return None
        found.append(int(np.flatnonzero(same)[0]))
    return found
