"""What stands in for `layer.call`, and for activity regularisers, while a record is open."""

import functools

import keras
import tensorflow as tf

from keras_backprop import _keras, replicas
from keras_backprop.scopes import refuse_given, rule_of


class StandIns:
    """Stand-ins by which the calls of layers are recorded, from wherever they come.

    Args:
        record: the `Record`.
        stack: `contextlib.ExitStack`, at whose end everything is Keras's again.
    """

    def __init__(self, record, stack):
        self._record, self._stack = record, stack
        self._standing: set = set()

    def put(self, layer):
        """Stand in for a layer, and for everything in it."""
        for one in _keras.layers_in(layer):
            if id(one) in self._standing:
                continue
            self._standing.add(id(one))
            if replicas.several():
                self._stack.enter_context(_keras.own_added_losses(one))
            self._replace(one, call=self._body(one), rematerialized_call=lambda call, *args, **kwargs: call)
            regularizer = _keras.current(one, "activity_regularizer")
            if regularizer is not None:
                run = functools.partial(self._penalise, regularizer, f"{one.path}/activity_regularizer")
                self._replace(one, activity_regularizer=run)
            graph = _keras.graph_of(one)
            for node in () if graph is None else graph.operations:
                if not isinstance(node, keras.layers.Layer):
                    self._replace(node, call=self._body(node))

    def _replace(self, owner, **replacements):
        self._stack.enter_context(_keras.replaced(owner, **replacements))

    def _body(self, op):
        """What stands in for `op.call`."""
        record, call = self._record, _keras.current(op, "call")
        unbuilt = not getattr(op, "built", True)

        def body(*args, **kwargs):
            path = getattr(op, "path", None) or op.name
            if not record.follows():
                if not record.in_a_link:
                    refuse_given(rule_of(op, op, path), op, "in a loop or a function")
                return call(*args, **kwargs)
            if unbuilt:
                self.put(op)  # in for what it has built since
            return record.run_as(op, call, op, path, *args, **kwargs)

        return body

    def _penalise(self, regularizer, path, output):
        """An activity regulariser, which Keras divides by the number of examples."""
        penalty = self._record.run_function(regularizer, path, output)
        if not replicas.several():
            return penalty
        return self._record.run_function(replicas.evened, path, penalty, tf.shape(output)[0])
