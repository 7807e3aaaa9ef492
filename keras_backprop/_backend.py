"""Keras on TensorFlow, or an error that says so: also where the backend that was asked for is not even installed."""

ADVICE = 'Set the environment variable KERAS_BACKEND="tensorflow" before Keras is imported.'

try:
    import keras
except (ImportError, ValueError) as error:
    if getattr(error, "name", None) == "keras":
        raise  # not installed
    raise ImportError(
        f"keras_backprop works with Keras on TensorFlow, and Keras cannot be imported: {error}. {ADVICE}"
    ) from error

if keras.config.backend() != "tensorflow":
    raise ImportError(
        "keras_backprop works with Keras on TensorFlow. "
        f"Received: keras.config.backend()={keras.config.backend()!r}. {ADVICE}"
    )
