"""What is more than one call of `fit`: programs that do the same with either pair of classes.

A scenario takes the classes to build with, the classes to go on with (for round trips) and an empty folder, and returns what
there is to see. One that needs a longer story than a table line has a function of its own here.
"""

import contextlib
import functools
import threading

import keras
import numpy as np
import tensorflow as tf
from keras import callbacks as cb
from keras import layers, ops

from tests.equality import compare
from tests.equality.callbacks import CALLBACKS, with_callbacks
from tests.equality.compare import observe
from tests.equality.models import CLASSES, FEATURES, NUMBERS, SERIES, WEIGHTS, stateful
from tests.equality.small import FIT, compiled, fitted, small

# Trainable flags.


def toggled_before_fit(k, then, folder):
    model = compiled(k)
    model.get_layer("hidden").trainable = False
    return observe(model, fitted(model))


def toggled_without_compile(k, then, folder):
    """Changes nothing until `compile`: the step is compiled already (trap 13)."""
    model = compiled(k)
    fitted(model, 3)
    model.get_layer("hidden").trainable = False
    return observe(model, fitted(model, 7))


def toggled_with_compile(k, then, folder):
    model = compiled(k)
    fitted(model, 3)
    model.get_layer("hidden").trainable = False
    model.compile("sgd", "mse")
    first = observe(model, fitted(model, 4))
    model.trainable = True
    model.compile("sgd", "mse")
    return {"frozen": first, **observe(model, fitted(model, 3))}


def toggled_eagerly(k, then, folder):
    model = compiled(k, run_eagerly=True)
    fitted(model, 1)
    model.get_layer("hidden").trainable = False
    return observe(model, fitted(model, 2))


def fine_tuned(k, then, folder):
    """A trained base under a new top; then all of it, with a small rate."""
    base = compiled(k)
    fitted(base, 3)
    body = keras.Model(base.inputs, base.get_layer("hidden").output)
    body.trainable = False
    inputs = keras.Input((6,))
    model = k.Model(inputs, layers.Dense(3, "softmax")(body(inputs, training=False)))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(FEATURES, CLASSES, epochs=4, **FIT)
    body.trainable = True
    model.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return observe(model, model.fit(FEATURES, CLASSES, epochs=4, **FIT))


def lora_after_training(k, then, folder):
    model = compiled(k)
    fitted(model, 3)
    model.get_layer("hidden").enable_lora(2)
    model.compile("adam", "mse")
    seen = observe(model, fitted(model, 4))
    model.save(folder / "lora.keras")
    return {**seen, "merged": keras.saving.load_model(folder / "lora.keras").predict(FEATURES, verbose=0)}


# Saving and loading. `k` saves, `then` loads and goes on.


def converted(model, then, source):
    """A loaded model as one of the classes of `then`, with the optimizer and its state."""
    if isinstance(model, then.Model) and then.Model is not keras.Model:
        return model
    if hasattr(then.Model, "from_keras"):
        ours = then.Model.from_keras(model)
    else:
        ours = keras.Model(model.inputs, model.outputs[0], name=model.name)
    ours.compile(model.optimizer, "mse", metrics=["mae"])
    return ours


def keras_file(k, then, folder):
    model = compiled(k)
    fitted(model, 4)
    model.save(folder / "model.keras")
    again = converted(keras.saving.load_model(folder / "model.keras"), then, model)
    return observe(again, fitted(again, 6))


def weights_file(k, then, folder):
    model = compiled(k)
    fitted(model, 4)
    model.save_weights(folder / "model.weights.h5")
    again = compiled(then)
    again.load_weights(folder / "model.weights.h5")
    return observe(again, fitted(again, 6))


def weights_moved(k, then, folder):
    model, again = compiled(k), compiled(then)
    fitted(model, 4)
    again.set_weights(model.get_weights())
    again.optimizer.build(again.trainable_variables)
    again.optimizer.load_own_variables({str(i): v.numpy() for i, v in enumerate(model.optimizer.variables)})
    return observe(again, fitted(again, 6))


def config(k, then, folder):
    model = compiled(k)
    again = type(model).from_config(model.get_config())
    again.compile_from_config(model.get_compile_config())
    again.set_weights(model.get_weights())
    return observe(again, fitted(again, 5))


def json_text(k, then, folder):
    model = compiled(k)
    again = keras.models.model_from_json(model.to_json())
    again.set_weights(model.get_weights())
    again.compile("adam", "mse")
    return observe(again, fitted(again, 5), same_class=type(again) is type(model))


def cloned(k, then, folder):
    model = compiled(k)
    again = keras.models.clone_model(model)
    again.set_weights(model.get_weights())
    again.compile("adam", "mse")
    return observe(again, fitted(again, 5), same_class=type(again) is type(model))


def pickled(k, then, folder):
    import copy
    import pickle

    model = compiled(k)
    fitted(model, 2)
    again = pickle.loads(pickle.dumps(model))
    copied = copy.deepcopy(model)
    same = [type(again) is type(model), type(copied) is type(model)]
    return observe(again, fitted(again, 3), same=same, copied=fitted(copied, 3).history)


def exported(k, then, folder):
    model = compiled(k)
    fitted(model, 3)
    model.export(folder / "exported", verbose=False)
    artifact = tf.saved_model.load(folder / "exported")
    return observe(model, fitted(model, 3), served=artifact.serve(FEATURES))


# Other ways to train, and to look.


def killed(k, then, folder):
    """An exception in mid-epoch, a new model, and `BackupAndRestore`: as if nothing had happened.

    Stock Keras, which would begin the epoch again and with other random numbers, is not interrupted.
    """

    def kill(batch, logs):
        if int(model.optimizer.iterations) == 22:
            raise KeyboardInterrupt

    if k is not compare.STOCK:
        model = compiled(k)
        callbacks = [cb.BackupAndRestore(folder / "backup"), cb.LambdaCallback(on_train_batch_end=kill)]
        with contextlib.suppress(KeyboardInterrupt):
            fitted(model, callbacks=callbacks)
    model = compiled(k)
    fitted(model, callbacks=[cb.BackupAndRestore(folder / "backup")])
    return observe(model)


def batch_by_batch(k, then, folder):
    model = compiled(k, weighted_metrics=["mse"])
    results = []
    for start in range(0, 80, 10):
        x, y, w = FEATURES[start : start + 10], NUMBERS[start : start + 10], WEIGHTS[start : start + 10]
        results.append(model.train_on_batch(x, y, w))
        results.append(model.train_on_batch(x, y, return_dict=True))
        results.append(model.test_on_batch(x, y, w, return_dict=True))
        results.append(model.predict_on_batch(x))
    return observe(model, results=results)


def class_weight_on_batch(k, then, folder):
    model = k.Sequential([layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    weights = {0: 1.0, 1: 3.0, 2: 0.1}
    return observe(model, results=[model.train_on_batch(FEATURES, CLASSES, class_weight=weights) for _ in range(5)])


def reset_stateful(k, then, folder):
    model = stateful(k)
    model.compile("sgd", "mse")
    histories = []
    for _ in range(4):
        histories.append(model.fit(SERIES, NUMBERS, batch_size=16, shuffle=False, verbose=0).history)
        for layer in model.layers[1:3]:
            layer.reset_state()
    return observe(model, histories=histories)


def fit_again(k, then, folder):
    """`fit` after `fit`, with other batch sizes and other weights of the examples: the step is traced anew."""
    model = compiled(k)
    histories = [
        fitted(model, 2).history,
        fitted(model, 2, batch_size=10).history,
        fitted(model, 2, batch_size=7, sample_weight=WEIGHTS).history,
        fitted(model, 2, validation_split=0.5).history,
    ]
    return observe(model, histories=histories)


def other_sizes(k, then, folder):
    """Other numbers of examples, with and without validation; what is changed between waits for `compile`."""
    model, seen = compiled(k), []
    for rows, validation in ((64, None), (40, FEATURES[64:]), (80, None), (33, FEATURES[40:]), (16, FEATURES[64:])):
        data = None if validation is None else (validation, NUMBERS[-len(validation) :])
        history = model.fit(FEATURES[:rows], NUMBERS[:rows], epochs=2, validation_data=data, **FIT)
        seen.append(observe(model, history))
        model.get_layer("hidden").trainable = not model.get_layer("hidden").trainable
    return {"fits": seen, **observe(model)}


def searched(k, then, folder):
    """A search over settings: networks that are alike, and others, one after another."""
    seen = []
    for rate, hidden in ((0.01, "tanh"), (0.1, "tanh"), (0.01, "relu"), (0.01, "tanh"), (0.1, "relu")):
        model = small(k, hidden)
        model.compile(keras.optimizers.Adam(rate), "mse", metrics=["mae"])
        history = fitted(model, 2, validation_split=0.2)
        seen.append(observe(model, history, evaluated=model.evaluate(FEATURES, NUMBERS, verbose=0)))
    return {"models": seen}


def tracked(k, then, folder):
    """A tracker that wraps `keras.Model.fit`, adds a callback and reads the history; inside of it another one."""
    told: list = []

    def around(fit):
        def wrapper(self, *args, **kwargs):
            given = kwargs.pop("callbacks", None) or []
            history = fit(self, *args, callbacks=[*given, cb.LambdaCallback(on_epoch_end=note)], **kwargs)
            told.append(("history", sorted(history.history)))
            return history

        return wrapper

    def note(epoch, logs):
        told.append((epoch, dict(logs)))

    original = keras.Model.fit
    keras.Model.fit = around(functools.wraps(original)(around(original)))
    try:
        model = compiled(k)
        history = fitted(model, 3, validation_split=0.2)
    finally:
        keras.Model.fit = original
    return observe(model, history, told=told)


def in_threads(k, then, folder):
    """Two models that are alike, trained at the same time."""
    models = [compiled(k) for _ in range(2)]
    threads = [threading.Thread(target=fitted, args=(model, 3)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"models": [observe(model, model.history) for model in models]}


def data_changed_between(k, then, folder):
    """The same array, filled with other numbers before the second `fit`."""
    model, x = compiled(k), FEATURES.copy()
    model.fit(x, NUMBERS, epochs=2, **FIT)
    x *= 0.5
    return observe(model, model.fit(x, NUMBERS, epochs=2, **FIT))


def sparse_inputs(k, then, folder):
    """Gradients of the touched rows alone: an optimizer with a memory leaves the others as they are."""
    sparse = [
        tf.sparse.from_dense(np.where(FEATURES[i : i + 8] > 0.5, FEATURES[i : i + 8], 0)) for i in range(0, 80, 8)
    ]
    model = k.Sequential([layers.Dense(4, "tanh"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.05), "mse")
    logs = [model.train_on_batch(x, NUMBERS[8 * i : 8 * i + 8]) for i, x in enumerate(sparse)]
    return observe(model, logs=logs)


def outside_and_inside(k, then, folder):
    """A discriminator trained by itself and, frozen, inside another model: two optimizers on shared layers."""
    inner = compiled(k)
    inputs = keras.Input((6,))
    generator = layers.Dense(6, "tanh")
    outer = k.Model(inputs, inner(generator(inputs)))
    inner.trainable = False
    outer.compile("sgd", "mae")
    results = []
    for _ in range(6):
        results.append(inner.train_on_batch(FEATURES, NUMBERS))
        results.append(outer.train_on_batch(FEATURES, NUMBERS))
    return observe(outer, results=results, inner=observe(inner))


def distillation(k, then, folder):
    """A model that holds two others, trains one, and has losses and metrics of its own."""

    class Distiller(k.Model):
        def __init__(self, teacher, student):
            super().__init__()
            self.teacher, self.student = teacher, student
            self.agreement = keras.metrics.MeanAbsoluteError(name="agreement")
            teacher.trainable = False

        def call(self, x, training=False):
            return self.student(x, training=training)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            goal = self.teacher(x, training=False)
            self.agreement.update_state(goal, y_pred)
            loss = keras.losses.MeanSquaredError()(y, y_pred)
            return loss + 0.5 * ops.mean(ops.square(goal - y_pred))

    teacher = compiled(k)
    fitted(teacher, 2)
    model = Distiller(teacher, small(k, "relu"))
    model.compile("adam")
    return observe(model, fitted(model, 4))


TRAINABLE = {
    "trainable set between compile and fit": toggled_before_fit,
    "trainable set after fit, not compiled again": toggled_without_compile,
    "trainable set after fit, compiled again": toggled_with_compile,
    "trainable set after fit, run_eagerly": toggled_eagerly,
    "fine-tuning a base": fine_tuned,
    "LoRA after training, saved": lora_after_training,
}
SAVING = {
    ".keras": keras_file,
    ".weights.h5": weights_file,
    "set_weights and the optimizer's variables": weights_moved,
    "from_config, compile_from_config": config,
    "to_json": json_text,
    "clone_model": cloned,
    "pickle, deepcopy": pickled,
    "model.export": exported,
}
TRAINING = {
    "BackupAndRestore after an exception in mid-epoch": killed,
    "train_on_batch, test_on_batch, predict_on_batch": batch_by_batch,
    "class_weight in train_on_batch": class_weight_on_batch,
    "stateful RNN, reset_state": reset_stateful,
    "fit after fit, other batch sizes": fit_again,
    "fit after fit, other numbers of examples": other_sizes,
    "a search over settings": searched,
    "a tracker around fit": tracked,
    "two models in two threads": in_threads,
    "data changed in place between two fits": data_changed_between,
    "sparse inputs": sparse_inputs,
    "two trainers that share layers": outside_and_inside,
    "a trainer inside a trainer": distillation,
}
SCENARIOS = {
    "callbacks": {name: with_callbacks(make) for name, make in CALLBACKS.items()},
    "trainable": TRAINABLE,
    "saving": SAVING,
    "training": TRAINING,
}
