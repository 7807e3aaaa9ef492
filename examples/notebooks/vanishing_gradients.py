# %% [markdown]
# # Vanishing gradients, seen
# On the way back every sigmoid multiplies by a(1 − a), at most ¼. Six layers down little is left.

# %%
import keras
import numpy as np

import keras_backprop

keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
keras.utils.set_random_seed(0)


def deep(activation):
    layers = [keras.layers.Dense(1, activation, name=f"layer_{i}") for i in range(1, 7)]
    model = keras.Sequential([keras.Input((1,)), *layers], name=f"deep_{activation}")
    model.set_weights([np.full(w.shape, 1.0 if w.ndim > 1 else 0.0) for w in model.get_weights()])
    model.compile(keras.optimizers.SGD(0.5), keras_backprop.losses.HalfSquaredError())
    return keras_backprop.explain(model, np.array([[0.5]]), np.array([[0.1]]))


for activation in ("sigmoid", "tanh", "relu"):
    explanation = deep(activation)
    gradients = [explanation.weight(f"layer_{i}/kernel").gradient.item() for i in range(1, 7)]
    print(f"{activation:8}", "  ".join(f"{abs(gradient):.1e}" for gradient in gradients))

# %%
print(deep("sigmoid").chain("w₁"))

# %% [markdown]
# The same through time, where one factor is multiplied in every step:

# %%
model = keras.Sequential(
    [keras.Input((8, 1)), keras.layers.SimpleRNN(1, name="memory"), keras.layers.Dense(1, name="output")], name="steps"
)
model.set_weights([np.array([[0.5]]), np.array([[0.4]]), np.array([0.1]), np.array([[1.2]]), np.zeros(1)])
model.compile("sgd", "mse")
keras_backprop.explain(model, np.ones((1, 8, 1)), np.ones((1, 1))).plot("vanishing_gradients.png")
