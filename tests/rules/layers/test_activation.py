"""The rules of `rules/layers/activation.py`."""

import numpy as np
import pytest
from keras import layers

from tests.checking import Case, check_rule

KINKS = np.array([[-1.5, 0.0, 0.3, float(np.float32(0.3)), 2.0, 6.0]])

CASES = [
    Case("activation", lambda: layers.Activation("elu")),
    Case("activation-layer", lambda: layers.Activation(layers.ReLU(max_value=1.0))),
    Case("relu", lambda: layers.ReLU()),
    Case("relu-cap", lambda: layers.ReLU(max_value=0.7)),
    Case("relu-cap-6", lambda: layers.ReLU(max_value=6)),
    Case("relu-slope", lambda: layers.ReLU(negative_slope=0.1)),
    Case("relu-threshold", lambda: layers.ReLU(threshold=0.3)),
    Case("relu-everything", lambda: layers.ReLU(max_value=2.0, negative_slope=0.1, threshold=0.3), ((3, 4, 2),)),
    Case("relu-kinks", lambda: layers.ReLU(), (KINKS,), differences=False),
    Case("relu-all-kinks", lambda: layers.ReLU(2.0, 0.1, 0.3), (KINKS,), differences=False),
    Case("leaky", lambda: layers.LeakyReLU()),
    Case("leaky-slope", lambda: layers.LeakyReLU(0.1)),
    Case("leaky-kinks", lambda: layers.LeakyReLU(), (KINKS,), differences=False),
    Case("elu", lambda: layers.ELU()),
    Case("elu-alpha", lambda: layers.ELU(0.3)),
    Case("elu-kinks", lambda: layers.ELU(0.3), (KINKS,), differences=False),
    Case("prelu", lambda: layers.PReLU()),
    Case("prelu-kinks", lambda: layers.PReLU(), (KINKS,), differences=False),
    Case("prelu-positions", lambda: layers.PReLU(), ((4, 3, 2),)),
    Case("prelu-shared", lambda: layers.PReLU(shared_axes=[1, 2]), ((3, 2, 4, 5),)),
    Case("prelu-shared-one", lambda: layers.PReLU(shared_axes=2), ((3, 2, 4),)),
    Case("prelu-shared-all", lambda: layers.PReLU(shared_axes=[1, 2]), ((3, 2, 4),)),
    Case("prelu-axis-of-one", lambda: layers.PReLU(), ((3, 1, 4),)),
    Case("prelu-line", lambda: layers.PReLU(shared_axes=[1]), ((6, 5),)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rule(case):
    check_rule(case)


def test_prelu_with_unknown_sizes():
    """Spatial axes that share their alpha may be unknown when the step is compiled."""
    import keras

    from keras_backprop import BackpropModel

    weights = []
    for cls in (keras.Model, BackpropModel):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((None, 3))
        model = cls(inputs, layers.PReLU("normal", shared_axes=[1])(inputs))
        model.compile("sgd", "mse")
        for positions in (4, 5, 6):
            x = np.random.default_rng(positions).normal(size=(2, positions, 3))
            model.train_on_batch(x, x)
        weights.append(model.get_weights())
    np.testing.assert_allclose(weights[1][0], weights[0][0], rtol=1e-6)
    assert weights[1][0].shape == (1, 3)
