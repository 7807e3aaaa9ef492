"""What a worker of a cluster trains privately, and one process as well: `python workers.py folder [--kill BATCHES]`."""

import argparse
import json
import os
import pathlib
import signal

import keras
import tensorflow as tf
from keras import layers

from keras_backprop import BackpropSequential, privacy
from tests.after_batches import AfterBatches
from tests.privacy.problem import X, Y, a_model, a_plan

CASES = {"flat": {}, "adaptive": {"clipping": "adaptive"}, "shuffled": {"sampling": "shuffled"}}


def train(strategy, case, seed=3, callbacks=(), key=None):
    """Train under a strategy with a plan of one of `CASES`. Returns a dict of lists."""
    plan = a_plan(**CASES[case], seed=seed)
    if key is not None:
        plan._randomness.key.assign(key)
    with strategy.scope():
        model = a_model(plan, keras.optimizers.SGD(0.1, momentum=0.9))
    history = model.fit(X, Y, epochs=3, verbose=0, callbacks=list(callbacks)).history
    return {
        "weights": [keras.ops.convert_to_numpy(v).tolist() for v in model.trainable_weights],
        "loss": history["loss"][-1],
        "plan": [plan.steps, plan.epsilon(), plan.clipping_norm],
        "key": keras.ops.convert_to_numpy(plan._randomness.key).tolist(),
    }


class Mixes(layers.Layer):
    def call(self, x):
        return x - keras.ops.mean(x, 0, keepdims=True)


def refused(strategy, plan, layer, x=X, y=Y):
    """What is said of a model with this layer, a str."""
    with strategy.scope():
        model = BackpropSequential([keras.Input((5,)), layers.Dense(3), layer, layers.Softmax()])
        model.compile("sgd", "sparse_categorical_crossentropy", gradients=plan)
        try:
            model.fit(x, y, verbose=0)
        except tf.errors.AbortedError as error:
            return error.message
        except (NotImplementedError, ValueError) as error:
            return str(error)
    return None


class Breaks(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise RuntimeError("the callback is broken")


def broken(strategy, task):
    """What a training ends with in which a callback of worker 1 breaks. The cluster cannot train after it."""
    with strategy.scope():
        model = a_model(a_plan())
    try:
        model.fit(X, Y, epochs=3, verbose=0, callbacks=[Breaks()] if task == 1 else [])
    except (RuntimeError, tf.errors.OpError) as error:
        return str(error)
    return None


def main():
    """One worker of a cluster."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--kill", type=int, help="kill worker 1 after so many batches, once")
    arguments = parser.parse_args()
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    task = strategy.cluster_resolver.task_id
    if arguments.kill:
        once = arguments.folder / f"{task}.began"
        again, _ = once.exists(), once.touch()
        callbacks = [keras.callbacks.BackupAndRestore(arguments.folder / "backup", save_freq=3)]
        if task == 1 and not again:
            callbacks.append(AfterBatches(arguments.kill, lambda: os.kill(os.getpid(), signal.SIGKILL)))
        # What is started again knows nothing of the first one's secret.
        results = {"flat": train(strategy, "flat", 99 if again else 3, callbacks)}
    else:
        results = {case: train(strategy, case, seed=None) for case in CASES}
        results["mixes"] = refused(strategy, a_plan(), Mixes())
        ahead = a_plan()
        ahead._count.assign(task)
        results["steps"] = refused(strategy, ahead, layers.Dense(2))
        order = slice(None, None, -1 if task else 1)
        results["order"] = refused(strategy, a_plan(), layers.Dense(2), X[order], Y[order])
        part = slice(20 * task, 20 * task + 20)  # as many as the plan is for
        results["part"] = refused(strategy, a_plan(examples=20), layers.Dense(2), X[part], Y[part])
        results["fewer"] = refused(strategy, a_plan(), layers.Dense(2), X[20 * task :], Y[20 * task :])
        for case, plan in (("lengths", a_plan()), ("public lengths", None)):  # which only one can say
            results[case] = refused(strategy, plan, layers.Dense(2), X, Y[: 40 - task])
        generator = refused(strategy, a_plan(seed=None, generator=privacy.SystemRandom()), layers.Dense(2))
        results["generator"] = generator and generator[-len("Leave `generator` out.") :]
        results["breaks"] = broken(strategy, task)
    (arguments.folder / f"{task}.json").write_text(json.dumps(results))
    os._exit(0)  # TensorFlow's health check would keep the process for up to 30 s


if __name__ == "__main__":
    main()
