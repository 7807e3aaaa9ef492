"""What the tests of training on several devices and machines train, in whatever process: `python problem.py folder …`."""

import argparse
import json
import os
import pathlib
import signal

import keras
import numpy as np
import tensorflow as tf

from keras_backprop import BackpropSequential
from tests.after_batches import AfterBatches

random = np.random.default_rng(0)
X = random.normal(size=(37, 5)).astype("float32")  # 37 = 4·8 + 5: the last batch is uneven
Y = random.integers(0, 3, 37)
TOKENS, TAGS = random.integers(0, 7, (37, 5)), random.integers(0, 3, (37, 5))  # 0 is masked


class OwnLoss(keras.losses.Loss):
    """With a `call` of its own, not around a function."""

    def call(self, y_true, y_pred):
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


def model(options=(), cls=BackpropSequential, **compile_options):
    """A model with what `options` names."""
    keras.utils.set_random_seed(7)
    penalty = keras.regularizers.L2(0.01) if "activity" in options else None
    stack = [
        keras.Input((5,)),
        keras.layers.Dense(8, "tanh", kernel_regularizer="l2", activity_regularizer=penalty),
        keras.layers.Dense(3, "softmax"),
    ]
    if "norm" in options or "local norm" in options:
        stack.insert(2, keras.layers.BatchNormalization(synchronized="norm" in options))
    if "dropout" in options:
        stack.insert(2, keras.layers.Dropout(0.5))
    if "masked" in options:
        recurrent = [keras.layers.Embedding(7, 4, mask_zero=True), keras.layers.GRU(4, return_sequences=True)]
        stack = [keras.Input((5,)), *recurrent, keras.layers.Dense(3, "softmax")]
    built = cls(stack)
    reduction = next((name for name in ("sum", "mean_with_sample_weight") if name in options), "sum_over_batch_size")
    kind = OwnLoss if "own loss" in options else keras.losses.SparseCategoricalCrossentropy
    loss = kind(reduction=reduction)
    built.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"], **compile_options)
    return built


def train(strategy, options=(), rows=37, epochs=3, callbacks=(), cls=BackpropSequential, **compile_options):
    """Train, evaluate and predict under a strategy. Returns a dict of lists."""
    with strategy.scope():
        one = model(options, cls, **compile_options)
    x, y = (TOKENS, TAGS) if "masked" in options else (X, Y)
    history = one.fit(
        x[:rows],
        y[:rows],
        batch_size=8,
        sample_weight=np.arange(rows) if "mean_with_sample_weight" in options else None,
        epochs=epochs,
        verbose=0,
        shuffle=False,
        validation_data=(x[:11], y[:11]),
        callbacks=list(callbacks),
    )
    return {
        "history": history.history,
        "evaluated": one.evaluate(x[:13], y[:13], batch_size=8, verbose=0),
        "predicted": one.predict(x[:13], batch_size=8, verbose=0).tolist(),
        "weights": [keras.ops.convert_to_numpy(w).tolist() for w in one.weights],
        "optimizer": [keras.ops.convert_to_numpy(w).tolist() for w in one.optimizer.variables],
    }


def assert_equal(one, other, tolerance=1e-6):
    """Both trainings gave the same of everything."""
    assert one.keys() == other.keys() and one["history"].keys() == other["history"].keys()
    for what in one:
        for a, b in zip(keras.tree.flatten(one[what]), keras.tree.flatten(other[what]), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance, err_msg=what)


def die(sign):
    """Kill this process, unless that has been done: then a file is there."""
    if not sign.exists():
        sign.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def main():
    """One worker of a cluster."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--options", nargs="*", default=[])
    parser.add_argument("--kill", type=int, help="kill a worker after so many batches, once")
    parser.add_argument("--killed", type=int, default=1, help="which worker; 0 is the chief")
    parser.add_argument("--save-freq", type=lambda text: text if text == "epoch" else int(text), default="epoch")
    args = parser.parse_args()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    task = strategy.cluster_resolver.task_id
    callbacks = [
        keras.callbacks.BackupAndRestore(args.folder / "backup", save_freq=args.save_freq),
        keras.callbacks.ModelCheckpoint(args.folder / "epoch{epoch}.keras"),
    ]
    if args.kill and task == args.killed:
        callbacks.append(AfterBatches(args.kill, lambda: die(args.folder / "killed")))
    result = train(strategy, args.options, callbacks=callbacks)
    (args.folder / f"{task}.json").write_text(json.dumps(result))
    os._exit(0)  # TensorFlow's health check would keep the process for up to 30 s


if __name__ == "__main__":
    main()
