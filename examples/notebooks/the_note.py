# %% [markdown]
# # One hidden unit
# One input, one hidden and one output unit, both sigmoid, and half the squared error. Everything in float64.

# %%
import keras
import numpy as np

import keras_backprop

keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")

model = keras.Sequential(
    [
        keras.Input((1,)),
        keras.layers.Dense(1, "sigmoid", name="hidden"),
        keras.layers.Dense(1, "sigmoid", name="output"),
    ],
    name="note",
)
model.set_weights([np.array(w) for w in ([[0.15]], [0.40], [[0.45]], [0.65])])
model.compile(keras.optimizers.SGD(0.4), keras_backprop.losses.HalfMeanSquaredError())
x, T = np.array([[0.1]]), np.array([[0.25]])

explanation = keras_backprop.explain(model, x, T)
print(explanation)

# %% [markdown]
# ## One weight
# Every factor on the way from the error to w₁:

# %%
explanation.chain("w₁")

# %%
explanation.plot("the_note.png", chain="w₁")

# %% [markdown]
# ## The second iteration, and the 1000th
# The gradients of a step use the weights before it; the next step begins with the new ones.

# %%
steps = keras_backprop.steps(model, x, T, 1000)
print(steps.to_text(epochs=[1, 2, 3, 82, 1000]))

# %%
print(steps.explanation(2).chain("w₂"))
