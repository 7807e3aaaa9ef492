"""Steps that are taken back: an observer may object to a step of a compiled call, which is then undone and left out.

To withhold an update inside the compiled loop would cost more than the update itself. So nothing in the loop is conditional: an
observer notes the first step that it objects to, the model goes back to a copy from before the call, takes the steps before
that one again, and the observer is asked what to do.
"""

import keras
import tensorflow as tf

from keras_backprop.training.snapshot import Snapshot


def guard_of(model):
    """The observer of a model that may object to steps, or None: one with a method `judge`."""
    return next((one for one in model._observers if hasattr(one, "judge")), None)


def guarded(run, guard, epochs, steps, finished):
    """As `Run.call`, without the steps that a guard objects to.

    A guard has these methods: `reset()`, before a call; `objection()`, the number of the first step since then that it objects
    to, or None; `look(model, batch)`, at a step shortly before one; `judge(model, batch, indices, epoch, step, broken=False)`,
    which says "pass", "skip" or "stop", or raises; and an attribute `keep`, how many steps before it wants to look at. A step
    after which a weight is not finite is objected to as well (`broken`).
    """
    first, last = steps
    while True:
        guard.reset()
        before = Snapshot(run.model)
        logs = run.call(epochs, (first, last), finished)
        number = guard.objection()
        if number is None and _sound(run):
            return logs
        before.restore()
        if number is None:
            number = len(logs) * (last - first) - 1
        epoch, step = epochs[0] + number // (last - first), first + number % (last - first)
        if epoch > epochs[0]:  # the epochs before it are told first; it comes again in the next call
            logs = run.call((epochs[0], epoch), (first, last), finished)
            if _sound(run):
                return logs
            before.restore()
            epochs = epochs[0], epoch
            continue
        step, verdict = _taken_back(run, guard, before, epoch, first, step)
        if verdict == "stop":
            run.model.stop_training = True
        if verdict == "stop" or step + 1 == last:
            run.validated_inside = False
            return [_logs(run)]
        epochs, first = (epoch, epoch + 1), step + 1


def _taken_back(run, guard, before, epoch, first, step):
    """Take the steps of an epoch from `first` on and before `step`, and ask the guard about this one.

    Returns:
        The number of the step, an earlier one if that has broken a weight already; and what the guard says.
    """
    model = run.model
    near = max(first, step - guard.keep)
    _take(run, epoch, first, near)
    for number in range(near, step):
        guard.look(model, _batch(run, epoch, number)[0])
        _take(run, epoch, number, number + 1)
    if not _sound(run):
        before.restore()
        step = first
        while True:
            here = Snapshot(model)
            _take(run, epoch, step, step + 1)
            if not _sound(run):
                here.restore()
                break
            step += 1
    verdict = guard.judge(model, *_batch(run, epoch, step), epoch, step)
    if verdict == "pass":
        here = Snapshot(model)
        _take(run, epoch, step, step + 1)
        if not _sound(run):
            here.restore()
            verdict = guard.judge(model, *_batch(run, epoch, step), epoch, step, broken=True)
    return step, verdict


def _sound(run):
    """Whether all weights are finite."""
    weights = [v for v in run.model.trainable_variables if tf.as_dtype(v.dtype).is_floating]
    if run.all_finite is None:
        run.all_finite = tf.function(
            lambda: tf.reduce_all([tf.reduce_all(tf.math.is_finite(v.value)) for v in weights]), autograph=False
        ).get_concrete_function()
    return bool(run.all_finite())


def _take(run, epoch, first, last):
    if first == last:
        if first == 0:
            run.model.reset_metrics()
        return
    run.loop(run.train, run.validation, run.seed, (epoch, epoch + 1), (first, last), [False], {})


def _batch(run, epoch, step):
    """A batch of tensors as the loop takes it, and the numbers of its examples in the data, an array."""
    batches, tensors = run.loop.train_batches, run.train.tensors

    @tf.function(autograph=False, jit_compile=run.jit_compile)
    def order(seed):  # XLA draws other numbers
        return batches.order(tensors, seed)

    numbers = None if not batches.shuffle else order(tf.constant([run.seed[0], run.seed[1] + epoch], tf.int32))
    indices = (tf.range(run.train.n) if numbers is None else numbers)[
        step * run.train.batch_size : (step + 1) * run.train.batch_size
    ]
    batch = keras.tree.map_structure(lambda x: None if x is None else tf.gather(x, indices), tensors)
    return batch, keras.ops.convert_to_numpy(indices)


def _logs(run):
    return {name: float(value) for name, value in run.model.get_metrics_result().items()}
