"""The state of a model at one moment, to go back to."""

import tensorflow as tf


class Snapshot:
    """Copies of all variables that training changes: weights, metrics, random seeds, the optimizer's."""

    def __init__(self, model):
        self._values = [(v, tf.identity(v.value)) for v in (*model.variables, *model.optimizer.variables)]

    def restore(self):
        for variable, value in self._values:
            variable.assign(value)
