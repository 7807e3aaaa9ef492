"""How Keras's loop takes over a training that another loop has begun."""

import contextlib

from keras_backprop import _keras


@contextlib.contextmanager
def handed_over(run, epoch, begun, heard):
    """For the duration of the block, Keras's `fit` goes on where a `Run` stands, to callbacks that have heard of this epoch.

    Args:
        run: the `Run`.
        epoch: int, the epoch that has begun, of which no step has been made.
        begun: bool, whether its metrics have been reset: then what callbacks have left in them since counts.
        heard: bool, whether the callbacks have heard of its first batch as well.
    """
    model, callbacks = run.model, run.callbacks
    stop, first_epoch = model.stop_training, _keras.first_epoch(model)
    begin_epoch, begin_batch, reset_metrics = (
        callbacks.on_epoch_begin,
        callbacks.on_train_batch_begin,
        model.reset_metrics,
    )
    are_reset = False

    def on_train_begin(logs=None):
        nonlocal are_reset
        model.stop_training = stop  # Keras has set it to False
        _keras.begin_at(model, epoch)
        run.data.validation_goes_on()
        are_reset = begun

    def on_epoch_begin(number, logs=None):
        _keras.begin_at(model, first_epoch)
        if number != epoch:
            begin_epoch(number, logs)

    def on_train_batch_begin(number, logs=None):
        nonlocal heard
        if not heard:
            begin_batch(number, logs)
        heard = False

    def reset_metrics_if_not_done():
        nonlocal are_reset
        if not are_reset:
            reset_metrics()
        are_reset = False

    of_callbacks = {
        "on_train_begin": on_train_begin,
        "on_epoch_begin": on_epoch_begin,
        "on_train_batch_begin": on_train_batch_begin,
    }
    with _keras.replaced(model, reset_metrics=reset_metrics_if_not_done), _keras.replaced(callbacks, **of_callbacks):
        yield
