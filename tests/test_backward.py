"""`backward`: gradients, deltas and single examples, against the tape."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import keras_backprop

pytestmark = pytest.mark.usefixtures("double_precision")

X = np.random.default_rng(0).normal(size=(6, 5))
Y = np.random.default_rng(1).normal(size=(6, 2))


def network(penalty=None):
    inputs = keras.Input((5,))
    shared = layers.Dense(5, "tanh", name="shared", kernel_regularizer=penalty)
    outputs = layers.Dense(2, name="out")(shared(shared(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(), "mse")
    return model


def tapes(model, x, y):
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = model.compute_loss(y=tf.constant(y), y_pred=model(x, training=True))
    return loss, tape.gradient(loss, [*(v.value for v in model.trainable_weights), x])


def test_the_gradients_in_the_scope_of_a_strategy_are_those_outside():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = network("l2")
        inside = keras_backprop.backward(model, X, Y)
    for one, other in zip(inside.gradients, keras_backprop.backward(model, X, Y).gradients, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("compiled", [False, True])
def test_the_gradients_are_the_tapes(compiled):
    model = network("l2")

    def run(x, y):
        result = keras_backprop.backward(model, x, y)
        return result.loss, result.gradients, result.inputs

    loss, gradients, inputs = (tf.function(run) if compiled else run)(tf.constant(X), tf.constant(Y))
    expected_loss, expected = tapes(model, X, Y)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-13)
    for ours, theirs in zip([*gradients, *inputs], expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)


def test_deltas_are_the_gradients_at_z_one_for_each_use():
    model = network()
    result = keras_backprop.backward(model, X, Y)
    out, (first, second) = result.deltas["out"], result.deltas["shared"]
    np.testing.assert_allclose(out[0], 2 * (result.y_pred - Y) / Y.size, rtol=1e-12)
    kernel, bias = model.get_layer("shared").get_weights()
    a1 = np.tanh(X @ kernel + bias)
    a2 = np.tanh(a1 @ kernel + bias)
    np.testing.assert_allclose(second, out[0] @ model.get_layer("out").get_weights()[0].T * (1 - a2**2), rtol=1e-10)
    np.testing.assert_allclose(first, second @ kernel.T * (1 - a1**2), rtol=1e-10)


def test_single_examples_are_those_of_batches_of_one():
    model = network("l1")
    result = keras_backprop.backward(model, X, Y)
    norms = np.zeros(len(X))
    without = network()
    without.set_weights(model.get_weights())
    for variable, plain in zip(model.trainable_weights, without.trainable_weights, strict=True):
        each = result.per_example(variable.path)
        for n in range(len(X)):
            one = keras_backprop.backward(without, X[n : n + 1], Y[n : n + 1]).gradient(plain)
            np.testing.assert_allclose(each[n], one / len(X), rtol=1e-10, atol=1e-15)
        norms += np.sum(np.square(each), axis=tuple(range(1, each.ndim)))
        np.testing.assert_allclose(
            result.squared_norms(variable), np.sum(np.square(each), axis=tuple(range(1, each.ndim))), rtol=1e-10
        )
    np.testing.assert_allclose(result.squared_norms(), norms, rtol=1e-10)


def test_weighted_examples_leave_penalties_alone():
    model = network("l2")
    result = keras_backprop.backward(model, X, Y)
    for ours, theirs in zip(result.weighted(np.ones(6)), result.gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-15)
    c = np.arange(6.0)
    for ours, theirs in zip(
        result.weighted(c), keras_backprop.backward(model, X, Y, sample_weight=c).gradients, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-15)


def test_no_weight_moves_and_integers_have_no_gradient():
    model = keras.Sequential(
        [keras.Input((4,), dtype="int32"), layers.Embedding(9, 3), layers.Flatten(), layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    before = model.get_weights()
    result = keras_backprop.backward(model, np.ones((3, 4), "int32"), np.ones((3, 1)))
    assert result.inputs == [None] and result.gradient(model.layers[0].embeddings).shape == (9, 3)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_loss_that_is_traced_when_it_is_built():
    """Keras builds a loss by tracing it in a graph of its own; the branch in this one calls a custom gradient there."""
    model = network()
    model.compile("sgd", "hinge")
    result = keras_backprop.backward(model, X, np.sign(Y))
    _, expected = tapes(model, X, np.sign(Y))
    for one, other in zip([*result.gradients, *result.inputs], expected, strict=True):
        np.testing.assert_allclose(one, other, 1e-12, 1e-14)


def test_what_is_refused():
    with pytest.raises(TypeError, match=r"takes a `keras.Model`. Received: 3 \(of type int\)"):
        keras_backprop.backward(3, X, Y)
    with pytest.raises(ValueError, match="is not compiled"):
        keras_backprop.backward(keras.Sequential([keras.Input((5,)), layers.Dense(2)]), X, Y)
    result = keras_backprop.backward(network(), X, Y)
    with pytest.raises(KeyError, match="There is no weight 'kernel'. Available: 'shared/kernel'"):
        result.gradient("kernel")
    model = keras.Sequential([keras.Input((5,)), layers.BatchNormalization(), layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="no gradient per example"):
        keras_backprop.backward(model, X, Y).squared_norms()


def test_a_model_that_the_batch_builds():
    x, y = keras.random.normal((4, 3)), keras.random.normal((4, 1))
    model = keras.Sequential([layers.Dense(2), layers.Dense(1)])
    model.compile(loss="mse")
    result = keras_backprop.backward(model, x, y)
    assert [tuple(g.shape) for g in result.gradients] == [(3, 2), (2,), (2, 1), (1,)]


def test_a_weight_that_the_error_does_not_depend_on():
    inputs = keras.Input((5,))
    used, unused = (layers.Dense(2, name=name) for name in ("used", "unused"))
    model = keras.Model(inputs, {"used": used(inputs), "unused": unused(inputs)})
    model.compile(keras.optimizers.SGD(), {"used": "mse"})
    result = keras_backprop.backward(model, X, {"used": Y})
    assert result.gradient("unused/kernel") is None
    assert result.per_example("unused/kernel") is None and result.squared_norms("unused/kernel") is None
    alone = result.squared_norms("used/kernel") + result.squared_norms("used/bias")
    np.testing.assert_allclose(result.squared_norms(), alone, rtol=1e-12)


def test_threads_do_not_disturb_each_other():
    """Eagerly, where TensorFlow keeps for the process what is meant for a thread."""
    model, found = network(), []
    expected = keras_backprop.backward(model, X, Y).gradients

    def passes():
        found.extend(keras_backprop.backward(model, X, Y).gradients for _ in range(4))

    threads = [threading.Thread(target=passes, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(found) == 24
    for gradients in found:
        for one, other in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
    assert tf.config.functions_run_eagerly() is False


def test_functions_of_other_threads_stay_functions():
    """And what another thread tells TensorFlow in the meantime is not for the pass, and stands."""
    traced, flag, within, done = [], [], threading.Event(), threading.Event()

    @tf.function
    def f():
        traced.append(not tf.executing_eagerly())
        return 0

    def elsewhere():
        within.wait(60)
        f()
        flag.append(tf.config.functions_run_eagerly())
        tf.config.run_functions_eagerly(False)
        done.set()

    def error(p):
        within.set()
        assert done.wait(60)
        flag.append(tf.config.functions_run_eagerly())
        f()
        return p

    thread = threading.Thread(target=elsewhere, daemon=True)
    thread.start()
    keras_backprop.backward(network(), X, loss=error)
    thread.join(60)
    assert traced == [True, False] and not any(flag) and {type(one) for one in flag} == {bool}
    assert not f() and traced == [True, False]


def test_what_is_set_in_another_thread_during_a_pass_stands():
    def error(p):
        thread = threading.Thread(target=tf.config.run_functions_eagerly, args=(True,), daemon=True)
        thread.start()
        thread.join(60)
        return p

    try:
        keras_backprop.backward(network(), X, loss=error)
        assert tf.config.functions_run_eagerly() is True
    finally:
        tf.config.run_functions_eagerly(False)
