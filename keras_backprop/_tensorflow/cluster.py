"""What the processes of a cluster tell each other beside collective operations, by TensorFlow's coordination service."""

import tensorflow as tf
from tensorflow.python.eager import context


def is_coordinated():
    """Whether there is such a service."""
    return context.context().coordination_service is not None


def note_for_all(key, value):
    """Write something down for every process."""
    context.context().set_config_key_value(key, value)


def noted(key, seconds):
    """What a process has written down under this key, or does so within this time; None if none does.

    Raises:
        tf.errors.OpError: there is no service any more; at once, so that it does not help to ask again.
    """
    try:
        return context.context().get_config_key_value(key, max(1, int(1000 * seconds)))
    except tf.errors.DeadlineExceededError:
        return None


def end_collectives(message):
    """Let all collective operations of the cluster, those under way and later ones, end with this message as an error."""
    context.context().report_error_to_cluster(tf.errors.ABORTED, message)
