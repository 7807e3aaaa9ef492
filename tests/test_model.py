"""`fit` by the explicit chain rule equals stock `fit`."""

import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_backprop
from keras_backprop import BackpropModel, BackpropSequential, MissingRuleError

TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


def data(n=160, features=6, classes=3, dtype="float32"):
    random = np.random.default_rng(0)
    x = random.normal(size=(n, features)).astype(dtype)
    return x, random.integers(0, classes, n), random.uniform(0.2, 2.0, n).astype(dtype)


def branched(cls, dtype):
    """Dropout, a layer used twice, a residual branch, an L2 penalty, an activity penalty."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,), dtype=dtype)
    shared = layers.Dense(8, activation="tanh", dtype=dtype, activity_regularizer=keras.regularizers.L1(1e-3))
    h = layers.Dense(8, activation="relu", kernel_regularizer=keras.regularizers.L2(1e-2), dtype=dtype)(inputs)
    h = layers.Dropout(0.25, seed=5, dtype=dtype)(h)
    h = layers.Add(dtype=dtype)([h, shared(shared(h))])
    outputs = layers.Dense(3, activation="softmax", dtype=dtype)(h)
    return cls(inputs, outputs)


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
}


@pytest.fixture
def floatx():
    yield
    keras.config.set_floatx("float32")


@pytest.mark.usefixtures("floatx")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fifty_steps_of_fit_equal_stock_keras(optimizer, dtype):
    keras.config.set_floatx(dtype)
    x, y, sample_weight = data(dtype=dtype)
    models, histories = [], []
    for cls in (keras.Model, BackpropModel):
        model = branched(cls, dtype)
        loss = keras.losses.SparseCategoricalCrossentropy(dtype=dtype)
        model.compile(OPTIMIZERS[optimizer](), loss, metrics=["accuracy"])
        fit = model.fit(x, y, 32, epochs=10, sample_weight=sample_weight, shuffle=False, verbose=0)
        models.append(model)
        histories.append(fit.history)
    for stock, ours in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(ours, stock, rtol=0, atol=TOLERANCE[dtype])
    assert histories[0].keys() == histories[1].keys()
    np.testing.assert_allclose(histories[1]["loss"], histories[0]["loss"], rtol=10 * TOLERANCE[dtype])
    for stock, ours in zip(models[0].optimizer.variables, models[1].optimizer.variables, strict=True):
        np.testing.assert_allclose(np.asarray(ours.value), np.asarray(stock.value), rtol=1e-5, atol=TOLERANCE[dtype])


def test_training_opens_no_tape(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a GradientTape was opened")

    x, y, _ = data()
    model = branched(BackpropModel, "float32")
    model.compile("sgd", "sparse_categorical_crossentropy")
    monkeypatch.setattr(tf, "GradientTape", refuse)
    monkeypatch.setattr(tf, "gradients", refuse)
    model.fit(x, y, epochs=1, verbose=0)
    model.run_eagerly = True
    model.make_train_function(force=True)
    model.fit(x, y, epochs=1, verbose=0)
    stock = branched(keras.Model, "float32")
    stock.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    with pytest.raises(AssertionError, match="a GradientTape was opened"):  # the trap works
        stock.fit(x, y, epochs=1, verbose=0)


def compare_fit(make, x, y, loss="mse", epochs=3, optimizer="adam", atol=1e-6, batch_size=32, compile_args=None, **fit):
    """Train `make(stock class)` and `make(our class)` alike; return both."""
    models = []
    for cls in (keras.Model, BackpropModel):
        keras.utils.set_random_seed(1)
        model = make(cls)
        model.compile(optimizer, loss, **(compile_args or {}))
        history = model.fit(x, y, batch_size=batch_size, epochs=epochs, shuffle=False, verbose=0, **fit).history
        models.append((model, history))
    for stock, ours in zip(models[0][0].get_weights(), models[1][0].get_weights(), strict=True):
        np.testing.assert_allclose(ours, stock, rtol=1e-5, atol=atol)
    assert models[0][1].keys() == models[1][1].keys()
    for key, values in models[0][1].items():
        np.testing.assert_allclose(models[1][1][key], values, rtol=1e-5, atol=atol)
    return models[1][0]


def test_the_backward_pass_reads_no_weight_that_may_be_updated_already():
    # A read that no gradient waits for may come after the update: see `chain/read.py`.
    x, y, _ = data(n=32)
    model = branched(BackpropModel, "float32")
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, verbose=0)
    graph = tf.function(lambda x, y: model.train_step((x, y)), autograph=False).get_concrete_function(x, y).graph
    handles = {id(v.value.handle) for v in model.trainable_weights}
    weights = {id(inner) for outer, inner in graph.captures if id(outer) in handles}
    assert len(weights) == len(model.trainable_weights)
    reads = {op for op in graph.get_operations() if op.type == "ReadVariableOp" and id(op.inputs[0]) in weights}
    updates = [
        op
        for op in graph.get_operations()
        if op.type.startswith(("Assign", "ResourceApply")) and id(op.inputs[0]) in weights
    ]
    assert len(updates) == len(weights)
    for update in updates:
        pending = [tensor.op for tensor in update.inputs]  # and not its control inputs, which may be dropped
        before = set()
        while pending:
            op = pending.pop()
            if op not in before:
                before.add(op)
                pending += [*op.control_inputs, *(tensor.op for tensor in op.inputs)]
        assert not [op.name for op in reads - before if op.inputs[0] is update.inputs[0]]


def test_a_ragged_last_batch():
    def make(cls):
        inputs = keras.Input((6,))
        return cls(inputs, layers.Dense(1)(layers.Dense(4, activation="gelu")(inputs)))

    x, _, t = data(n=50)
    compare_fit(make, x, t[:, None], batch_size=16)


def test_several_inputs_and_outputs():
    def make(cls):
        a, b = keras.Input((6,), name="a"), keras.Input((2,), name="b")
        h = layers.Concatenate()([layers.Dense(5, activation="silu")(a), b])
        first, second = layers.Dense(1, name="first")(h), layers.Dense(3, activation="sigmoid", name="second")(h)
        return cls({"a": a, "b": b}, {"first": first, "second": second})

    x, y, t = data(n=64)
    targets = {"first": t[:, None], "second": keras.utils.to_categorical(y, 3)}
    compare_fit(
        make,
        {"a": x, "b": x[:, :2]},
        targets,
        loss={"first": "mse", "second": "binary_crossentropy"},
        compile_args={"loss_weights": {"first": 0.3, "second": 2.0}, "metrics": {"second": ["accuracy"]}},
        sample_weight={"first": t, "second": t[::-1].copy()},
    )


def test_nested_models():
    def make(cls):
        inner_inputs = keras.Input((6,))
        inner = keras.Model(inner_inputs, layers.Dense(6, activation="elu")(inner_inputs))
        stack = keras.Sequential(
            [keras.Input((6,)), layers.Dense(4, activation="softplus"), layers.Dropout(0.2, seed=1)]
        )
        inputs = keras.Input((6,))
        return cls(inputs, layers.Dense(1)(stack(inner(inner(inputs)))))

    x, _, t = data(n=64)
    compare_fit(make, x, t[:, None])


def test_sequential():
    x, _, t = data(n=64)
    weights = []
    for cls in (keras.Sequential, BackpropSequential):
        keras.utils.set_random_seed(1)
        model = cls([layers.Dense(5, activation="leaky_relu"), layers.Dense(1)])  # built by the first batch
        model.compile("sgd", "mse")
        model.fit(x, t, epochs=3, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for stock, ours in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=1e-5, atol=1e-6)


def subclassed(base):
    """A model with a `call` of its own: layers, `keras.ops`, and a weight that is used in an expression of its own."""

    class Subclassed(base):
        def __init__(self):
            super().__init__()
            self.hidden = layers.Dense(5, activation="tanh")
            self.drop = layers.Dropout(0.3, seed=4)
            self.out = layers.Dense(1)

        def build(self, input_shape):
            self.scale = self.add_weight(name="scale", shape=(5,), initializer="zeros")
            self.hidden.build(input_shape)
            self.out.build((None, 5))

        def call(self, x, training=False):
            h = self.hidden(x) * keras.ops.exp(self.scale)
            return self.out(self.drop(h, training=training)) + keras.ops.mean(x, axis=-1, keepdims=True)

    return Subclassed()


def test_a_subclassed_model_expands():
    x, _, t = data(n=64)
    model = compare_fit(lambda cls: subclassed(cls), x, t[:, None])
    assert np.abs(model.scale.numpy()).min() > 0  # the weight inside exp(…) has moved


def ragged(self, x):
    return self.out(self.hidden(x.to_tensor(shape=(None, 6))))


def decided_by_values(self, x):
    return self.out(self.hidden(x) if float(keras.ops.sum(x)) > -1e9 else x)


def counted(self, x):
    self.calls = getattr(self, "calls", 0) + 1
    return self.out(self.hidden(x))


class BuildsInBuild(layers.Layer):
    def build(self, input_shape):
        self.dense, self.norm = layers.Dense(6, "relu"), layers.LayerNormalization()

    def call(self, x):
        return self.norm(self.dense(x))


def built_late(self, x):
    return self.out(self.hidden(x))


@pytest.mark.parametrize("flagged", [False, True], ids=["unbuilt", "called-built"])
@pytest.mark.parametrize("call", [ragged, decided_by_values, counted, built_late], ids=lambda call: call.__name__)
def test_an_unbuilt_model_is_built_by_the_call_itself(call, flagged):
    x, _, t = data(n=20)
    if call is ragged:
        x = tf.RaggedTensor.from_row_lengths(x.reshape(-1)[:60], [2, 3, 4] * 6 + [3, 3])
    batches = tf.data.Dataset.from_tensor_slices((x, t[:, None])).batch(6)
    seen, calls = [], []
    for cls in (keras.Model, BackpropModel):
        keras.utils.set_random_seed(2)
        model = type("Model", (cls,), {"call": call})()
        model.hidden, model.out = BuildsInBuild() if call is built_late else layers.Dense(6, "tanh"), layers.Dense(1)
        model.built = flagged
        model.compile("sgd", "mse", run_eagerly=call is decided_by_values)
        model.fit(batches, epochs=2, shuffle=False, verbose=0)
        seen.append(model.get_weights())
        calls.append(getattr(model, "calls", 0))
    for stock, ours in zip(*seen, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=0, atol=1e-6)
    assert calls[1] == calls[0]


@pytest.mark.parametrize("kind", ["functional", "sequential", "subclassed"])
def test_from_keras_shares_the_layers(kind):
    x, _, t = data(n=64)
    if kind == "functional":
        inputs = keras.Input((6,))
        stock = keras.Model(inputs, layers.Dense(1)(layers.Dense(3, activation="relu")(inputs)))
    elif kind == "sequential":
        stock = keras.Sequential([keras.Input((6,)), layers.Dense(3, activation="relu"), layers.Dense(1)])
    else:
        stock = subclassed(keras.Model)
        stock(x)
    model = BackpropModel.from_keras(stock)
    before = stock.get_weights()
    np.testing.assert_array_equal(model.predict(x, verbose=0), stock.predict(x, verbose=0))
    model.compile("sgd", "mse")
    model.fit(x, t[:, None], verbose=0)
    assert any(np.abs(a - b).max() > 0 for a, b in zip(before, stock.get_weights(), strict=True))
    np.testing.assert_array_equal(model.predict(x, verbose=0), stock.predict(x, verbose=0))


@pytest.mark.parametrize("takes_training", [False, True])
def test_from_keras_passes_training_where_stock_keras_does(takes_training):
    class Dropping(keras.Model):
        def __init__(self):
            super().__init__()
            self.drop, self.dense = layers.Dropout(0.5, seed=3), layers.Dense(1)

    class WithoutTraining(Dropping):
        def call(self, x):
            return self.dense(self.drop(x))

    class WithTraining(Dropping):
        def call(self, x, training=None):
            return self.dense(self.drop(x, training=training))

    x, _, t = data(n=64)
    seen = []
    for wrap in (lambda model: model, BackpropModel.from_keras):
        keras.utils.set_random_seed(1)
        model = (WithTraining if takes_training else WithoutTraining)()
        model(x)
        model = wrap(model)
        model.compile("sgd", "mse")
        model.fit(x, t[:, None], shuffle=False, verbose=0)
        seen.append(model.get_weights())
    for stock, ours in zip(*seen, strict=True):
        np.testing.assert_allclose(ours, stock, rtol=0, atol=1e-6)


def test_a_subclass_can_be_functional_and_another_have_a_call_of_its_own():
    class Mine(BackpropModel):
        pass

    inputs = keras.Input((6,))
    functional = Mine(inputs, layers.Dense(1)(inputs))
    assert isinstance(functional, BackpropModel) and isinstance(functional, Mine)
    assert isinstance(BackpropModel(inputs, layers.Dense(1)(inputs)), BackpropModel)
    model = subclassed(BackpropModel)
    x, _, t = data(n=64)
    for one in (functional, model):
        one.compile("sgd", "mse")
        one.fit(x, t[:, None], verbose=0)


def test_from_keras_refuses_what_is_no_model():
    with pytest.raises(TypeError, match=r"takes a `keras.Model`. Received: .*Dense"):
        BackpropModel.from_keras(layers.Dense(1))
    with pytest.raises(ValueError, match=r"is not built.*`Mine.from_keras`"):
        type("Mine", (BackpropModel,), {}).from_keras(keras.Sequential([layers.Dense(1)]))


def test_from_keras_takes_a_stack_that_its_first_batch_builds():
    stock = keras.Sequential([layers.Dense(3), layers.Dense(1)], name="open")
    model = BackpropModel.from_keras(stock)
    assert isinstance(model, BackpropSequential) and model.layers == stock.layers and model.name == "open"
    model.compile("sgd", "mse")
    model.fit(np.ones((5, 2)), np.ones((5, 1)), verbose=0)
    np.testing.assert_array_equal(stock(np.ones((2, 2))), model(np.ones((2, 2))))


def test_a_saved_model_loads_in_a_new_process_and_trains_on(tmp_path):
    def make():
        inputs = keras.Input((6,))
        return BackpropModel(inputs, layers.Dense(3, "softmax")(layers.Dense(4, "relu")(inputs)))

    x, y, _ = data()
    model = make()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=1, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    sequential = BackpropSequential([keras.Input((6,)), keras_backprop.layers.BackpropDense(1, "sigmoid")])
    sequential.compile("sgd", keras_backprop.losses.HalfMeanSquaredError())
    sequential.save(tmp_path / "sequential.keras")
    np.savez(tmp_path / "data.npz", x=x, y=y, p=model.predict(x, verbose=0))
    program = """
import sys, numpy as np, keras, keras_backprop
folder = sys.argv[1]
data = np.load(folder + "/data.npz")
model = keras.saving.load_model(folder + "/model.keras")
assert isinstance(model, keras_backprop.BackpropModel), type(model)
assert np.array_equal(model.predict(data["x"], verbose=0), data["p"])
model.fit(data["x"], data["y"], verbose=0, shuffle=False)
sequential = keras.saving.load_model(folder + "/sequential.keras")
assert type(sequential) is keras_backprop.BackpropSequential
assert type(sequential.layers[0]) is keras_backprop.layers.BackpropDense
assert type(sequential.loss) is keras_backprop.losses.HalfMeanSquaredError
sequential.fit(data["x"], data["y"] / 3, verbose=0)
model.save_weights(folder + "/again.weights.h5")
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, timeout=300)
    model.fit(x, y, epochs=1, verbose=0, shuffle=False)
    again = make()
    again.load_weights(tmp_path / "again.weights.h5")
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_mixed_precision_equals_stock():
    def make(cls):
        with_policy = {"dtype": "mixed_bfloat16"}
        inputs = keras.Input((6,))
        h = layers.Dense(8, activation="relu", **with_policy)(inputs)
        h = layers.Dense(8, activation="tanh", **with_policy)(h)
        return cls(inputs, layers.Dense(1, dtype="float32")(h))

    x, _, t = data(n=64)
    compare_fit(make, x, t[:, None], optimizer="sgd", atol=2e-3)


def test_loss_scaling_under_mixed_float16():
    x, _, t = data(n=64)
    weights = []
    for cls in (keras.Model, BackpropModel):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((6,), dtype="float16")
        outputs = layers.Dense(1, dtype="float32")(layers.Dense(8, activation="relu", dtype="mixed_float16")(inputs))
        model = cls(inputs, outputs)
        model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05)), "mse")
        model.fit(x, t[:, None], epochs=3, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for stock, ours in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, stock, atol=1e-3)


def test_frozen_layers_do_not_move_and_cost_no_gradient():
    def make(cls):
        inputs = keras.Input((6,))
        frozen = layers.Dense(5, activation="relu", trainable=False)
        return cls(inputs, layers.Dense(1)(frozen(inputs)))

    x, _, t = data(n=64)
    compare_fit(make, x, t[:, None])


def test_a_weight_off_the_path_gets_no_gradient_and_does_not_move():
    def make(cls):
        inputs = keras.Input((6,))
        used = layers.Dense(1)(inputs)
        unused = layers.Dense(2, name="unused")(inputs)
        return cls(inputs, [used, unused])

    x, _, t = data(n=64)
    models = []
    for cls in (keras.Model, BackpropModel):
        keras.utils.set_random_seed(1)
        model = make(cls)
        model.compile(keras.optimizers.AdamW(0.1, weight_decay=0.5), ["mse", None])
        with pytest.warns(UserWarning, match="Gradients do not exist"):
            model.fit(x, [t[:, None], np.zeros((64, 2))], shuffle=False, verbose=0)
        models.append(model.get_weights())
    for stock, ours in zip(*models, strict=True):
        np.testing.assert_allclose(ours, stock, atol=1e-6)


# Bad input: a clear error that names the path and the remedy, and no weight has changed.


def assert_refused(model, x, t, error, match):
    before = model.get_weights()
    with pytest.raises(error, match=match):
        model.fit(x, t, verbose=0)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


class RawTensorFlow(layers.Layer):
    def call(self, x):
        return tf.nn.relu(x)


class RawWeight(layers.Layer):
    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1],), initializer="ones")

    def call(self, x):
        return x * tf.exp(self.w)


class ReadsWeight(layers.Layer):
    def build(self, input_shape):
        self.add_weight(shape=(input_shape[-1],), initializer="ones", name="w")

    def call(self, x):
        return x * keras.ops.exp(self.trainable_weights[0])


class AssignsWeight(layers.Layer):
    def build(self, input_shape):
        self.w = self.add_weight(shape=(), initializer="ones", name="w")

    def call(self, x):
        self.w.assign(2.0)
        return x * self.w


@pytest.mark.parametrize("layer", [RawTensorFlow, RawWeight, ReadsWeight, AssignsWeight])
def test_a_layer_that_does_as_it_likes_trains_as_in_stock_keras(layer):
    x, _, t = data(n=64)
    compare_fit(
        lambda cls: cls(inputs := keras.Input((6,)), layers.Dense(1)(layer()(layers.Dense(6)(inputs)))), x, t[:, None]
    )


def test_an_operation_without_a_gradient_is_refused_by_name():
    class Factors(layers.Layer):
        def call(self, x):
            return tf.reduce_sum(tf.raw_ops.Lu(input=x[:, :, None] * x[:, None, :] + tf.eye(6))[0], 1)

    x, _, t = data(n=64)
    model = BackpropSequential([keras.Input((6,)), layers.Dense(6), Factors(name="factors"), layers.Dense(1)])
    model.compile("sgd", "mse")
    assert_refused(model, x, t, MissingRuleError, "(?s)factors/lu.*no gradient.*custom_gradient")


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_quantized_layer_with_lora_trains_as_in_stock_keras(mode):
    def make(cls):
        keras.utils.set_random_seed(3)
        model = cls([keras.Input((6,)), layers.Dense(6, name="first"), layers.Dense(1)])
        model.layers[0].quantize(mode)
        model.layers[0].enable_lora(2)
        model.layers[0].lora_kernel_b.assign(np.full((2, 6), 0.1))
        model.compile("sgd", "mse")
        return model

    x, _, t = data(n=64)
    stock, ours = make(keras.Sequential), make(BackpropSequential)
    for model in (stock, ours):
        model.fit(x, t, epochs=3, verbose=0, shuffle=False)
    for a, b in zip(stock.get_weights(), ours.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_wrong_target_shape_is_refused():
    x, _, _ = data(n=64)
    model = BackpropSequential([keras.Input((6,)), layers.Dense(2)])
    model.compile("sgd", "mse")
    assert_refused(model, x, np.zeros((64, 3)), Exception, "3")


def test_an_unbuilt_model_without_data_is_refused():
    with pytest.raises(ValueError, match="is not built"):
        keras_backprop.check_gradients(BackpropSequential([layers.Dense(1)]), None, None)


def test_a_compute_loss_in_tensorflow_is_differentiated():
    def make(cls):
        class Raw(cls):
            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                return tf.reduce_mean(tf.square(y - y_pred))

        inputs = keras.Input((6,))
        return Raw(inputs, layers.Dense(1)(inputs))

    x, _, t = data(n=64)
    compare_fit(make, x, t[:, None], loss=None)


def test_a_compute_loss_in_keras_ops_is_differentiated():
    def make(cls):
        class Mine(cls):
            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                ops = keras.ops
                return ops.mean(ops.abs(y - y_pred) ** 3) + ops.sum(ops.stack(self.losses))

        inputs = keras.Input((6,))
        return Mine(inputs, layers.Dense(1, kernel_regularizer="l2", activity_regularizer="l1")(inputs))

    x, _, t = data(n=64)
    compare_fit(make, x, t[:, None], loss=None)


def test_a_compute_loss_may_ask_which_regularizer_a_weight_has():
    def make(cls):
        class Mine(cls):
            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                error = keras.ops.mean((y - y_pred) ** 2)
                squared = [v for v in self.trainable_variables if type(v.regularizer) is keras.regularizers.L2]
                kernels = [
                    layer.kernel for layer in self.layers[1:] if layer.kernel.regularizer is layer.kernel_regularizer
                ]
                return error + sum(v.regularizer(v) for v in squared + kernels) + sum(self.losses)

        inputs = keras.Input((6,))
        return Mine(inputs, layers.Dense(1, kernel_regularizer="l2", bias_regularizer="l1")(inputs))

    x, _, t = data(n=64)
    compare_fit(make, x, t[:, None], loss=None)


@pytest.mark.parametrize("reduction", ["sum_over_batch_size", "mean_with_sample_weight", "sum"])
def test_a_compute_loss_may_call_a_loss_object(reduction):
    """On batches of any size: 64 = 7·9 + 1, and the last step has a batch of 1."""

    def make(cls):
        class Mine(cls):
            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                return keras.losses.MeanSquaredError(reduction)(y, y_pred, sample_weight)

        inputs = keras.Input((6,))
        return Mine(inputs, layers.Dense(1)(layers.Dense(3, "tanh")(inputs)))

    x, _, t = data(n=64)
    weights = np.random.default_rng(0).uniform(0, 0.1, 64)
    compare_fit(make, x, t[:, None], loss=None, batch_size=9, sample_weight=weights)


def test_train_on_batch_with_arrays_in_eager_mode():
    class Mine(BackpropModel):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.ops.mean((y - y_pred) ** 2)

    x, _, t = data(n=8)
    inputs = keras.Input((6,))
    model = Mine(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", run_eagerly=True)
    first, second = (model.train_on_batch(x, t[:, None].astype("float64")) for _ in range(2))
    assert second < first


def test_sparse_inputs_of_a_dense_layer():
    """Its gradient has the rows that they touch, each once, as the tape's has: Adam squares row by row."""
    x = np.zeros((8, 6), "float32")
    x[::2, 1] = 1.5
    x[1::2, 4] = -0.5
    model = keras.Sequential([keras.Input((6,), sparse=True), layers.Dense(3, use_bias=False)])
    model.compile("sgd", "mse")
    y = np.ones((8, 3), "float32")
    (gradient,) = keras_backprop.backward(model, tf.sparse.from_dense(x), y).gradients
    (dense,) = keras_backprop.backward(model, x, y).gradients
    assert isinstance(gradient, tf.IndexedSlices) and sorted(gradient.indices.numpy()) == [1, 4]
    np.testing.assert_allclose(tf.convert_to_tensor(gradient), dense, rtol=1e-6)


def _products(x, w):
    """A sparse tensor, and then its numbers, times a weight."""
    scaled = keras.ops.multiply(x, tf.sparse.to_dense(x) * keras.ops.sum(w, -1))
    return keras.ops.matmul(x, w) + tf.sparse.to_dense(scaled)[:, :3]


class OfSparse(layers.Layer):
    """What is made of weights and of a sparse tensor that comes into being within the model."""

    def __init__(self, call):
        super().__init__()
        self.sparse_call = call

    def build(self, shape):
        self.w = self.add_weight(shape=(6, 3), name="w")

    def call(self, x):
        return self.sparse_call(tf.sparse.from_dense(x), self.w)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("call", [keras.ops.matmul, _products])
def test_sparse_tensors_inside_of_a_model(call, compiled):
    x = tf.constant(np.eye(6, dtype="float32")[[1, 4, 4, 0]] * 2)
    model = keras.Sequential([keras.Input((6,)), OfSparse(call)])

    def ours(x):
        return keras_backprop.backward(model, x, loss=lambda p: keras.ops.sum(p**2)).gradients[0]

    def by_tape(x):
        with tf.GradientTape() as tape:
            error = tf.reduce_sum(model(x) ** 2)
        return tape.gradient(error, model.trainable_weights[0].value)

    gradient, wanted = (tf.function(ours) if compiled else ours)(x), by_tape(x)
    assert isinstance(gradient, tf.IndexedSlices) is isinstance(wanted, tf.IndexedSlices)
    np.testing.assert_allclose(tf.convert_to_tensor(gradient), tf.convert_to_tensor(wanted), rtol=1e-5)


def test_sparse_indicators_of_integers():
    x, y = np.array([[1, 2, 2], [0, 1, 5], [3, 3, 3]]), np.ones((3, 2), "float32")
    lookup = layers.IntegerLookup(vocabulary=[0, 1, 2, 3], output_mode="multi_hot", sparse=True)
    weights = []
    for cls in (keras.Sequential, BackpropSequential):
        model = cls([keras.Input((3,), dtype="int64"), lookup, layers.Dense(2, kernel_initializer="ones")])
        model.compile(keras.optimizers.Adam(0.1), "mse")
        model.fit(x, y, verbose=0)
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_another_backend_is_refused_at_import():
    program = """
import os, sys, types
os.environ["KERAS_BACKEND"] = "tensorflow"
import keras
keras.config.backend = lambda: "jax"
try:
    import keras_backprop
except ImportError as error:
    assert "jax" in str(error) and "KERAS_BACKEND" in str(error), error
else:
    sys.exit("no error")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_a_backend_that_cannot_be_imported_is_refused_in_our_words():
    program = """
import os, sys
os.environ["KERAS_BACKEND"] = "nonsense"
try:
    import keras_backprop
except ImportError as error:
    assert "works with Keras on TensorFlow" in str(error) and "KERAS_BACKEND" in str(error), error
else:
    sys.exit("no error")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize("y", [np.ones((4, 5)), np.ones(4), None])
def test_targets_that_do_not_fit_are_an_error_and_nothing_is_changed(y):
    model = BackpropSequential([keras.Input((3,)), layers.Dense(2, activation="softmax")])
    model.compile("sgd", "categorical_crossentropy")
    before = model.get_weights()
    with pytest.raises(ValueError, match="The targets do not fit the predictions of the model .* Received: y of shape"):
        model.fit(np.ones((4, 3)), y, verbose=0)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_axis_that_a_loss_does_not_support_is_no_matter_of_the_targets():
    model = BackpropSequential([keras.Input((6, 3)), layers.Dense(2, activation="softmax")])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(axis=-2))
    with pytest.raises(ValueError, match="^Only axis=-1 is currently supported"):
        model.fit(np.ones((4, 6, 3)), np.ones((4, 2)), verbose=0)


@pytest.mark.parametrize("said, axis, size", [("^The targets do not fit", -1, 5), ("^Only axis=-1 is currently", 1, 6)])
@pytest.mark.parametrize("other", [None, keras.losses.CategoricalCrossentropy(axis=1)])
def test_of_several_losses_each_is_asked_about_its_own_targets(other, said, axis, size):
    x = keras.Input((6, 3))
    model = BackpropModel(x, [layers.Dense(n, activation="softmax", name=f"of_{n}")(x) for n in (4, 2)])
    model.compile("sgd", [other, keras.losses.SparseCategoricalCrossentropy(axis=axis)])
    with pytest.raises(ValueError, match=said):
        model.fit(np.ones((4, 6, 3)), [np.ones((4, 6, 4)), np.ones((4, size))], verbose=0)


@pytest.mark.parametrize("kind", ["functional", "sequential", "wrapped"])
def test_legacy_h5_files_load_without_custom_objects(kind, tmp_path):
    stack = [keras.Input((3,)), layers.Dense(4, "tanh"), keras_backprop.layers.BackpropDense(2)]
    if kind == "sequential":
        model = BackpropSequential(stack)
    elif kind == "wrapped":
        model = BackpropModel.from_keras(keras.Sequential(stack))
    else:
        model = BackpropModel(stack[0], stack[2](stack[1](stack[0])))
    model.compile("sgd", keras.losses.MeanSquaredError())
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    model.fit(x, x[:, :2], verbose=0)
    model.save(tmp_path / "model.h5")
    again = keras.models.load_model(tmp_path / "model.h5")
    assert type(again) is type(model)
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize("model", [BackpropSequential(), BackpropModel(i := keras.Input((2,)), layers.Dense(1)(i))])
def test_the_class_of_a_model_can_be_pickled(model):
    assert pickle.loads(pickle.dumps(type(model))) is type(model)
    assert type(model).__name__ in ("BackpropModel", "BackpropSequential")


def test_only_a_model_is_wrapped():
    class Own(keras.Model):
        def call(self, x):
            return x

    own = Own()
    own.build((None, 2))
    with pytest.raises(TypeError, match="Only a `keras.Model` can be wrapped. Received: 'a string'"):
        type(BackpropModel.from_keras(own)).from_config({"model": "a string", "name": "odd"})


def test_a_sequential_is_a_model_as_in_keras():
    stock = keras.Sequential([keras.layers.Dense(2)], trainable=False, name="stack")
    model = keras_backprop.BackpropSequential.from_keras(stock)
    assert isinstance(model, keras_backprop.BackpropModel) and isinstance(model, keras.Sequential)
    assert model.layers == stock.layers and model.name == "stack" and not model.trainable
    assert isinstance(keras_backprop.BackpropSequential([keras.Input((3,))], True, "by_position"), keras.Sequential)
    with pytest.raises(TypeError, match="takes a `keras.Sequential`"):
        keras_backprop.BackpropSequential.from_keras(keras_backprop.BackpropModel())
