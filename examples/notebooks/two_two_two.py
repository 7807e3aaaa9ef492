# %% [markdown]
# # The 2-2-2 network
# The network of many textbooks: i = .05 .10, w = .15 … .55, b = .35 .60, targets .01 .99, η = .5. Its error is half the squared
# error, summed over the outputs.

# %%
import keras
import numpy as np

import keras_backprop

keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")

model = keras.Sequential(
    [
        keras.Input((2,)),
        keras.layers.Dense(2, "sigmoid", name="hidden"),
        keras.layers.Dense(2, "sigmoid", name="output"),
    ],
    name="textbook",
)
weights = [[[0.15, 0.25], [0.20, 0.30]], [0.35, 0.35], [[0.40, 0.50], [0.45, 0.55]], [0.60, 0.60]]
model.set_weights([np.array(w) for w in weights])
model.compile(keras.optimizers.SGD(0.5), keras_backprop.losses.HalfSquaredError())
x, T = np.array([[0.05, 0.10]]), np.array([[0.01, 0.99]])

explanation = keras_backprop.explain(model, x, T)
print(f"E = {explanation.loss:.9f}")
print(explanation.chain("w5", digits=9))

# %% [markdown]
# w₁ reaches the error on two paths, over both outputs. Its gradient is their sum.

# %%
explanation.chain("w1", digits=9)

# %%
explanation.plot("two_two_two.png", chain="w1")

# %% [markdown]
# All new weights, as they are published: w₁ 0.149780716, w₂ 0.19956143, w₃ 0.24975114, w₄ 0.29950229, w₅ 0.35891648,
# w₆ 0.408666186, w₇ 0.511301270, w₈ 0.561370121.

# %%
print(explanation.compare({
    "w1_new": "0.149780716", "w2_new": "0.19956143", "w3_new": "0.24975114", "w4_new": "0.29950229", "w5_new": "0.35891648",
    "w6_new": "0.408666186", "w7_new": "0.511301270", "w8_new": "0.561370121",
}))  # fmt: skip

# %% [markdown]
# ## After more steps, with the biases held

# %%
for layer in model.layers:
    layer.bias.trainable = False
model.compile(keras.optimizers.SGD(0.5), keras_backprop.losses.HalfSquaredError())
steps = keras_backprop.steps(model, x, T, 1000)
print(steps.to_text(epochs=[1, 2, 10, 100, 1001]))
