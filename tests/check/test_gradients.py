"""`check_gradients` and `check_layer`: they accept what is right, and reject and name what is a little wrong."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits

from keras_backprop import (
    BackpropModel,
    BackpropSequential,
    Contraction,
    Gradients,
    MissingRuleError,
    backward_rule,
    check_gradients,
    check_layer,
    elementwise,
    forward_rule,
    use_rules,
)


def digits_mlp(cls=BackpropModel):
    inputs = keras.Input((64,))
    h = layers.Dense(64, activation="tanh", name="second")(layers.Dense(128, activation="relu", name="first")(inputs))
    model = cls(inputs, layers.Dense(10, activation="softmax", name="out")(h))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def digits(n=32):
    x, y = load_digits(return_X_y=True)
    return (x[:n] / 16).astype("float32"), y[:n]


def test_the_digits_mlp_agrees_with_tape_and_finite_differences():
    report = check_gradients(digits_mlp(), *digits())
    assert report.passed and report.max_error <= 1e-10
    assert [row.path for row in report.rows] == [
        "first/kernel", "first/bias", "second/kernel", "second/bias", "out/kernel", "out/bias", "input 0",
    ]  # fmt: skip
    assert all(row.difference_relative < 1e-6 for row in report.rows)
    assert report.raise_if_failed() is report
    assert "all agree" in str(report) and "first/kernel" in str(report)


@pytest.mark.usefixtures("registry_restored")
def test_a_rule_that_is_a_thousandth_wrong_is_rejected_and_named():
    @backward_rule(keras.activations.tanh)
    def tanh_a_thousandth_wrong(call, dy):
        return Gradients(1.001 * dy * (1 - call.output**2))

    report = check_gradients(digits_mlp(), *digits())
    assert not report.passed
    wrong = [row.path for row in report.rows if row.verdict == "wrong"]
    assert wrong == ["first/kernel", "first/bias", "second/kernel", "second/bias", "input 0"]  # all below the tanh
    assert [culprit.rule for culprit in report.culprits] == ["tanh_a_thousandth_wrong"]  # and only the tanh is to blame
    assert report.culprits[0].relative == pytest.approx(1e-3, rel=1e-2)
    with pytest.raises(ArithmeticError, match="The rule 'tanh_a_thousandth_wrong' of 'second/tanh' is wrong"):
        report.raise_if_failed()


@pytest.mark.usefixtures("registry_restored")
@pytest.mark.parametrize("weight", ["kernel", "bias"])
def test_a_wrong_weight_gradient_of_one_of_several_uses_is_named(weight):
    class Mine(layers.Dense):
        def backward(self, call, dy):
            factor = {"kernel": 1.0, "bias": 1.0, weight: 1.0005}
            return Gradients(
                dy @ keras.ops.transpose(self.kernel),
                kernel=Contraction("i,o->io", call.input, factor["kernel"] * dy),
                bias=Contraction("o->o", factor["bias"] * dy),
            )

    inputs = keras.Input((3,))
    shared = Mine(3, name="shared")
    model = keras.Model(inputs, shared(layers.Dense(3, activation="tanh")(shared(inputs))))
    model.compile(loss="mse")
    x = np.random.default_rng(0).normal(size=(5, 3))
    report = check_gradients(model, x, x)
    assert {culprit.what for culprit in report.culprits} == {f"the gradient of 'shared/{weight}'"}
    assert {culprit.path for culprit in report.culprits} == {"shared"}


@pytest.mark.usefixtures("registry_restored")
def test_a_derivative_that_agrees_with_the_tape_at_a_kink_is_no_error():
    report = check_layer(layers.ReLU(), np.array([[-1.0, 0.0, 2.0]]))
    assert report.passed
    assert report.rows[0].verdict == "kink" and report.rows[0].kinks == 1

    elementwise(keras.activations.relu, lambda x, y: keras.ops.cast(x >= 0, x.dtype))
    assert not check_layer(layers.Activation("relu"), np.array([[-1.0, 0.0, 2.0]])).passed


def test_kinks_are_found_where_many_coincide():
    for layer, x in ((layers.ReLU(), np.zeros((3, 4))), (layers.MaxPooling2D(), np.ones((1, 4, 4, 1)))):
        report = check_layer(layer, x)
        assert report.passed and report.rows[0].verdict == "kink", report


class Broken(layers.Layer):
    """A dense layer whose rule lacks something."""

    def __init__(self, change, **kwargs):
        super().__init__(**kwargs)
        self.change = change

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], 3), name="w")
        self.b = self.add_weight(shape=(3,), name="b")

    def call(self, x):
        return keras.ops.matmul(x, self.w) + self.b

    def backward(self, call, dy):
        gradients = {
            "x": keras.ops.matmul(dy, keras.ops.transpose(self.w)),
            "w": Contraction("i,o->io", call.input, dy),
            "b": Contraction("o->o", dy),
        }
        gradients.update(self.change(gradients))
        return Gradients(gradients.pop("x"), **gradients)


@pytest.mark.parametrize("cls", [keras.Sequential, BackpropSequential])
@pytest.mark.parametrize(
    ("change", "blame"),
    [
        (lambda g: {"b": None}, "the gradient of '.*broken/b' is missing"),
        (lambda g: {"x": None}, "the gradient of input 0 is missing"),
        (lambda g: {"x": g["x"] * float("nan")}, "the gradient of input 0 is NaN or infinite"),
        (lambda g: {"x": g["x"] * 1.0005}, "the gradient of input 0 differs from the tape's by 5.0e-04"),
    ],
)
def test_the_rule_is_named_whatever_is_wrong_with_it(cls, change, blame):
    model = cls([keras.Input((4,)), layers.Dense(5), Broken(change, name="broken"), layers.Dense(2)])
    model.compile("sgd", "mse")
    random = np.random.default_rng(0)
    report = check_gradients(model, random.normal(size=(6, 4)), random.normal(size=(6, 2)), finite_differences=False)
    assert report.tolerance == 1e-9 and len(report.culprits) == 1
    with pytest.raises(ArithmeticError, match=rf"The rule 'Broken.backward' of '.*broken' is wrong: {blame}"):
        report.raise_if_failed()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda g: {"x": g["x"][:, :-1]}, ValueError, r"of shape \(6, 3\) for an input of shape \(6, 4\)"),
        (
            lambda g: {"w": keras.ops.ones((3, 4))},
            ValueError,
            r"of shape \(3, 4\) for the weight '.*w' of shape \(4, 3\)",
        ),
        (lambda g: {"c": keras.ops.ones(3)}, ValueError, "a gradient for 'c', which is no weight of the layer"),
    ],
)
def test_a_rule_that_returns_nonsense_is_told_so(change, error, message):
    with pytest.raises(error, match=message):
        check_layer(Broken(change), np.ones((6, 4)))


def test_a_rule_that_returns_no_gradients_at_all_is_told_so():
    class Text(layers.Dense):
        def backward(self, call, dy):
            return "dx"

    with pytest.raises(TypeError, match="The rule '.*Text.backward' of '.*' must return `Gradients"):
        check_layer(Text(2), np.ones((6, 4)))


def test_loss_weights_and_dicts_are_exact():
    a, b = keras.Input((5,), name="a"), keras.Input((3,), dtype="int32", name="b")
    h = layers.Concatenate()([layers.Dense(4)(a), layers.Flatten()(layers.Embedding(7, 2)(b))])
    outputs = {"p": layers.Dense(3, activation="softmax", name="p")(h), "q": layers.Dense(1, name="q")(h)}
    model = keras.Model({"a": a, "b": b}, outputs)
    losses = {"p": "sparse_categorical_crossentropy", "q": "mse"}
    model.compile("sgd", losses, loss_weights={"p": 0.3, "q": 2.0})
    random = np.random.default_rng(0)
    x = {"a": random.normal(size=(6, 5)), "b": random.integers(0, 7, (6, 3))}
    y = {"p": random.integers(0, 3, 6), "q": random.normal(size=(6, 1))}
    check_gradients(model, x, y, {name: random.uniform(size=6) for name in y}).raise_if_failed()


def test_an_overridden_compute_loss_is_checked():
    class Own(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.ops.mean(keras.ops.square(y - y_pred)) * 2

    inputs = keras.Input((5,))
    model = Own(inputs, layers.Dense(2)(inputs))
    model.compile("sgd", "mse")
    check_gradients(model, np.ones((4, 5), "float32"), np.ones((4, 2), "float32")).raise_if_failed()


def test_a_stock_model_can_be_checked_and_is_not_changed():
    inputs = keras.Input((4,))
    h = layers.Dropout(0.5, seed=1)(layers.Dense(6, activation="relu", activity_regularizer="l2")(inputs))
    model = keras.Model(inputs, layers.Dense(2, kernel_regularizer="l1")(h))
    model.compile("adam", "mse")
    random = np.random.default_rng(1)
    x, y = random.normal(size=(7, 4)), random.normal(size=(7, 2))
    before = [np.array(keras.ops.convert_to_numpy(v)) for v in model.variables]
    check_gradients(model, x, y, sample_weight=random.uniform(size=7)).raise_if_failed()
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
        assert variable.dtype == ("float32" if "seed" not in variable.path else variable.dtype)
    assert model.layers[1].compute_dtype == "float32" and keras.config.floatx() == "float32"


def test_inputs_are_given_as_the_layer_is_called():
    a, b = np.random.default_rng(0).normal(size=(2, 3, 4))
    report = check_layer(layers.Add(), [a, b])
    assert [row.path for row in report.rows] == ["input 0", "input 1"] and report.passed
    check_layer(layers.Dropout(0.5), a, training=True).raise_if_failed()


def test_a_layer_with_penalties_is_checked_with_them():
    layer = layers.Dense(3, activity_regularizer="l2")
    plain = layers.Dense(3)
    x = np.random.default_rng(0).normal(size=(5, 4))
    layer.build((None, 4))
    plain.build((None, 4))
    plain.set_weights(layer.get_weights())
    check_layer(layer, x).raise_if_failed()


def test_single_precision_inside_loosens_the_tolerance_and_says_so():
    class Single(layers.Layer):
        def call(self, x):
            return keras.ops.cast(keras.ops.cast(x, "float32") * 3.0, x.dtype)

    report = check_layer(Single(), np.ones((2, 3)), finite_differences=False)
    assert report.passed and report.tolerance == 1e-4
    assert all(np.isnan(row.difference_absolute) for row in report.rows)


def compiled(*stack):
    model = BackpropSequential([keras.Input((4,)), *stack])
    model.compile("sgd", "mse")
    return model


def test_bad_input_is_refused():
    with pytest.raises(TypeError, match=r"takes a `keras.Model`. Received: 3 \(of type int\)"):
        check_gradients(3, None, None)
    with pytest.raises(ValueError, match="is not compiled"):
        inputs = keras.Input((2,))
        check_gradients(keras.Model(inputs, layers.Dense(1)(inputs)), np.ones((3, 2)), np.ones((3, 1)))
    with pytest.raises(TypeError, match=r"takes a `keras.layers.Layer`. Received: 'dense'"):
        check_layer("dense", np.ones((2, 3)))
    with pytest.raises(
        ValueError, match=r"The targets do not fit.*y of shape \(3, 5\) for predictions of shape \(3, 2\)"
    ):
        check_gradients(compiled(layers.Dense(2)), np.ones((3, 4)), np.ones((3, 5)))
    quantized = compiled(layers.Dense(2))
    quantized.layers[0].quantize("int8")
    quantized.compile("sgd", "mse")
    with pytest.raises(ValueError, match="dense.* is quantized .*'int8'"):
        check_gradients(quantized, np.ones((3, 4)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="no floating-point output"):
        check_layer(layers.Lambda(lambda x: keras.ops.argmax(x, -1)), np.ones((2, 3)))
    with pytest.raises(MissingRuleError, match="no gradient"):
        check_layer(layers.Lambda(lambda x: tf.raw_ops.Lu(input=x)[0]), np.eye(3)[None])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_reported_as_that(value):
    model = compiled(layers.Dense(3, name="hidden"), layers.Dense(1))
    x = np.ones((4, 4))
    x[2, 1] = value
    report = check_gradients(model, x, np.ones((4, 1)))
    assert {row.verdict for row in report.rows if "hidden/kernel" in row.path} == {"not finite"}
    assert report.passed and "nothing to compare" in str(report)


def test_a_derivative_that_is_infinite_is_reported_as_that():
    report = check_layer(layers.Activation(keras.ops.sqrt), np.array([[0.0, 1.0]]))
    assert [row.verdict for row in report.rows] == ["not finite"]


def test_one_tensor_given_as_two_inputs():
    x = tf.constant([[1.0, 2.0]])
    assert check_layer(layers.Multiply(), [x, x]).passed


@pytest.mark.usefixtures("registry_restored")
def test_a_forward_rule_that_is_a_thousandth_wrong_is_told_of():
    class Doubled(layers.Layer):
        def call(self, x):
            return 2 * x

    @forward_rule(Doubled)
    def inexactly(op, x):
        return 2.002 * x, {}

    @backward_rule(Doubled)
    def doubled(call, dy):
        return Gradients(2 * dy)

    report = check_layer(Doubled(name="twice"), np.array([[1.0, 2.0]]))
    assert not report.passed
    assert "one of the forward rules of 'twice' is wrong" in str(report)


@pytest.mark.usefixtures("registry_restored")
@pytest.mark.parametrize(("x", "ours"), [(0.0, 1.0), (1.0, float("inf"))], ids=["the layer is not", "it is not"])
def test_where_one_forward_pass_is_finite_and_the_other_is_not(x, ours):
    class Quotient(layers.Layer):
        def call(self, x):
            return x / x

    @forward_rule(Quotient)
    def constant_too(op, x):
        return tf.fill(tf.shape(x), tf.constant(ours, x.dtype)), {}

    @backward_rule(Quotient)
    def constant(call, dy):
        return Gradients(tf.zeros_like(dy))

    report = check_layer(Quotient(name="quotient"), np.array([[x]]), finite_differences=False)
    assert "one of the forward rules of 'quotient' is wrong" in str(report)


def times_noise(x):
    return x * tf.random.uniform(tf.shape(x), 0.5, 1, x.dtype)


@pytest.mark.parametrize(
    ("draw", "verdict"),
    [(lambda x: x + tf.random.normal(tf.shape(x), dtype=x.dtype), "ok"), (times_noise, "random")],
    ids=["a sum", "a product"],
)
def test_a_layer_that_draws_anew_each_time_is_not_wrong(draw, verdict):
    report = check_layer(layers.Lambda(draw), np.ones((2, 3)))
    assert report.passed and report.rows[0].verdict == verdict, report
    assert ("not comparable" in str(report)) == (verdict == "random")


@pytest.mark.parametrize("between", [times_noise, lambda x: 2 * x], ids=["random", "the same"])
def test_a_wrong_rule_is_named_where_operations_without_a_rule_follow(between):
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(4, "tanh", name="a"), layers.Lambda(between), layers.Dense(2)]
    )
    model.compile("sgd", "mse", run_eagerly=True)
    x, y = np.random.default_rng(0).normal(size=(8, 5)), np.ones((8, 2))
    assert check_gradients(model, x, y, finite_differences=False).passed
    with use_rules({keras.activations.tanh: lambda call, dy: Gradients(1.001 * dy * (1 - call.output**2))}):
        report = check_gradients(model, x, y, finite_differences=False)
    assert not report.passed
    assert [(culprit.path.partition("/")[2], culprit.what) for culprit in report.culprits] == [
        ("a/tanh", "the gradient of input 0")
    ]


def test_rules_of_compile_are_checked():
    model = digits_mlp()
    model.compile("sgd", model.loss, rules={keras.activations.tanh: lambda call, dy: Gradients(dy)})
    assert [culprit.path for culprit in check_gradients(model, *digits()).culprits] == ["second/tanh"]


def test_a_gradient_that_tensorflow_was_told_to_take_is_told_of():
    @tf.custom_gradient
    def sine(x):
        return tf.sin(x), lambda dy: 2 * dy

    report = check_layer(layers.Lambda(sine), np.array([[1.0, 2.0]]))
    assert not report.passed and not report.culprits
    assert "The tape says the same" in str(report) and "`tf.custom_gradient`" in str(report)


def test_outputs_in_single_precision_are_compared_as_exactly():
    class Beside(keras.layers.Layer):
        def call(self, x):
            return x, keras.ops.cast(keras.ops.arange(3000) / 7, "float32")

    report = check_layer(Beside(), np.ones((2, 3), "float32"), finite_differences=False)
    assert report.passed, report
