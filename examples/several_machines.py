"""Train on two workers on this machine; one is killed on the way and started again: `python examples/several_machines.py`.

On a real cluster start this file on every machine, with the addresses of all of them and the machine's own place among them:

    TF_CONFIG='{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}' \
        python examples/several_machines.py /shared/digits

The folder must be one that all machines see. Start a worker that ends with an error again, with the same TF_CONFIG.
"""

import os
import pathlib
import signal
import sys
import tempfile

import keras
import tensorflow as tf
from sklearn.datasets import load_digits

import keras_backprop
from keras_backprop.training.launch import launch


def steps_taken(model):
    """How many updates the optimizer has made, whatever the strategy."""
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


class Accident(keras.callbacks.Callback):
    """For the sake of the example: worker 1 is killed once, in the middle of the third epoch."""

    def __init__(self, sign):
        super().__init__()
        self.sign = sign

    def on_train_batch_end(self, batch, logs=None):
        if steps_taken(self.model) == 40 and not self.sign.exists():
            self.sign.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def train(folder):
    """What every worker runs."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # first of all: it connects the workers
    worker = strategy.cluster_resolver.task_id
    keras.utils.set_random_seed(1)  # the same on all workers: they must agree on the order of the data
    digits = load_digits()
    with strategy.scope():
        model = keras_backprop.BackpropSequential(
            [keras.Input((64,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(10, "softmax")]
        )
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    callbacks = [keras.callbacks.BackupAndRestore(folder / "backup")]
    if worker == 1:
        callbacks.append(Accident(folder / "accident"))
    # The batch is that of all workers together: each computes 50 of the 100.
    model.fit(digits.data / 16, digits.target, 100, epochs=10, shuffle=False, verbose=0, callbacks=callbacks)
    _, accuracy = model.evaluate(digits.data / 16, digits.target, batch_size=100, verbose=0)
    model.save(folder / "digits.keras")  # called by all, written by the chief
    print(f"Worker {worker}: accuracy {accuracy:.2%} after {steps_taken(model)} steps", flush=True)
    os._exit(0)  # TensorFlow's health check would keep the process for up to 30 s


if "TF_CONFIG" in os.environ:
    train(pathlib.Path(sys.argv[1]))
else:
    with tempfile.TemporaryDirectory() as folder:
        restarts = launch([sys.executable, __file__, folder], workers=2, timeout=300)
        model = keras.saving.load_model(pathlib.Path(folder) / "digits.keras")
    print(f"Started again: {restarts} time. Saved by the chief: a model after {steps_taken(model)} steps.")
