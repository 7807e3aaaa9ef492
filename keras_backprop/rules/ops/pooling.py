"""`keras.ops` that pool, by the rules of the layers."""

from keras_backprop._keras import ops
from keras_backprop.registry import backward_rule, forward_rule
from keras_backprop.rules.layers import adaptive_pooling, pooling

backward_rule(ops.MaxPool)(pooling.max_pool)
backward_rule(ops.AveragePool)(pooling.average_pool)
forward_rule(ops.AdaptiveAveragePool)(adaptive_pooling.adaptive_average_forward)
backward_rule(ops.AdaptiveAveragePool)(adaptive_pooling.adaptive_average)
forward_rule(ops.AdaptiveMaxPool)(adaptive_pooling.adaptive_max_forward)
backward_rule(ops.AdaptiveMaxPool)(adaptive_pooling.adaptive_max)
