"""Odd uses of `fit`, beside stock Keras: what callbacks do between epochs, kinds of models and of gradients that few people have."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_backprop.callbacks import LocateNaN
from tests.equality import compare
from tests.equality.models import FEATURES, NUMBERS
from tests.equality.small import compiled, fitted, small

random = np.random.default_rng(0)
IMAGES = random.normal(size=(12, 3, 6, 6)).astype("float32")


def assert_equal(program, tolerance=1e-6):
    stock, ours = (compare.run(program, classes) for classes in (compare.STOCK, compare.SUBJECTS["backprop"]))
    assert "error" not in stock, stock
    assert not compare.differences(ours, stock, tolerance)


def assert_compiled(model, expected=True):
    path = getattr(model, "fit_path", None)  # stock Keras has none
    assert path is None or path.compiled is expected, path


class AtBeginnings(keras.callbacks.Callback):
    """Acts at the beginning of an epoch, when the metrics have been reset."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def on_epoch_begin(self, epoch, logs=None):
        self.act(self.model)


@pytest.mark.parametrize("falls_back", [False, True])
def test_what_a_callback_leaves_in_the_metrics_counts(falls_back):
    def program(k):
        model = compiled(k, jit_compile=False)

        def act(model):
            model.train_on_batch(FEATURES[:5], NUMBERS[:5])
            if falls_back:
                model.run_eagerly = True  # from the next `compile` on; Keras's loop goes on meanwhile

        callback = AtBeginnings(act)
        history = fitted(model, 3, callbacks=[callback], validation_data=(FEATURES[:7], NUMBERS[:7]))
        assert_compiled(model, not falls_back)
        return compare.observe(model, history)

    assert_equal(program)


def test_weights_that_compute_loss_makes_are_the_optimizers_too():
    def program(k):
        class TwoViews(k.Model):
            def __init__(self):
                super().__init__()
                self.encoder, self.predictor = layers.Dense(4, "tanh"), layers.Dense(4)

            def call(self, x):
                return self.encoder(x), self.encoder(-x)

            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                a, b = y_pred
                return keras.ops.mean((self.predictor(a) - keras.ops.stop_gradient(b)) ** 2)

        model = TwoViews()
        model.compile("adam")
        return compare.observe(model, model.fit(FEATURES, batch_size=5, epochs=2, shuffle=False, verbose=0))

    assert_equal(program)


@pytest.mark.parametrize("activation", ["silu", "gelu", "relu"])
def test_an_activation_of_rows_of_different_lengths(activation):
    def program(k):
        class Rows(k.Model):
            def __init__(self):
                super().__init__()
                self.dense, self.activation = layers.Dense(3), layers.Activation(activation)

            def call(self, x):
                rows = tf.RaggedTensor.from_row_lengths(self.dense(x), [2, 0, 3, 1])
                return self.activation(keras.activations.get(activation)(rows)).to_tensor()[..., 0]

        model = Rows()
        model.compile("sgd", lambda y, y_pred: keras.ops.mean(y_pred**2))
        return compare.observe(model, model.fit(FEATURES[:12], NUMBERS[:12], batch_size=6, shuffle=False, verbose=0))

    assert_equal(program)


class ByHalves(keras.metrics.Mean):
    """A metric with two numbers: the mean prediction, and half of it."""

    def update_state(self, y, predictions, sample_weight=None):
        return super().update_state(predictions, sample_weight)

    def result(self):
        return {"whole": super().result(), "half": 0.5 * super().result()}


@pytest.mark.parametrize(
    "validation", [{}, {"validation_data": (FEATURES[:7], NUMBERS[:7]), "validation_freq": 2}], ids=str
)
def test_a_metric_of_several_numbers(validation):
    def program(k):
        model = compiled(k, metrics=[ByHalves(), "mae"])
        history = fitted(model, 3, **validation)
        assert_compiled(model)
        return {"order": list(history.history), **compare.observe(model, history)}

    assert_equal(program)


def test_it_counts_where_the_first_step_is_skipped():
    def histories():
        for bad in (True, False):
            keras.utils.set_random_seed(1)
            model = compiled(compare.SUBJECTS["backprop"], jit_compile=False)
            x, y = FEATURES[:48].copy(), NUMBERS[:48]
            x[3] = np.nan if bad else x[3]
            x, y = (x, y) if bad else (x[16:], y[16:])  # as if the first batch did not exist
            leaves = AtBeginnings(lambda model: model.train_on_batch(FEATURES[:5], NUMBERS[:5]))
            callbacks = [leaves, LocateNaN("skip", verbose=0)]
            yield model.fit(x, y, epochs=2, batch_size=16, shuffle=False, verbose=0, callbacks=callbacks).history
            assert model.fit_path.compiled

    found, expected = histories()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5)


class OwnList(keras.callbacks.CallbackList):
    """Acts itself, in every hook around epochs and validation."""

    def _shrink(self):
        kernel = self._model.get_layer("hidden").kernel
        kernel.assign(kernel * 0.9)

    def on_epoch_begin(self, epoch, logs=None):
        self._shrink()
        super().on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self._shrink()

    def on_test_begin(self, logs=None):
        self._shrink()
        super().on_test_begin(logs)


def test_a_list_of_callbacks_with_hooks_of_its_own():
    def program(k):
        model = compiled(k, jit_compile=False)
        callbacks = OwnList([], add_history=True, model=model, epochs=3)
        history = fitted(model, 3, callbacks=callbacks, validation_data=(FEATURES[:7], NUMBERS[:7]))
        assert_compiled(model)
        return compare.observe(model, history)

    assert_equal(program)


class EndsData(keras.callbacks.Callback):
    """Says at a batch that there are no more, as a data set of its own would that has come to its end."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            raise self.error

    on_test_batch_end = on_train_batch_end


@pytest.mark.parametrize("error", [StopIteration(), tf.errors.OutOfRangeError(None, None, "no more")], ids=type)
def test_a_callback_that_says_that_data_have_ended_ends_the_epoch(error):
    def program(k):
        model = compiled(k, jit_compile=False)
        history = fitted(model, 2, callbacks=[EndsData(error)], validation_data=(FEATURES[:40], NUMBERS[:40]))
        assert_compiled(model)
        return compare.observe(model, history)

    assert_equal(program)


def test_channels_first():
    def program(k):
        inputs = keras.Input(IMAGES.shape[1:])
        convolved = layers.Conv2D(2, 3, data_format="channels_first")(inputs)
        outputs = layers.Dense(1)(
            layers.Flatten()(layers.Conv2DTranspose(2, 3, data_format="channels_first")(convolved))
        )
        model = k.Model(inputs, outputs)
        model.compile("sgd", "mse", jit_compile=False)
        x, y = IMAGES, np.ones((12, 1))
        history = model.fit(x, y, batch_size=5, epochs=2, verbose=0, shuffle=False, validation_data=(x[:4], y[:4]))
        assert_compiled(model)
        return compare.observe(model, history)

    assert_equal(program)


@pytest.mark.parametrize(("dilation", "groups"), [(2, 1), (1, 2)], ids=["dilated", "in groups"])
def test_convolutions_in_a_step_of_ones_own(dilation, groups):
    """On a CPU TensorFlow has no kernel for their gradients in the body of a loop."""

    def program(k):
        class Taped(k.Model):
            def train_step(self, data):
                x, y = data
                with tf.GradientTape() as tape:
                    loss = self.compute_loss(y=y, y_pred=self(x, training=True))
                weights = self.trainable_variables
                self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
                return {"loss": loss}

        class Raw(layers.Conv2D):
            def call(self, x):
                return tf.nn.conv2d(x, self.kernel.value, 1, "SAME", dilations=dilation)

        inputs = keras.Input(IMAGES.shape[1:])
        below, above = (Raw(2, 2, padding="same", groups=groups) for _ in range(2))
        model = Taped(inputs, layers.Dense(1)(layers.Flatten()(above(below(inputs)))))
        model.compile("sgd", "mse", jit_compile=False)
        history = model.fit(IMAGES, np.ones((12, 1)), batch_size=5, epochs=2, verbose=0, shuffle=False)
        assert_compiled(model)
        return compare.observe(model, history)

    assert_equal(program)


class Frozen(layers.Layer):
    """A dilated convolution in front of the first trainable weight: it only runs forward."""

    def __init__(self, convolve, shape):
        super().__init__(trainable=False)
        self.convolve, self.shape = convolve, shape

    def build(self, shape):
        self.kernel = self.add_weight(shape=self.shape)

    def call(self, x):
        return self.convolve(x, self.kernel.value)


def in_two_dimensions(x, kernel):
    return tf.raw_ops.DepthwiseConv2dNative(
        input=x, filter=kernel, strides=[1] * 4, padding="SAME", dilations=[1, 2, 2, 1]
    )


def in_three_dimensions(x, kernel):
    return tf.nn.conv3d(x[..., None], kernel, [1] * 5, "SAME", dilations=[1, 2, 2, 2, 1])


@pytest.mark.parametrize(
    ("convolve", "shape"),
    [(in_two_dimensions, (2, 2, 6, 1)), (in_three_dimensions, (2, 2, 2, 1, 1))],
    ids=["depthwise", "three dimensions"],
)
def test_dilated_convolutions_that_only_run_forward(convolve, shape):
    """On a CPU TensorFlow has no kernel for them in the body of a loop."""

    def program(k):
        inputs = keras.Input(IMAGES.shape[1:])
        model = k.Model(inputs, layers.Dense(1)(layers.Flatten()(Frozen(convolve, shape)(inputs))))
        model.compile("sgd", "mse", jit_compile=False)
        history = model.fit(IMAGES, np.ones((12, 1)), batch_size=5, verbose=0, shuffle=False)
        assert_compiled(model)
        return compare.observe(model, history)

    assert_equal(program)


class Recomputes(layers.Layer):
    """Computes what it computes once more in the backward pass, and counts."""

    def build(self, shape):
        self.inner, self.dropout = layers.Dense(4, "tanh"), layers.Dropout(0.3, seed=3)
        self.inner.build(shape)
        self.w = self.add_weight(shape=(4, 3))
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def function(self, x):
        self.count.assign_add(1.0)
        return keras.ops.sin(self.dropout(keras.remat(self.inner)(x), training=True) @ self.w)

    def call(self, x):
        return keras.remat(self.function)(x) + keras.remat(tf.function(self.function))(x)


def test_recomputed_gradients_reach_the_weights_inside():
    def program(k):
        keras.config.set_floatx("float64")
        inputs = keras.Input((6,))
        model = k.Model(inputs, layers.Dense(1)(Recomputes()(inputs)))
        model.compile("sgd", "mse", jit_compile=False)
        return compare.observe(model, fitted(model, 2))

    assert_equal(program, 1e-12)


def test_what_a_gradient_of_ones_own_assigns_is_assigned():
    class Counts(layers.Layer):
        def build(self, shape):
            self.sum = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            @tf.custom_gradient
            def doubled(x):
                def backward(dy):
                    self.sum.assign_add(keras.ops.sum(dy))
                    return dy * self.sum

                return 2 * x, backward

            return doubled(x)

    def program(k):
        inputs = keras.Input((6,))
        model = k.Model(inputs, layers.Dense(1)(Counts()(layers.Dense(4)(inputs))))
        model.compile("sgd", "mse", jit_compile=False)
        return compare.observe(model, fitted(model, 2))

    assert_equal(program)


def test_a_compute_loss_that_makes_two_outputs_of_one():
    def program(k):
        class Split(k.Model):
            def compute_loss(self, x, y, y_pred, sample_weight=None, **kwargs):
                return super().compute_loss(x=x, y=y, y_pred=[y_pred, y_pred], sample_weight=sample_weight, **kwargs)

        stack = small(k)
        model = Split(stack.inputs, stack.outputs)
        model.compile("sgd", ["mse", "mae"], jit_compile=False)
        history = model.fit(FEATURES, (NUMBERS, NUMBERS), epochs=2, verbose=0, shuffle=False)
        return compare.observe(model, history)

    assert_equal(program)


def test_a_batch_without_inputs_is_refused_by_the_model():
    model = compiled(compare.SUBJECTS["backprop"])
    with pytest.raises(ValueError, match="not optional, but None was passed"):
        model.fit(None, NUMBERS, verbose=0)


def test_an_argument_that_fit_does_not_have():
    model = compiled(compare.SUBJECTS["backprop"])
    with pytest.raises(TypeError, match=r"fit\(\) got an unexpected keyword argument 'epoch'"):
        model.fit(FEATURES, NUMBERS, epoch=3)
    assert model.fit_path is None
