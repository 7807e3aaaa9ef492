"""Stop when the error is small enough."""

import math
import numbers
import warnings
from typing import Any

import keras

from keras_backprop import _keras


@keras.saving.register_keras_serializable(package="keras_backprop")
class StopAtError(keras.callbacks.Callback):
    """Stops `fit` at the end of the first epoch whose monitored error is at or below ε.

    Which error is compared, and when: entry e of the history. For `monitor="loss"` that is the mean over the epoch's batches of
    the loss measured *before* each batch's update; if the epoch is one batch, it is the error before the epoch's only
    update, as in a hand calculation. It contains the penalties of regularisers. For `monitor="val_loss"` it is the validation
    error after the epoch's last update.

    Args:
        epsilon: float > 0, the threshold ε.
        monitor: str, a key of the epoch's logs that is better when smaller, such as "loss", "val_loss" or the name of an
            error metric.
        patience: int ≥ 0, for how many further epochs the error must stay at or below ε before training stops.
        verbose: 0 is silent, 1 says why training stops.

    Attributes:
        stopped_epoch: int, the number of epochs that ran when it stopped `fit`; None if it did not.
        error: float, the monitored error of that epoch.

    Raises:
        ValueError: a nonsensical argument; or, at the end of the first epoch, no such metric in the logs, or one that is better
            when larger. A validation metric that no epoch reports is a warning at the end of training, for not every epoch
            need validate.
    """

    def __init__(self, epsilon: Any = 0.001, monitor: str = "loss", patience: Any = 0, verbose: int = 0) -> None:
        super().__init__()
        number = isinstance(epsilon, numbers.Real) and not isinstance(epsilon, bool)
        if not number or not math.isfinite(epsilon) or epsilon <= 0:
            raise ValueError(f"`epsilon` must be a positive, finite number. Received: epsilon={epsilon!r}")
        if not isinstance(monitor, str) or not monitor:
            raise ValueError(f"`monitor` must be the name of a metric. Received: monitor={monitor!r}")
        if monitor.endswith(("acc", "accuracy", "auc")):
            raise ValueError(self._no_error(monitor))
        if isinstance(patience, bool) or not isinstance(patience, numbers.Integral) or patience < 0:
            raise ValueError(f"`patience` must be a whole number of epochs, 0 or more. Received: patience={patience!r}")
        self.epsilon = float(epsilon)
        self.monitor = monitor
        self.patience = int(patience)
        self.verbose = verbose
        self.stopped_epoch = None
        self.error = None
        self._below = 0  # epochs in a row at or below ε
        self._warned = False
        self._seen = False

    # `fit` may run many epochs in one compiled call, and hands over after the first one at or below ε.
    reads_only_logs = True

    @property
    def epoch_end_bounds(self) -> Any:
        return {self.monitor: self.epsilon}

    def on_train_begin(self, logs: Any = None) -> None:
        self.stopped_epoch = None
        self.error = None
        self._below = 0
        self._warned = False
        self._seen = False

    def on_epoch_end(self, epoch: Any, logs: Any = None) -> None:
        error = self._error(logs or {})
        if error is None:
            return
        if math.isnan(error):
            if not self._warned:
                warnings.warn(
                    f"StopAtError: `{self.monitor}` is NaN in epoch {epoch + 1}; it can never be at or below "
                    f"epsilon={self.epsilon:g}. Lower the learning rate, or stop with `keras.callbacks.TerminateOnNaN`.",
                    stacklevel=2,
                )
                self._warned = True
            self._below = 0
            return
        self._below = self._below + 1 if error <= self.epsilon else 0
        if self._below > self.patience:
            self.stopped_epoch, self.error = epoch + 1, error
            self.model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        if not self._seen and self.params.get("epochs"):
            warnings.warn(
                f"StopAtError monitors `{self.monitor}`, which no epoch reported. Pass `validation_data` to `fit`.",
                stacklevel=2,
            )
        if self.verbose and self.stopped_epoch is not None:
            when = "after the last update of" if self.monitor.startswith("val_") else "before the updates of"
            print(
                f"Epoch {self.stopped_epoch}: stopped, {self.monitor} = {self.error:.8g} (measured {when} the epoch) is at "
                f"or below epsilon = {self.epsilon:g}."
            )

    def get_config(self) -> dict[str, Any]:
        return {
            "epsilon": self.epsilon,
            "monitor": self.monitor,
            "patience": self.patience,
            "verbose": self.verbose,
        }

    @classmethod
    def from_config(cls, config: Any) -> Any:
        return cls(**config)

    @staticmethod
    def _no_error(monitor):
        return (
            f"`monitor` must be an error, which is better when smaller. Received: monitor={monitor!r}. For a metric that is "
            "better when larger use `keras.callbacks.EarlyStopping(monitor=…, baseline=…)`."
        )

    def _error(self, logs):
        """The monitored value; None in an epoch without validation, if it is a validation metric."""
        if self.monitor in logs:
            if not self._seen and _keras.is_better_when_larger(self.model, self.monitor.removeprefix("val_")):
                raise ValueError(self._no_error(self.monitor))
            self._seen = True
            return float(logs[self.monitor])
        if self.monitor.startswith("val_") and self.monitor[4:] in logs:
            return None  # no validation in this epoch, perhaps for `validation_freq`
        raise ValueError(
            f"StopAtError monitors `{self.monitor}`, which is not among the metrics of the epoch. "
            f"Available: {sorted(logs)}. Metrics with `val_` need `validation_data` in `fit`."
        )
