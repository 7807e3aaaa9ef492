"""Run forward and keep one `Call` for every link of the chain.

    with Record(model.trainable_weights) as record:
        y = record.run(model, x, training=True)
    record.calls        # the links, in the order they ran

The call runs as it always does, once: effects, masks, random numbers, names and state are Keras's and the user's. Only
`layer.call` is stood in for, while the record is open (`stand_ins.py`): where a layer has a rule, its call is one closed link,
with what a forward rule saves for it. All other operations that run are links by themselves (`operations.py`).
"""

import contextlib
import functools
from typing import Any

import keras
import tensorflow as tf

from keras_backprop import _keras, _tensorflow
from keras_backprop.chain import operations
from keras_backprop.chain.arguments import bind, copied, is_float, is_tensor, knows, leaves, name_of, suits, tensors_in
from keras_backprop.chain.settings import settings_of
from keras_backprop.chain.stand_ins import StandIns
from keras_backprop.registry import rule_for
from keras_backprop.rule import Call, Copy
from keras_backprop.scopes import rule_of


class Record:
    """The forward pass as a list of calls. A context manager: what runs while it is open is recorded.

    Args:
        weights: the `keras.Variable`s whose gradients will be wanted; None for all of what `run` is given.
        inputs: tensors whose gradients will be wanted besides; None for all of what `run` is given.
        isolate: function tensor -> tensor, or None. Makes copies of the inputs of every closed link, so that a tape can
            tell what one link contributes (used by `check_gradients`).

    Attributes:
        calls: the links.
        layers_run: list of `LayerRun`, in the order in which they ended.
        densified: list of tensors, what rules see of sparse ones.
    """

    def __init__(self, weights=None, inputs=None, isolate=None):
        self._given = weights is not None, inputs is not None
        self.weights, self.inputs, self.isolate = list(weights or ()), list(inputs or ()), isolate
        self.timeline: Any = None
        self._open = False
        self._values: dict = {}
        self.layers_run: list = []
        self.densified: list = []
        self._closed: list = []
        self._owners: list = []
        self._running: list = []  # the paths of what is running and is no link
        self._inside = 0  # how many closed links we are in
        self._repeats = None
        self._stack = contextlib.ExitStack()
        self._stand_ins = StandIns(self, self._stack)

    def __enter__(self):
        self.timeline = self.timeline or operations.Timeline()
        self._stack.enter_context(self.timeline)
        self._stack.enter_context(_tensorflow.differentiated_under_tapes())
        self._stack.enter_context(_keras.functions_followed(self._follow, self.follows))
        self._open = True
        self._find(self.weights)
        return self

    def __exit__(self, *exception):
        self._find(self.weights)  # a weight may have been assigned another value
        self._open = False
        self._stand_ins = StandIns(self, self._stack)
        return self._stack.__exit__(*exception)

    @property
    def calls(self):
        """The links, a list of `Call` in the order they ran."""
        return operations.links(self.timeline, self._closed, self._owners, self._values, self.inputs)

    def stand_in(self, layer):
        """From now on, calls of a layer, and of everything in it, are recorded, from wherever they come."""
        self._stand_ins.put(layer)

    def run(self, op, /, *args, **kwargs):
        """Run a layer, model, operation or function on tensors and record it. Returns what it returns."""
        if not self._open:
            with self:
                self._want_all(op, (args, kwargs))
                return self.run(op, *args, **kwargs)
        if isinstance(op, keras.layers.Layer):
            self.stand_in(op)
            return op(*args, **kwargs)
        path = getattr(op, "name", None) or getattr(op, "__name__", type(op).__name__)
        call = op.call if isinstance(op, keras.Operation) else op
        return self.run_as(op, call, op, path, *args, **kwargs)

    def run_body(self, layer, /, *args, **kwargs):
        """Run `layer.call`, for a layer that Keras calls without `Layer.__call__`."""
        self.stand_in(layer)
        return layer.call(*args, **kwargs)

    def run_as(self, op, call, key, path, /, *args, **kwargs):
        """Run `call(*args, **kwargs)` and record it as a call of `op`, by the rule that is registered for `key`."""
        if not self._open:
            with self:
                self._want_all(op, (args, kwargs))
                return self.run_as(op, call, key, path, *args, **kwargs)
        return self._run_call(op, call, key, path, args, kwargs)

    def run_function(self, function, path, /, *args, **kwargs):
        """Run a function, or what is called like one, and record it by the rule that is registered for it."""
        return self.run_as(function, function, function, path, *args, **kwargs)

    def stock(self, layer):
        """The layer's own `call`, for a composition that does not serve: what it does is followed."""
        return _keras.current(layer, "call")

    @contextlib.contextmanager
    def repeated(self, steps):
        """For the duration of the block, the rules see every example `steps` times, the steps first: as many rows."""
        self._repeats, before = steps, self._repeats
        try:
            yield
        finally:
            self._repeats = before

    def read(self, variable):
        """The value of a weight as the start of a chain of operations, with an identity of its own."""
        return tf.identity(variable.value)

    def _read(self, x):
        is_weight = isinstance(x, keras.Variable) and x.trainable and tf.as_dtype(_keras.dtype_of(x)).is_floating
        return self.read(x) if is_weight else x

    @property
    def in_a_link(self):
        """Whether what runs now is a closed link's own affair."""
        return self._inside > 0

    def follows(self):
        """Whether a layer or a function of `keras.ops` that is called now may be a link."""
        return not self._inside and self.timeline.here()

    def _follow(self, operation, /, *args, **kwargs):
        """A function of `keras.ops`: the operation that it would add to a graph, run on tensors."""
        path = "/".join([*self._running[-1:], _keras.name_of_operation(operation)])
        return self.run_as(operation, operation.call, operation, path, *args, **kwargs)

    def _run_call(self, op, call, key, path, args, kwargs):
        """One closed link, by its rule; or whatever operations it creates."""
        rule = rule_of(key, op, path)
        if rule is None or not self.follows():
            return self._run_open(op, call, path, args, kwargs)  # a weight is given as it is: one may ask for its path
        if any(isinstance(x, keras.Variable) for x in leaves((*args, *kwargs.values()))):
            args, kwargs = keras.tree.map_structure(self._read, (args, kwargs))
        if not (suits(rule, op, args) if key is op else knows(rule, call, kwargs)):
            return self._run_open(op, call, path, args, kwargs)
        if rule.forward is not None and any(isinstance(x, tf.RaggedTensor) for x in leaves((*args, *kwargs.values()))):
            return self._run_open(op, call, path, args, kwargs)  # ours compute with tensors
        if rule.composition is not None:
            return self._run_open(op, functools.partial(rule.composition, self, op), path, args, kwargs)
        ours = rule.forward and key is op and not rule.given and self.isolate is None  # and there is a call of Keras's
        if ours and _tensorflow.is_taped(leaves((*args, *kwargs.values()))):  # a user's tape sees what that computes
            return self._run_open(op, call, path, args, kwargs)
        return self._run_closed(op, call, rule, path, args, kwargs)

    def _run_closed(self, op, call, rule, path, args, kwargs):
        if self.isolate is not None:
            args, kwargs = keras.tree.map_structure(self._isolated, (args, kwargs))
        first = self.timeline.position()
        arguments = bind(call, args, kwargs)
        inputs = tensors_in(arguments)
        self.densified += [x for x in inputs if _tensorflow.sparse_of(x) is not None]
        if rule.reads_logits:  # those of the predictions; targets may have some as well
            prediction = list(arguments.values())[1]
            logits = _keras.logits_of(prediction)
            inputs += [] if logits is None else [logits]
        link = Call(op, inputs, (), arguments, path=path, rule=rule, repeats=self._repeats)
        activation = _keras.current(op, "activation") if rule.activation else None
        if activation is keras.activations.linear:
            activation = None

        def activate(z):
            z = self._close(link, first, z)
            with self._opened():
                return self.run_function(activation, f"{path}/{name_of(activation)}", z)

        with self._in_a_link():
            if rule.forward is not None:
                outputs, link.saved = rule.forward(op, *args, **kwargs)
                if activation is not None:
                    return activate(outputs)
            elif activation is not None:
                with _keras.replaced(op, activation=activate):
                    return call(*args, **kwargs)
            else:
                outputs = call(*args, **kwargs)
            return self._close(link, first, outputs)

    def _run_open(self, op, call, path, args, kwargs):
        first = self.timeline.position()
        self._running.append(path)
        try:
            outputs = call(*args, **kwargs)
        finally:
            self._running.pop()
            if not self._inside:
                self._owners.append((first, self.timeline.position(), path))
        if not self._inside:
            self.layers_run.append(operations.LayerRun(op, (args, kwargs), outputs, self.timeline.position()))
        return outputs

    @contextlib.contextmanager
    def _in_a_link(self):
        self._inside += 1
        try:
            with _tensorflow.functions_run_eagerly(False) if self.timeline.eager else contextlib.nullcontext():
                yield
        finally:
            self._inside -= 1

    @contextlib.contextmanager
    def _opened(self):
        self._inside, before = 0, self._inside
        try:
            yield
        finally:
            self._inside = before

    def _close(self, call, first, outputs):
        """Append a finished link. A tensor that is returned as it came in gets an identity of its own."""
        call.settings = settings_of(call.op)
        known = {id(x) for x in call.inputs}
        if any(id(y) in known for y in leaves([outputs])):
            outputs = keras.tree.map_structure(lambda y: copied(y) if id(y) in known else y, outputs)
        call.outputs = tuple(y for y in leaves([outputs]) if is_tensor(y))
        self._closed.append(operations.Closed(call, first, self.timeline.position()))
        if not call.rule.given:
            run = operations.LayerRun(
                call.op, call.inputs, call.outputs, self.timeline.position(), call.repeats, call.arguments.get("axis")
            )
            self.layers_run.append(run)
        return outputs

    def _isolated(self, x):
        if not is_float(x) or isinstance(x, keras.Variable):
            return x
        copy = copied(x, self._copy)
        if _keras.logits_of(x) is not None:
            _keras.leave_logits(copy, self._copy(_keras.logits_of(x)))
        return copy

    def _copy(self, x):
        first, op = self.timeline.position(), Copy()
        return self._close(Call(op, (x,), (), path="copy", rule=rule_for(op)), first, self.isolate(x))

    def _want_all(self, op, arguments):
        leaves = keras.tree.flatten(arguments)
        if not self._given[0]:
            weights = op.trainable_variables if isinstance(op, keras.layers.Layer) else []
            weights = [*weights, *(x for x in leaves if isinstance(x, keras.Variable))]
            self.weights += weights
            self._find(weights)
        if not self._given[1]:
            self.inputs += [x for x in leaves if is_float(x) and not isinstance(x, keras.Variable)]

    def _find(self, weights):
        """What stands for weights: the handles through which operations read them, or the values that a scope gives them."""
        scope = _keras.current_stateless_scope()
        for variable in weights:
            value = scope.get_current_value(variable) if scope is not None else None
            source = self.timeline.handle(variable) if value is None else value
            if source is not None:
                self._values[id(source)] = self._values[id(self.timeline.inside(source))] = variable
