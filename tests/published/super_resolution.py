"""Super-resolution and enhancement: `depth_to_space`, residual towers, curves applied to light, own steps around them."""

import keras
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, numbers

LOW, HIGH = abs(numbers(17, 6, 6, 1)), abs(numbers(17, 12, 12, 1, seed=1))


def train(k):
    """Sub-pixel convolution; the function of TensorFlow inside a functional model by a layer; metric of its own."""

    class DepthToSpace(layers.Layer):
        def __init__(self, block):
            super().__init__()
            self.block = block

        def call(self, x):
            n, height, width, depth = ops.shape(x)
            x = ops.reshape(x, [n, height, width, self.block, self.block, depth // self.block**2])
            x = ops.transpose(x, [0, 1, 3, 2, 4, 5])
            return ops.reshape(x, [n, height * self.block, width * self.block, depth // self.block**2])

    options = {"activation": "relu", "kernel_initializer": "orthogonal", "padding": "same"}
    inputs = keras.Input((None, None, 1))
    x = layers.Conv2D(4, 3, **options)(layers.Conv2D(6, 5, **options)(inputs))
    model = k.Model(inputs, DepthToSpace(2)(layers.Conv2D(4, 3, **options)(x)))
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-3), keras.losses.MeanSquaredError())
    return fit(model, batches(LOW, HIGH))


def train_deep(k):
    """Residual blocks, `tf.nn.depth_to_space`, PSNR, clipping, an L1 loss; `train_step` calls super's."""

    class EDSR(k.Model):
        def train_step(self, data):
            x, y = data
            logs = super().train_step((x[:, :, ::-1], y[:, :, ::-1]))
            return {**logs, "rows": tf.cast(tf.shape(x)[0], tf.float32)}

    def psnr(y, p):
        return tf.image.psnr(y, p, max_val=2)

    inputs = keras.Input((None, None, 1))
    x = skip = layers.Conv2D(4, 3, padding="same")(layers.Rescaling(scale=1.0 / 2)(inputs))
    for _ in range(2):
        h = layers.Conv2D(4, 3, padding="same")(layers.Conv2D(4, 3, padding="same", activation="relu")(x))
        x = layers.Add()([x, h])
    x = layers.Add()([layers.Conv2D(4, 3, padding="same")(x), skip])
    x = layers.Lambda(lambda x: tf.nn.depth_to_space(x, block_size=2))(layers.Conv2D(16, 3, padding="same")(x))
    x = layers.Rescaling(scale=2.0)(layers.Conv2D(1, 3, padding="same")(x))
    model = EDSR(inputs, layers.Lambda(lambda x: tf.clip_by_value(x, -1.0, 2.0))(x))
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-3), "mae", metrics=[psnr])
    return fit(model, batches(LOW, HIGH))


def train_light(k):
    """Light enhancement without targets: four losses of the output, of the curves and of neighbourhoods."""

    class Spatial(keras.losses.Loss):
        def __init__(self):
            super().__init__(reduction="none")
            self.right = tf.constant(
                [[[[0.0]], [[0.0]], [[0.0]]], [[[0.0]], [[1.0]], [[-1.0]]], [[[0.0]], [[0.0]], [[0.0]]]]
            )

        def call(self, y_true, y_pred):
            a, b = (ops.average_pool(ops.mean(y, 3, keepdims=True), 2, padding="valid") for y in (y_true, y_pred))
            a, b = (tf.nn.conv2d(y, self.right, strides=[1, 1, 1, 1], padding="SAME") for y in (a, b))
            return tf.square(a - b)

    class Zero(k.Model):
        def __init__(self):
            super().__init__()
            self.convs = [layers.Conv2D(4, 3, padding="same", activation="relu") for _ in range(2)]
            self.out = layers.Conv2D(6, 3, padding="same", activation="tanh")
            self.spatial = Spatial()

        def call(self, x):
            a = self.convs[0](x)
            self.curves = self.out(ops.concatenate([a, self.convs[1](a)], axis=-1))
            for curve in ops.split(self.curves, 2, axis=-1):
                x = x + curve * (ops.square(x) - x)
            return x

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            c = self.curves
            smooth = ops.mean(ops.square(c[:, 1:] - c[:, :-1])) + ops.mean(ops.square(c[:, :, 1:] - c[:, :, :-1]))
            r, g, b = ops.split(ops.mean(y_pred, axis=(1, 2), keepdims=True), 3, axis=3)
            colour = ops.sqrt((r - g) ** 2 + (r - b) ** 2 + (g - b) ** 2 + 1e-6)
            exposed = ops.average_pool(ops.mean(y_pred, axis=3, keepdims=True), 4, strides=4, padding="valid")
            spatial = ops.mean(self.spatial(x, y_pred))
            return 20 * smooth + 5 * ops.mean(colour) + 10 * ops.mean((exposed - 0.6) ** 2) + spatial

    model = Zero()
    model.compile(keras.optimizers.SGD(1e-3))
    return fit(model, batches(abs(numbers(13, 8, 8, 3)) / 2))
