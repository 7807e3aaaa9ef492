"""The few TensorFlow kernels that `keras.ops` has no name for. Rules stay readable, `tf.raw_ops` stays here."""

import keras
import tensorflow as tf

from keras_backprop import _tensorflow


def relu_grad(y, dy):
    """dy where y > 0, else 0, in one pass."""
    return tf.raw_ops.ReluGrad(gradients=dy, features=y)


def relu6_grad(y, dy):
    return tf.raw_ops.Relu6Grad(gradients=dy, features=y)


def leaky_relu_grad(x, dy, slope):
    return tf.raw_ops.LeakyReluGrad(gradients=dy, features=x, alpha=float(slope))


def elu_grad(y, dy):
    return tf.raw_ops.EluGrad(gradients=dy, outputs=y)


def selu_grad(y, dy):
    return tf.raw_ops.SeluGrad(gradients=dy, outputs=y)


def sigmoid_grad(y, dy):
    """dy·y·(1 − y)"""
    return tf.raw_ops.SigmoidGrad(y=y, dy=dy)


def tanh_grad(y, dy):
    """dy·(1 − y²)"""
    return tf.raw_ops.TanhGrad(y=y, dy=dy)


def softplus_grad(x, dy):
    return tf.raw_ops.SoftplusGrad(gradients=dy, features=x)


def softsign_grad(x, dy):
    return tf.raw_ops.SoftsignGrad(gradients=dy, features=x)


def bias_grad(dy):
    """Σ dy over all axes but the last."""
    return tf.raw_ops.BiasAddGrad(out_backprop=dy)


def softmax_minus_one_hot(logits, classes):
    """softmax(z) − one_hot(t) for logits (rows, classes) and integer labels (rows,), as the cross-entropy's forward kernel
    gives it."""
    return tf.raw_ops.SparseSoftmaxCrossEntropyWithLogits(features=logits, labels=classes).backprop


# Elementwise operations.


def sqrt_grad(y, dy):
    """dy/(2y)"""
    return tf.raw_ops.SqrtGrad(y=y, dy=dy)


def rsqrt_grad(y, dy):
    """−dy·y³/2"""
    return tf.raw_ops.RsqrtGrad(y=y, dy=dy)


def reciprocal_grad(y, dy):
    """−dy·y²"""
    return tf.raw_ops.ReciprocalGrad(y=y, dy=dy)


# Normalisation


def fused_batch_norm(x, scale, offset, epsilon):
    """Normalise (rows, 1, 1, channels) by the statistics of the batch, in one kernel.

    Returns:
        y, the mean, the *unbiased* variance, and what `fused_batch_norm_grad` needs.
    """
    empty = tf.zeros([0], scale.dtype)
    y, mean, variance, *reserve = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=scale, offset=offset, mean=empty, variance=empty, epsilon=epsilon, is_training=True
    )
    return y, mean, variance, reserve


def fused_batch_norm_grad(x, dy, scale, epsilon, reserve):
    """dx, dscale and doffset of `fused_batch_norm`."""
    return tf.raw_ops.FusedBatchNormGradV3(
        y_backprop=dy, x=x, scale=scale, epsilon=epsilon, is_training=True,
        reserve_space_1=reserve[0], reserve_space_2=reserve[1], reserve_space_3=reserve[2],
    )[:3]  # fmt: skip


def mirror_pad_grad(dy, paddings, mode):
    """dy without its border, the border's part added to what it mirrors; mode "REFLECT" or "SYMMETRIC"."""
    return tf.raw_ops.MirrorPadGrad(input=dy, paddings=paddings, mode=mode)


def strided_slice_grad(dy, shape, begin, end, strides, **masks):
    """dy laid where x[begin:end:strides] was, in zeros of the given shape."""
    dtype = shape.dtype
    begin, end, strides = (tf.stack([tf.cast(part, dtype) for part in parts]) for parts in (begin, end, strides))
    return tf.raw_ops.StridedSliceGrad(shape=shape, begin=begin, end=end, strides=strides, dy=dy, **masks)


# Convolution and pooling: channels last, two or three spatial axes. `sizes` is the shape of the gradient that is asked for,
# `padding` is "SAME", "VALID" or a pair (before, after) for each spatial axis.


def _groups(channels, of_one):
    """How many groups a convolution has; where data do not say their channels, it is left to TensorFlow's kernel."""
    return channels // of_one if isinstance(channels, int) and isinstance(of_one, int) else 1


def convolution_dx(sizes, W, dy, strides, padding):
    """∂E/∂x of y = W ∗ x."""
    groups = _groups(sizes[-1], W.shape[-2])
    if groups > 1:  # TensorFlow's kernels know no groups on a CPU, and XLA's are up to a hundred times slower than this
        sizes = [*sizes[:-1], W.shape[-2]]
        pairs = zip(tf.split(W, groups, -1), tf.split(dy, groups, -1), strict=True)
        return tf.concat([convolution_dx(sizes, *pair, strides, padding) for pair in pairs], -1)
    kernel = tf.raw_ops.Conv2DBackpropInput if len(strides) == 2 else tf.raw_ops.Conv3DBackpropInputV2
    return kernel(input_sizes=sizes, filter=W, out_backprop=dy, strides=[1, *strides, 1], **_padding(padding))


def convolution_dW(x, sizes, dy, strides, padding):
    """∂E/∂W of y = W ∗ x."""
    groups = _groups(x.shape[-1], sizes[-2])
    if groups > 1:
        sizes = [*sizes[:-1], sizes[-1] // groups]
        pairs = zip(tf.split(x, groups, -1), tf.split(dy, groups, -1), strict=True)
        return tf.concat([convolution_dW(x, sizes, dy, strides, padding) for x, dy in pairs], -1)
    kernel = tf.raw_ops.Conv2DBackpropFilter if len(strides) == 2 else tf.raw_ops.Conv3DBackpropFilterV2
    return kernel(input=x, filter_sizes=sizes, out_backprop=dy, strides=[1, *strides, 1], **_padding(padding))


def depthwise_convolution_dx(sizes, W, dy, strides, padding):
    """∂E/∂x of a depthwise convolution with two spatial axes and equal strides."""
    return tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
        input_sizes=sizes, filter=W, out_backprop=dy, strides=[1, *strides, 1], **_padding(padding)
    )


def depthwise_convolution_dW(x, sizes, dy, strides, padding):
    """∂E/∂W of a depthwise convolution with two spatial axes and equal strides."""
    return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=x, filter_sizes=sizes, out_backprop=dy, strides=[1, *strides, 1], **_padding(padding)
    )


def max_pool_grad(x, y, dy, window, strides, padding):
    """dy where x was the (first) largest of its window, summed over the windows."""
    if len(window) == 3 and x.dtype == tf.float64:
        return _max_pool_grad_by_planes(x, y, dy, window, strides, padding)
    options = {"ksize": [1, *window, 1], "strides": [1, *strides, 1], "padding": padding}
    if len(window) == 3:
        return tf.raw_ops.MaxPool3DGrad(orig_input=x, orig_output=y, grad=dy, **options)
    if isinstance(x, _tensorflow.EagerTensor) and x.dtype == tf.float32 and tf.size(x) > _LARGE and "CPU" in x.device:
        with _tensorflow.functions_run_eagerly(False):
            return _max_pool_and_grad(x, dy, window, strides, padding)
    return tf.raw_ops.MaxPoolGrad(orig_input=x, orig_output=y, grad=dy, **options)


_LARGE = 2**17
"""So many numbers that the kernel takes longer than the call of a function."""


@tf.function(autograph=False, reduce_retracing=True)
def _max_pool_and_grad(x, dy, window, strides, padding):
    """In one function oneDNN's kernels note where the largest are. By itself TensorFlow's looks for them anew: ten times as long.

    (Of volumes these give the gradient to all that are largest, and oneDNN's to the first.)
    """
    options = {"ksize": [1, *window, 1], "strides": [1, *strides, 1], "padding": padding}
    return tf.raw_ops.MaxPoolGrad(orig_input=x, orig_output=tf.raw_ops.MaxPool(input=x, **options), grad=dy, **options)


def average_pool_grad(sizes, dy, window, strides, padding):
    """dy / (size of the window), summed over the windows; padded positions do not count."""
    if len(window) == 3 and dy.dtype == tf.float64:
        return _average_pool_grad_by_planes(sizes, dy, window, strides, padding)
    kernel = tf.raw_ops.AvgPoolGrad if len(window) == 2 else tf.raw_ops.AvgPool3DGrad
    return kernel(orig_input_shape=sizes, grad=dy, ksize=[1, *window, 1], strides=[1, *strides, 1], padding=padding)


# TensorFlow pools volumes in double precision nowhere. To pool them is to pool planes and then lines through the planes.


def _max_pool_grad_by_planes(x, y, dy, window, strides, padding):
    (n, depth, *plane, c), flat = keras.ops.shape(x), (window[1:], strides[1:], padding)
    x = tf.reshape(x, [n * depth, *plane, c])
    u = tf.nn.max_pool2d(x, *flat)
    columns, line = keras.ops.shape(y)[2] * keras.ops.shape(y)[3], (window[:1] + (1,), strides[:1] + (1,), padding)
    du = max_pool_grad(*(tf.reshape(value, [n, -1, columns, c]) for value in (u, y, dy)), *line)  # type: ignore[call-arg]
    return tf.reshape(max_pool_grad(x, u, tf.reshape(du, tf.shape(u)), *flat), [n, depth, *plane, c])


def _average_pool_grad_by_planes(sizes, dy, window, strides, padding):
    n, depth, *plane, c = sizes
    height, width = keras.ops.shape(dy)[2:4]
    line, dy = [n, depth, height * width, c], tf.reshape(dy, [n, -1, height * width, c])
    du = average_pool_grad(line, dy, window[:1] + (1,), strides[:1] + (1,), padding)
    du = tf.reshape(du, [n * depth, height, width, c])
    return tf.reshape(average_pool_grad([n * depth, *plane, c], du, window[1:], strides[1:], padding), sizes)


def resize_grad(x, dy, interpolation, antialias=False):
    """The adjoint of `tf.image.resize`, channels last. It computes in float32, whatever x is."""
    dy = tf.cast(dy, tf.float32)
    if interpolation != "bilinear" and x.dtype.size < 4:
        x = tf.cast(x, tf.float32)
    if interpolation == "nearest":
        return tf.raw_ops.ResizeNearestNeighborGrad(grads=dy, size=tf.shape(x)[1:3], half_pixel_centers=True)
    if interpolation == "bilinear" and not antialias:
        return tf.raw_ops.ResizeBilinearGrad(grads=dy, original_image=x, half_pixel_centers=True)
    if interpolation == "bicubic" and not antialias:
        return tf.raw_ops.ResizeBicubicGrad(grads=dy, original_image=x, half_pixel_centers=True)
    scale = tf.cast(tf.shape(dy)[1:3], tf.float32) / tf.cast(tf.shape(x)[1:3], tf.float32)
    return tf.raw_ops.ScaleAndTranslateGrad(
        grads=dy, original_image=tf.cast(x, tf.float32), scale=scale, translation=tf.zeros([2]), antialias=antialias,
        kernel_type={"bilinear": "triangle", "bicubic": "keyscubic"}.get(interpolation, interpolation),
    )  # fmt: skip


def _padding(padding):
    """The padding as attributes of a convolution kernel."""
    if isinstance(padding, str):
        return {"padding": padding}
    return {"padding": "EXPLICIT", "explicit_paddings": [0, 0, *(size for pair in padding for size in pair), 0, 0]}


# Losses


def ctc_loss_and_gradient(labels, logits, label_length, logit_length, blank):
    """The CTC loss of `tf.nn.ctc_loss` for logits (n, time, classes), and its gradient by the logits.

    TensorFlow's forward pass computes both; `tf.nn.ctc_loss` itself returns the loss only.
    """
    classes = logits.shape[-1] if logits.shape[-1] is not None else tf.shape(logits)[-1]
    blank = blank if blank >= 0 else blank + classes
    order = tf.concat([[blank], tf.range(blank), tf.range(blank + 1, classes)], 0)  # TensorFlow wants the blank first
    if isinstance(blank, int) and blank == 0:
        ordered = logits
    else:
        ordered = tf.gather(logits, order, axis=-1)
        labels = tf.where(labels < blank, labels + 1, labels)
    loss, gradient = _tensorflow.ctc_loss_and_grad(tf.transpose(ordered, [1, 0, 2]), labels, label_length, logit_length)
    gradient = tf.transpose(gradient, [1, 0, 2])
    return loss, gradient if ordered is logits else tf.gather(gradient, tf.argsort(order), axis=-1)
