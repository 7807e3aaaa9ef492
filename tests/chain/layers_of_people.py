"""Layers as people write them, without a rule: what their weights are kept in, how they are read, what surrounds them.

`LAYERS` are to train, each weight and input with a gradient that is not zero. `REFUSED` are to be refused, with a reason.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

X = (4, 3)


def custom(weights=None, inputs=(X,), build=None, **sublayers):
    """A decorator: `call(self, …)` -> a function that makes a layer with these weights and sublayers.

    Args:
        weights: dict, name -> shape; or name -> a list of shapes.
        inputs: what the layer is called with.
        build: function of the layer, for what a dict cannot say.
        **sublayers: name -> function that makes a layer.
    """

    def decorate(call):
        class Custom(layers.Layer):
            def __init__(self):
                super().__init__(name=call.__name__)
                for name, make in sublayers.items():
                    setattr(self, name, make())

            def build(self, *shapes, **more):
                for name, shape in (weights or {}).items():
                    setattr(self, name, self.add_weight(shape=shape, name=name, initializer=_normal))
                if build is not None:
                    build(self)

        Custom.call = call
        make = Custom
        make.inputs, make.__name__ = inputs, call.__name__
        return make

    return decorate


def _normal(shape, dtype=None):
    return np.random.default_rng(3).normal(size=shape)


def add(layer, name, *shape):
    return layer.add_weight(shape=shape, name=name, initializer=_normal)


W = {"w": (3, 2), "b": (2,)}
V = {"w": (3,)}


# How a weight is read
@custom(W)
def weight_times_a_number(self, x):
    return ops.matmul(x, self.w * 2) + ops.exp(self.b)


@custom(W)
def value_of_a_weight(self, x):
    return ops.matmul(x, self.w.value) + ops.square(self.b.value)


@custom(W)
def weight_converted_to_a_tensor(self, x):
    return ops.matmul(x, ops.convert_to_tensor(self.w)) + ops.cast(self.b, x.dtype)


@custom({"a": (3,), "c": (3,)})
def stack_of_weights(self, x):
    return ops.matmul(x, ops.stack([self.a, self.c], axis=1))


@custom({"a": (3,), "c": (3,)})
def sum_of_weights(self, x):
    return x * (self.a + self.c)


@custom({"v": (3, 2), "g": (2,)})
def weight_normalisation(self, x):
    return ops.matmul(x, self.v * self.g / ops.norm(self.v, axis=0))


@custom({"w": (5, 3)})
def slices_of_a_weight(self, x):
    return x + self.w[: ops.shape(x)[0]] + self.w[0] + self.w[-1, ::2][0] + self.w[None, 2, :]


@custom({"w": (4, 3)})
def weight_returned(self, x):
    return x * 2.0, self.w


@custom({"w": (4, 3)})
def value_returned(self, x):
    return x * 2.0, self.w.value


@custom(V)
def operators_of_python(self, x):
    return 2.0 ** (0.1 * x) + (1 - x) / 3.0 + (x + 1.5) ** 2 * self.w - abs(x) + 1 / (3 + self.w**2) + (-self.w) * x


@custom({"w_0": (3,), "w_1": (3,)})
def attributes_by_name(self, x):
    return sum(x * ops.exp(getattr(self, f"w_{i}")) for i in range(2))


@custom({"_w": (3,)})
def property_of_a_weight(self, x):
    softplus = property(lambda self: ops.softplus(self._w)).__get__(self)
    return x * softplus


# Where weights are kept
def _list(self):
    self.kept = [add(self, f"w{i}", 3, 3) for i in range(3)]


@custom(build=_list)
def list_of_weights(self, x):
    for w in self.kept:
        x = ops.tanh(ops.matmul(x, w))
    return x


def _dict(self):
    self.kept = {"a": add(self, "a", 3, 2), "n": {"b": (add(self, "b", 2),)}}


@custom(build=_dict)
def nested_dict_of_weights(self, x):
    return ops.matmul(x, self.kept["a"]) + ops.exp(self.kept["n"]["b"][0])


def _closure(self):
    w = add(self, "w", 3)
    self.function = lambda x: x * w


@custom(build=_closure)
def weight_in_a_closure(self, x):
    return self.function(x)


def _object(self):
    class Holder:
        w = add(self, "w", 3)

    self.holder = Holder()


@custom(build=_object)
def weight_in_an_object(self, x):
    return x * self.holder.w


# Sublayers
@custom(d=lambda: layers.Dense(3, activation="tanh"))
def shared_sublayer(self, x):
    return self.d(self.d(x)) + self.d(x * 2)


@custom(d=lambda: layers.Dense(3))
def sublayer_and_its_kernel(self, x):
    return ops.matmul(self.d(x), ops.transpose(self.d.kernel)) * ops.exp(self.d.bias.value)


@custom(ds=lambda: [layers.Dense(3, activation=a) for a in ("relu", "gelu", "tanh")] + [layers.LayerNormalization()])
def sublayers_in_a_loop(self, x):
    for layer in self.ds:
        x = x + layer(x)
    return x


@custom(ds=lambda: {"a": layers.Dense(3), "b": layers.Dense(2)})
def sublayers_in_a_dict(self, x):
    return {"u": self.ds["a"](x), "v": (self.ds["b"](ops.sin(x)), None)}


@custom({"q": (2, 3)}, d=lambda: layers.Dense(3))
def sublayer_called_on_weights(self, x):
    return self.d(x)[:2] + self.d(self.q) + self.d(ops.exp(self.q))


@custom({"q": (1, 2, 3)}, inputs=((4, 5, 3),), m=lambda: layers.MultiHeadAttention(2, 3))
def learned_queries(self, x):
    return self.m(query=ops.broadcast_to(self.q, (4, 2, 3)), value=x, key=x)


@custom(inputs=((4, 5, 3),), m=lambda: layers.MultiHeadAttention(2, 3), d=lambda: layers.Dropout(0.5, seed=1))
def sublayers_called_with_keywords(self, x, training=True):
    return self.d(self.m(x, x, use_causal_mask=True, training=training), training=training)


@custom(inputs=((4, 5, 3),), r=lambda: layers.LSTM(3, return_state=True))
def one_output_of_several(self, x):
    return self.r(x)[2]


@custom({"w": (3, 3)})
def one_part_of_a_split(self, x):
    return ops.split(ops.matmul(x, self.w), 3, axis=-1)[1]


@custom(d=lambda: layers.Dense(3), b=lambda: layers.BatchNormalization())
def batch_statistics_inside(self, x, training=True):
    return self.b(self.d(x), training=training)


@custom(inputs=(np.array([[1, 2, 0], [2, 0, 0]]),), e=lambda: layers.Embedding(4, 3, mask_zero=True),
        r=lambda: layers.LSTM(2), p=lambda: layers.GlobalAveragePooling1D())  # fmt: skip
def masks_between_sublayers(self, i):
    h = self.e(i)
    return self.r(h), self.p(h)


def _penalised():
    class Outer(layers.Wrapper):
        def call(self, x):
            return self.layer(x) * 1.0

    return Outer(layers.Dense(3, activity_regularizer="l2", kernel_regularizer="l2"))


@custom(V, d=_penalised)
def penalty_of_a_sublayer_of_a_sublayer(self, x):
    self.add_loss(ops.sum(ops.square(self.w)))
    return self.d(x) * self.w


def _two_inputs():
    a, b, d = keras.Input((3,)), keras.Input((3,)), layers.Dense(3)
    return keras.Model([a, b], [d(a) * b, d(b)])


@custom(m=_two_inputs)
def nested_model(self, x):
    u, v = self.m([x, ops.flip(x, axis=-1)])
    return u + v


def _tied_by_operation():
    x, d = keras.Input((3,)), layers.Dense(3)
    h = d(x)
    return keras.Model(x, ops.matmul(h, d.kernel) + ops.add(h, d.bias))


@custom(m=_tied_by_operation)
def variable_in_a_functional_graph(self, x):
    return self.m(x)


def _lora(self):
    self.d.build((None, 3))
    self.d.enable_lora(2)
    self.d.lora_kernel_b.assign(np.ones((2, 3)))


@custom(build=_lora, d=lambda: layers.Dense(3))
def lora_inside(self, x):
    return self.d(x)


def _remat():
    with keras.RematScope("full"):
        return layers.Dense(3, activation="tanh")


@custom(d=_remat)
def rematerialised_sublayer(self, x):
    return self.d(x)


def _patched():
    d = layers.Dense(3)
    d.call = lambda x, **options: ops.matmul(x, d.kernel) ** 2 + d.bias
    return d


@custom(d=_patched)
def sublayer_with_another_call(self, x):
    return self.d(x)


@custom(build=lambda self: self.d.build((None, 3)), d=lambda: layers.Dense(3))
def call_of_a_sublayer(self, x):
    return self.d.call(x)


# What goes in and out
@custom(V, inputs=({"a": X, "b": (X, np.arange(4))},))
def nested_inputs_and_outputs(self, d):
    return {"s": d["a"] * self.w + d["b"][0], "t": (ops.take(d["a"], d["b"][1], axis=0),)}


@custom({"w": (2, 3)}, inputs=(X, np.array([0, 1, 1, 0]), np.array([True, False, True, True])))
def integers_and_booleans(self, x, i, mask):
    return ops.where(mask[:, None], x * ops.take(self.w, i, axis=0), x)


@custom(V)
def input_returned_as_it_came(self, x):
    return x, x * self.w, x


@custom(V, inputs=([X, X],))
def list_of_inputs(self, xs):
    a, b = xs
    return a * self.w + ops.tanh(b)


# Operations
@custom(W, inputs=((4, 2, 3),))
def einsum_with_an_ellipsis(self, x):
    return ops.einsum("...i,io->...o", x, self.w) + ops.einsum("...i->...", x)[..., None] * self.b


@custom(V, inputs=((4, 2, 3),))
def negative_axes(self, x):
    return ops.concatenate([ops.softmax(x * self.w, axis=-2), ops.expand_dims(ops.mean(x, axis=-2), -2)], axis=-2)


@custom({"w": (2, 3)})
def scattered_update(self, x):
    return ops.scatter_update(x, [[0], [2]], self.w)


@custom(V)
def slices_of_the_batch(self, x):
    return x[:2] * self.w + x[1::2] + x[-1] * x[..., :1][2:]


@custom(V)
def shapes_decide(self, x):
    if x.shape[-1] == 3:
        x = x * self.w
    for i in range(x.shape[-1]):
        x = x + i * ops.roll(x, i, axis=-1)
    return ops.reshape(x, (ops.shape(x)[0], -1, 1))


@custom(V)
def casts_between(self, x):
    return ops.cast(ops.cast(x, "float64") * self.w, x.dtype)


@custom(V)
def half_of_it_constant(self, x):
    return x * self.w * ops.stop_gradient(ops.sum(self.w))


@custom(V)
def sorted_and_selected(self, x):
    values, indices = ops.top_k(x * self.w, 2)
    return values + ops.take_along_axis(x, indices, axis=-1) + ops.sort(x, axis=-1)[:, :2]


@custom(V)
def random_numbers(self, x):
    return x * self.w + keras.random.normal((4, 3))


def _count(self):
    self.count = self.add_weight(shape=(), trainable=False, name="count")


@custom(V, build=_count)
def counted_calls(self, x):
    self.count.assign_add(1.0)
    return x * self.w


LAYERS = [value for value in list(vars().values()) if hasattr(value, "inputs") and isinstance(value, type)]
_KNOWN = set(LAYERS)


# What is refused
@custom(V)
def raw_tensorflow(self, x):
    return tf.multiply(x, self.w)


@custom(V)
def raw_tensorflow_on_a_weight(self, x):
    return x * tf.exp(self.w)


@custom(d=lambda: layers.Dense(3))
def raw_tensorflow_on_a_weight_of_a_sublayer(self, x):
    return self.d(x) * tf.exp(self.d.kernel)[0]


@custom(V)
def numpy_of_a_weight(self, x):
    return x * np.exp(ops.convert_to_numpy(self.w))


@custom(V)
def values_decide(self, x):
    return x * self.w if ops.sum(x) > 0 else x


@custom(V)
def weights_decide(self, x):
    return x * self.w if float(self.w[0]) > 0 else x


@custom(V, build=_count)
def assigned_state_in_the_result(self, x):
    self.count.assign_add(1.0)
    return x * self.w * self.count


@custom(V)
def expression_of_a_weight_found_in_a_list(self, x):
    return x * ops.exp(self.trainable_variables[0])


@custom(build=_object)
def expression_of_a_weight_in_an_object(self, x):
    return x * ops.exp(self.holder.w)


def _closure_over_another_layer(self):
    d = self.d
    d.build((None, 3))
    self.function = layers.Lambda(lambda x: ops.matmul(x, ops.exp(d.kernel)))


@custom(build=_closure_over_another_layer, d=lambda: layers.Dense(3))
def expression_of_another_layers_weight(self, x):
    return self.d(x) + self.function(x)


def _activation_with_another_layers_weight(self):
    d = self.d
    d.build((None, 3))
    self.e = layers.Dense(3, activation=lambda x: x * ops.exp(d.bias))


@custom(build=_activation_with_another_layers_weight, d=lambda: layers.Dense(3))
def expression_of_a_weight_in_an_activation(self, x):
    return self.d(x) + self.e(x)


@custom(V)
def cond(self, x):
    return ops.cond(ops.sum(x) > 0, lambda: x * self.w, lambda: x)


@custom(V)
def while_loop(self, x):
    return ops.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a * self.w), (0, x))[1]


@custom(V)
def fori_loop(self, x):
    return ops.fori_loop(0, 3, lambda i, a: a * self.w, x)


@custom(V)
def scan(self, x):
    return ops.scan(lambda carry, a: (carry + a * self.w, carry * a), ops.zeros_like(x[0]), x)[1]


@custom(V)
def associative_scan(self, x):
    return ops.associative_scan(lambda a, b: a * b, x * self.w)


@custom(V)
def map_of_a_function(self, x):
    return ops.map(lambda a: a * self.w, x)


@custom(V)
def vectorized_map(self, x):
    return ops.vectorized_map(lambda a: a * self.w, x)


@custom(V)
def switch(self, x):
    return ops.switch(1, [lambda a: a, lambda a: a * self.w], x)


@custom(V)
def custom_gradient(self, x):
    @ops.custom_gradient
    def thrice(a):
        return ops.square(a), lambda *args, upstream=None: 3 * (args[0] if upstream is None else upstream)

    return thrice(x * self.w)


REFUSED = [
    value
    for value in list(vars().values())
    if hasattr(value, "inputs") and isinstance(value, type) and value not in _KNOWN
]
