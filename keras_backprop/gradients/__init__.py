"""What the optimizer receives: `compile(gradients=…)` takes a function `Backward -> list of gradients`.

    model.compile("adam", "mse", gradients=keras_backprop.gradients.ByPath({"encoder/*": 0.1}))

The list is in the order of the model's trainable weights. `fit` stays what it is, its compiled loop included.
"""

from keras_backprop.example_statistics import example_cosines, gradient_noise_scale, gradient_variance
from keras_backprop.gradients.by_example import ClippedByExample
from keras_backprop.gradients.by_path import ByPath, Noise, centralized

__all__ = [
    "ByPath",
    "ClippedByExample",
    "Noise",
    "centralized",
    "example_cosines",
    "gradient_noise_scale",
    "gradient_variance",
]
