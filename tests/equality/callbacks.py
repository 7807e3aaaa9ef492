"""Callbacks, each in a scenario: 10 epochs with validation; then what was told, and what was written to files."""

import keras
import numpy as np
import tensorflow as tf
from keras import callbacks as cb

from tests.equality.compare import STOCK, observe
from tests.equality.small import compiled, fitted, small


class Log(cb.Callback):
    """Everything a callback is told, in order."""

    def __init__(self):
        super().__init__()
        self.told = []

    def set_params(self, params):
        super().set_params(params)
        self.told.append(("params", dict(params)))


def _tell(name):
    def method(self, index=None, logs=None):
        index, logs = (None, index) if isinstance(index, dict) else (index, logs)
        plain = [(k, type(v).__name__, np.asarray(v)) for k, v in (logs or {}).items()]
        self.told.append((name, index, plain))

    return method


for _name in ("train", "test"):
    for _when in ("begin", "end", "batch_begin", "batch_end"):
        setattr(Log, f"on_{_name}_{_when}", _tell(f"on_{_name}_{_when}"))
Log.on_epoch_begin, Log.on_epoch_end = _tell("on_epoch_begin"), _tell("on_epoch_end")


class StopAt(cb.Callback):
    """Sets `stop_training` in the middle of an epoch."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            self.model.stop_training = True


class SetLearningRate(cb.Callback):
    """Assigns to the optimizer and to a weight between two batches."""

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 2:
            self.model.optimizer.learning_rate = 0.9 * float(self.model.optimizer.learning_rate)
            self.model.layers[1].bias.assign(self.model.layers[1].bias + 0.01)


HOOKS = (
    "set_model", "on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end", "on_test_begin",
    "on_test_batch_end", "on_test_end", "on_epoch_end", "on_train_end",
)  # fmt: skip


def changing(hook):
    """A callback that changes in its second call of a hook, or the only one, what a step reads and what it has been traced with."""

    def change(self, *args, **logs):
        if hook == "set_model":
            cb.Callback.set_model(self, *args)
        self.calls += 1
        if self.calls != (1 if hook in ("set_model", "on_train_begin", "on_train_end") else 2):
            return
        model = self.model
        model.optimizer.learning_rate = 0.5 * float(model.optimizer.learning_rate)
        model.optimizer.clipnorm = 0.01
        model.get_layer("hidden").trainable = False
        model.get_layer("hidden").activation = keras.activations.relu
        model.get_layer("top").bias.assign_add([0.1])
        next(layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)).rate = 0.6

    return type("Changes", (cb.Callback,), {"calls": 0, hook: change})()


CALLBACKS: dict = {
    **{f"the model changed in {hook}": lambda folder, hook=hook: [changing(hook), Log()] for hook in HOOKS},
    "every hook and log": lambda folder: [Log()],
    "EarlyStopping": lambda folder: [
        cb.EarlyStopping("val_loss", patience=1, min_delta=0.3, restore_best_weights=True)
    ],
    "EarlyStopping with start_from_epoch": lambda folder: [
        cb.EarlyStopping("loss", patience=0, start_from_epoch=4, min_delta=9)
    ],
    "ReduceLROnPlateau": lambda folder: [cb.ReduceLROnPlateau("val_loss", 0.5, patience=1, min_delta=0.3)],
    "LearningRateScheduler": lambda folder: [cb.LearningRateScheduler(lambda epoch, rate: rate * 0.8)],
    "SwapEMAWeights": lambda folder: [cb.SwapEMAWeights(swap_on_epoch=True)],
    "ModelCheckpoint, best": lambda folder: [
        cb.ModelCheckpoint(folder / "best.keras", "val_loss", save_best_only=True)
    ],
    "ModelCheckpoint, weights, by batch": lambda folder: [
        cb.ModelCheckpoint(folder / "{epoch}.weights.h5", save_weights_only=True, save_freq=7)
    ],
    "CSVLogger": lambda folder: [cb.CSVLogger(folder / "log.csv")],
    "TensorBoard": lambda folder: [
        cb.TensorBoard(folder / "tb", histogram_freq=1, write_graph=False, update_freq=2, profile_batch=0)
    ],
    "TensorBoard, graph": lambda folder: [cb.TensorBoard(folder / "tb", write_graph=True, profile_batch=0)],
    "TerminateOnNaN": lambda folder: [cb.TerminateOnNaN()],
    "BackupAndRestore": lambda folder: [cb.BackupAndRestore(folder / "backup")],
    "LambdaCallback": lambda folder: [cb.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(extra=epoch))],
    "ProgbarLogger, History": lambda folder: [cb.ProgbarLogger(), cb.History()],
    "stop_training in mid-epoch": lambda folder: [StopAt(4, 2), Log()],
    "the learning rate and a weight set by a callback": lambda folder: [SetLearningRate()],
}


def with_callbacks(make):
    def scenario(k, then, folder):
        ema = {"use_ema": True, "ema_momentum": 0.9} if "SwapEMA" in make(folder)[0].__class__.__name__ else {}
        model = compiled(k, keras.optimizers.Adam(0.02, **ema))
        used = make(folder)
        history = fitted(model, callbacks=used, validation_split=0.2)
        told = [callback.told for callback in used if isinstance(callback, Log)]
        return observe(model, history, told=told, files=_files(folder))

    return scenario


def _files(folder):
    """What was written: texts, the weights in checkpoints, the scalars in event files."""
    seen = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix == ".csv":
            rows = [row.split(",") for row in path.read_text().splitlines()]
            seen[name] = [rows[0], np.array(rows[1:], dtype="float64")]
        elif name.endswith(".weights.h5"):
            model = small(STOCK)
            model.load_weights(path)
            seen[name] = model.get_weights()
        elif path.suffix == ".keras":
            seen[name] = keras.saving.load_model(path).get_weights()
        elif "tfevents" in name:
            seen[str(path.parent.relative_to(folder))] = _events(path)
        else:
            seen[name] = "a file"
    return seen


def _events(path):
    values = []
    for record in tf.data.TFRecordDataset(str(path)):
        event = tf.compat.v1.Event.FromString(record.numpy())
        for value in event.summary.value:
            if value.tag == "keras":  # the model as JSON, written for the classes Functional and Sequential themselves
                continue
            array = tf.make_ndarray(value.tensor) if value.HasField("tensor") else np.array(0)
            timed = "per_second" in value.tag or array.dtype == object
            values.append((value.tag, event.step, array.shape if timed else array))
    return sorted(values, key=lambda v: v[:2])
