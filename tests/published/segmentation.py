"""Segmentation: a U-Net with separable convolutions and residuals; dilated pyramids; losses of overlap; weights of pixels."""

import keras
import tensorflow as tf
from keras import layers, ops

from tests.published import batches, fit, integers, numbers

X, MASKS = numbers(17, 8, 8, 3), integers(3, 17, 8, 8)


def unet(k):
    inputs = keras.Input((8, 8, 3))
    x = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(4, 3, strides=2, padding="same")(inputs)))
    previous = x
    for filters in (5, 6):
        x = layers.BatchNormalization()(
            layers.SeparableConv2D(filters, 3, padding="same")(layers.Activation("relu")(x))
        )
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        x = previous = layers.add([x, layers.Conv2D(filters, 1, strides=2, padding="same")(previous)])
    for filters in (6, 5, 4):
        x = layers.BatchNormalization()(
            layers.Conv2DTranspose(filters, 3, padding="same")(layers.Activation("relu")(x))
        )
        x = layers.UpSampling2D(2)(x)
        x = previous = layers.add([x, layers.Conv2D(filters, 1, padding="same")(layers.UpSampling2D(2)(previous))])
    return k.Model(inputs, layers.Conv2D(3, 3, activation="softmax", padding="same")(x))


def train(k):
    model = unet(k)
    model.compile(keras.optimizers.Adam(1e-3, epsilon=1e-3), "sparse_categorical_crossentropy")
    return fit(model, batches(X, MASKS), validation_data=(X, MASKS))


def train_weighted(k):
    """Each pixel has a weight; dice and cross-entropy in one function."""

    def loss(y, p):
        y = tf.one_hot(tf.cast(tf.squeeze(y, -1), "int32"), 3)
        dice = 1 - tf.reduce_mean(
            2 * tf.reduce_sum(y * p, axis=(1, 2)) / (tf.reduce_sum(y + p, axis=(1, 2)) + 1e-3), axis=-1
        )
        return keras.losses.categorical_crossentropy(y, p) + dice[:, None, None]

    model = unet(k)
    model.compile(keras.optimizers.SGD(0.02, nesterov=True, momentum=0.9), loss)
    return fit(model, batches(X, MASKS[..., None], 0.5 + abs(numbers(17, 8, 8, seed=2))))


def train_pyramid(k):
    """Dilated convolutions side by side, pooled features resized back, skips; half precision, eagerly, for compiled no two ways round alike."""
    keras.config.set_dtype_policy("mixed_bfloat16")

    def block(x, filters=4, size=3, rate=1):
        x = layers.Conv2D(
            filters, size, dilation_rate=rate, padding="same", use_bias=False, kernel_initializer="he_normal"
        )(x)
        return ops.nn.relu(layers.BatchNormalization()(x))

    inputs = keras.Input((8, 8, 3))
    low = block(inputs)
    x = block(layers.AveragePooling2D(2)(low))
    pooled = layers.UpSampling2D(4, interpolation="bilinear")(block(layers.AveragePooling2D(4)(x), size=1))
    x = layers.Concatenate(axis=-1)([pooled, block(x, size=1), block(x, rate=2), block(x, rate=3)])
    x = layers.UpSampling2D(2, interpolation="bilinear")(block(x, size=1))
    x = layers.Concatenate(axis=-1)([x, block(low, filters=3, size=1)])
    model = k.Model(inputs, layers.Conv2D(3, 1, padding="same", dtype="float32")(block(x)))
    model.compile(
        keras.optimizers.SGD(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.MeanIoU(3, sparse_y_pred=False)],
        run_eagerly=True,
    )
    return fit(model, batches(X, MASKS), epochs=3)


def train_refined(k):
    """Several supervised outputs of one list, losses by position, a structural similarity from `tf.image`."""

    class Basnet(keras.losses.Loss):
        def call(self, y, p):
            cross = keras.losses.binary_crossentropy(y, p)
            ssim = 1 - tf.image.ssim(y, p, 1.0, filter_size=3)
            inter = ops.sum(y * p, axis=(1, 2, 3))
            iou = 1 - (inter + 1) / (ops.sum(y + p, axis=(1, 2, 3)) - inter + 1)
            return ops.mean(cross) + ops.mean(ssim) + ops.mean(iou)

    inputs = keras.Input((8, 8, 3))
    a = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    b = layers.Conv2D(4, 3, padding="same", activation="relu")(layers.MaxPool2D(2)(a))
    out_b = layers.Activation("sigmoid", name="coarse")(
        layers.UpSampling2D(2, interpolation="bilinear")(layers.Conv2D(1, 3, padding="same")(b))
    )
    out_a = layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="fine")(layers.Concatenate()([a, out_b]))
    model = k.Model(inputs, [out_a, out_b])
    model.compile(keras.optimizers.Adam(1e-2, epsilon=1e-3), Basnet(), metrics=[["mae"], ["mae"]])
    y = (MASKS[..., None] > 0).astype("float32")
    return fit(model, batches(X, (y, y)))
