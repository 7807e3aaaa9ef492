"""Run forward and keep one `Call` for every link of the chain.

    record = Record()
    y = record.run(model, x, training=True)
    record.calls        # the links, in the order they ran

Layers run through `Layer.__call__`, exactly once, so that autocasting, masks, activity regularisers, the name scopes and the
training flag stay Keras's. Only `layer.call` is stood in for, while it runs: to see the tensors that go in and come out, to
let a forward rule save what it needs, or to follow a graph of layers node by node.
"""

import functools
import inspect
import types

import keras
import tensorflow as tf

from keras_backprop import _keras
from keras_backprop.chain import expand
from keras_backprop.chain.step import Step
from keras_backprop.registry import Rule, rule_for
from keras_backprop.rule import BatchMean, Call, Conversion, Gradients, MissingRuleError, WeightRead

COPY = Conversion("copy")
"""What an isolating record puts before the inputs of every call."""


class Record:
    """The forward pass as a list of calls.

    Args:
        isolate: function tensor -> tensor, or None. Makes copies of the inputs of every call, so that a tape can tell
            what one call contributes (used by `check_gradients`).

    Attributes:
        calls: list of `Call`, in the order they ran.
    """

    def __init__(self, isolate=None):
        self.calls = []
        self.isolate = isolate
        self._expansions = None

    def run(self, op, *args, **kwargs):
        """Run a layer, model, operation or function on tensors and record it. Returns what it returns."""
        args, kwargs = keras.tree.map_structure(self._read, (args, kwargs))
        if isinstance(op, keras.layers.Layer):
            return self._run_layer(op, args, kwargs)
        path = getattr(op, "name", None) or getattr(op, "__name__", type(op).__name__)
        call = op.call if isinstance(op, keras.Operation) else op
        return self._run_call(op, call, op, path, args, kwargs)

    def run_as(self, op, call, key, path, *args, **kwargs):
        """Run `call(*args, **kwargs)` and record it as a call of `op`, by the rule that is registered for `key`."""
        return self._run_call(op, call, key, path, args, kwargs)

    def step(self, run, weights):
        """A `Step`: `run(record, *tensors)` for loops, expanded once in eager mode and recorded anew at every step."""
        expansions = {}

        def record():
            one = Record()
            one._expansions = expansions
            return one

        return Step(record, run, weights)

    def read(self, variable):
        """The value of a weight as the start of a chain of operations."""
        value = tf.identity(variable.value)  # an identity of its own: the same weight may be read several times
        self._add(Call(WeightRead(variable), (), (value,), path=variable.path))
        return value

    def _read(self, x):
        return self.read(x) if expand.is_weight(x) else x

    def convert(self, source, converted):
        """Note that Keras turned `source` into `converted`: another dtype or an axis of size 1 more or less."""
        if converted is not source and _is_float(source) and _is_float(converted):
            self._add(Call(Conversion(), (source,), (converted,), path="conversion"))

    def _run_layer(self, layer, args, kwargs):
        refuse_quantized(layer)
        regularizer = _keras.current(layer, "activity_regularizer")
        sources = args, kwargs
        penalties = []

        def forward(*args, **kwargs):
            self._note_conversions(sources, (args, kwargs))
            return self.run_body(layer, *args, **kwargs)

        def penalise(output):
            penalty = self.run(regularizer, output)
            penalties.append((penalty, output))
            return penalty

        def add_loss(loss):
            if penalties:
                penalty, output = penalties.pop()
                if loss is not penalty:  # Keras has divided the penalty by the batch size
                    saved = {"n": tf.shape(output)[0]}
                    self._add(Call(BatchMean(), (penalty,), (loss,), saved=saved, path=layer.path))
            original_add_loss(loss)

        original_add_loss = _keras.current(layer, "add_loss")
        # The record keeps what the rules need: to compute it again would hide it from us.
        stand_ins = {"call": forward, "rematerialized_call": lambda call, *args, **kwargs: call}
        if regularizer is not None:
            stand_ins.update(activity_regularizer=penalise, add_loss=add_loss)
        with _keras.replaced(layer, **stand_ins):
            return layer(*args, **kwargs)

    def run_body(self, layer, *args, **kwargs):
        """Run `layer.call` and record it, for a layer that Keras calls without `Layer.__call__`."""
        call = _keras.current(layer, "call")
        graph = None if rule_for(layer) else _keras.graph_of(layer)
        if graph is not None:
            return self._run_graph(graph, call, args, kwargs)
        return self._run_call(layer, call, layer, layer.path or layer.name, args, kwargs)

    def _run_graph(self, graph, call, args, kwargs):
        """Follow a Functional graph node by node (a Sequential holds one)."""
        run_through_graph, standardize = (
            _keras.current(graph, n) for n in ("_run_through_graph", "_standardize_inputs")
        )

        def record_nodes(inputs, operation_fn=lambda op: op, call_fn=None):
            return run_through_graph(inputs, operation_fn=lambda op: operation_fn(_Recorded(op, self.run)))

        def standardize_inputs(inputs):
            flat = standardize(inputs)
            for source, converted in zip(keras.tree.flatten(inputs), flat, strict=False):
                self.convert(source, converted)
            return flat

        with _keras.replaced(graph, _run_through_graph=record_nodes, _standardize_inputs=standardize_inputs):
            return call(*args, **kwargs)

    def _run_call(self, op, call, key, path, args, kwargs):
        """One link, or several: with its rule, or expanded into operations that have rules."""
        rule = rule_for(key)
        if rule is None:
            return self._run_expanded(op, call, path, args, kwargs)
        if rule.composition is not None:
            return rule.composition(self, op, *args, **kwargs)
        if self.isolate is not None:
            args, kwargs = keras.tree.map_structure(self._isolated, (args, kwargs))
        arguments = _bind(call, args, kwargs)
        inputs = _tensors(arguments)
        if rule.reads_logits:
            inputs += [x._keras_logits for x in inputs if hasattr(x, "_keras_logits")]
        link = Call(op, inputs, (), arguments, path=path, rule=rule)
        activation = _keras.current(op, "activation") if rule.activation else None
        if activation is keras.activations.linear:
            activation = None

        def activate(z):
            self._add(link, z)
            return self.run(activation, link.output)

        if rule.forward is not None:
            outputs, link.saved = rule.forward(op, *args, **kwargs)
            if activation is not None:
                return activate(outputs)
        elif activation is not None:
            with _keras.replaced(op, activation=activate):
                return call(*args, **kwargs)
        else:
            outputs = call(*args, **kwargs)
        return self._add(link, outputs)

    def _run_expanded(self, op, call, path, args, kwargs):
        try:
            graph = self._expanded(op, call, path, args, kwargs)
        except MissingRuleError as error:
            return self._run_opaque(op, call, path, error, args, kwargs)
        values = dict(zip(map(id, graph.inputs), expand.tensor_leaves((args, kwargs)), strict=True))
        values.update({id(symbol): self.read(variable) for symbol, variable in graph.weights})

        def value(x):
            return values[id(x)] if isinstance(x, keras.KerasTensor) else x

        for node in graph.steps:
            node_args, node_kwargs = expand.static_shapes(node, node.arguments.convert(value))
            outputs = self.run(node.operation, *node_args, **node_kwargs)
            tensors = [y for y in keras.tree.flatten(outputs) if _is_tensor(y)]
            values.update(zip(map(id, node.outputs), tensors, strict=True))
        if graph.updates and self._expansions is not None:
            raise MissingRuleError(f"'{path}' assigns state or draws random numbers inside a loop over time.")
        for variable, new in graph.updates:
            variable.assign(value(new))
        for layer, loss in graph.losses:
            layer.add_loss(value(loss))
        for layer in op._flatten_layers() if isinstance(op, keras.layers.Layer) else ():
            for name, kept in vars(layer).items():  # a tensor that the call keeps for later
                if isinstance(kept, keras.KerasTensor) and id(kept) in values:
                    vars(layer)[name] = values[id(kept)]
        return keras.tree.map_structure(value, graph.outputs)

    def _run_opaque(self, op, call, path, error, args, kwargs):
        """What cannot be followed may still stand where no gradient is needed: below the lowest trainable weight."""
        if isinstance(op, keras.layers.Layer) and op.trainable_variables:
            raise error
        outputs = expand.run_without_weights(call, error, args, kwargs)

        def refuse():
            raise error

        inputs = _tensors(_bind(call, args, kwargs))
        rule = Rule("unknown", lambda call, dy: Gradients(*[refuse] * len(call.inputs)), state="refused")
        return self._add(Call(op, inputs, (), path=path, rule=rule), outputs)

    def _expanded(self, op, call, path, args, kwargs):
        if self._expansions is None or not tf.executing_eagerly():
            return expand.expand(op, call, path, args, kwargs)
        leaves = keras.tree.flatten((args, kwargs))
        key = (id(op), *((x.shape, x.dtype) if tf.is_tensor(x) else id(x) for x in leaves))
        if str(key) not in self._expansions:
            self._expansions[str(key)] = expand.expand(op, call, path, args, kwargs)
        return self._expansions[str(key)]

    def _add(self, call, outputs=None):
        """Append a finished call. A tensor that is returned as it came in gets an identity of its own."""
        if outputs is not None:
            known = {id(x) for x in call.inputs}
            outputs = keras.tree.map_structure(lambda y: _copied(y) if id(y) in known else y, outputs)
            call.outputs = tuple(y for y in keras.tree.flatten(outputs) if _is_tensor(y))
        call.rule = call.rule or rule_for(call.op)
        self.calls.append(call)
        return outputs

    def _isolated(self, x):
        if not _is_float(x) or isinstance(x, keras.Variable):
            return x
        copy = _copied(x, self.isolate)
        self._add(Call(COPY, (x,), (copy,), path="copy"))
        if hasattr(x, "_keras_logits"):
            copy._keras_logits = self.isolate(x._keras_logits)
            self._add(Call(COPY, (x._keras_logits,), (copy._keras_logits,), path="copy"))
        return copy

    def _note_conversions(self, before, after):
        """Keras has cast the arguments to the layer's compute dtype: the casts are links of the chain."""
        (args, kwargs), (new_args, new_kwargs) = before, after
        pairs = zip(
            keras.tree.flatten((args, kwargs)),
            keras.tree.flatten((new_args, {name: new_kwargs[name] for name in kwargs if name in new_kwargs})),
            strict=False,
        )
        for source, converted in pairs:
            if _is_tensor(source) and _is_tensor(converted):
                self.convert(source, converted)


class _Recorded:
    """An operation of a graph whose calls are recorded; to Keras it looks like the operation."""

    def __init__(self, op, run):
        self._op, self._run = op, run

    def __getattr__(self, name):
        return getattr(self._op, name)

    def __call__(self, *args, **kwargs):
        return self._run(self._op, *args, **kwargs)


def refuse_quantized(layer):
    """Raise a `MissingRuleError` if the layer's weights are integers."""
    mode = getattr(layer, "quantization_mode", None)
    if mode is not None:
        raise MissingRuleError(
            f"Layer '{layer.path}' ({type(layer).__name__}) is quantized (quantization_mode={mode!r}): its integer weights have "
            "no gradient. Train the model in floating point and quantize it afterwards with `model.quantize(…)`, or freeze "
            "the quantized part by running it outside the model."
        )


def _bind(call, args, kwargs):
    """All arguments of a call by name, defaults included."""
    signature = _signature(call)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    arguments = {}
    for name, value in bound.arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            arguments.update(value)
        else:
            arguments[name] = value
    return arguments


def _signature(call):
    """`inspect.signature(call)`, looked up once for each method of a class."""
    function = getattr(call, "__func__", None)
    return inspect.signature(call) if function is None else _signature_of_method(function)


@functools.lru_cache(maxsize=1024)
def _signature_of_method(function):
    return inspect.signature(types.MethodType(function, object()))


def _tensors(arguments):
    """The tensors among the arguments; rules see a sparse one as the dense one that it stands for."""
    tensors = [x for x in keras.tree.flatten(list(arguments.values())) if _is_tensor(x)]
    return [_densified(x) if isinstance(x, tf.SparseTensor) else x for x in tensors]


def _densified(x):
    """The sparse one goes along, for products that can make use of it (`Contraction`)."""
    x = tf.sparse.reorder(x)
    dense = tf.sparse.to_dense(x)
    dense._sparse = x
    return dense


def _copied(x, copy=tf.identity):
    """The same values under another identity. The mask goes along."""
    copy = copy(x)
    mask = _keras.get_keras_mask(x)
    if mask is not None:
        _keras.set_keras_mask(copy, mask)
    if hasattr(x, "_keras_logits"):
        copy._keras_logits = x._keras_logits
    return copy


def _is_float(x):
    return _is_tensor(x) and x.dtype.is_floating and not isinstance(x, tf.SparseTensor)


def _is_tensor(x):
    """`tf.is_tensor(x)`, which takes its time where x is none."""
    return isinstance(x, tf.Tensor) or (not isinstance(x, _NO_TENSORS) and tf.is_tensor(x))


_NO_TENSORS = (type(None), bool, int, float, str)
