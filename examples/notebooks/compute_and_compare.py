# %% [markdown]
# # Compute it yourself, then compare
# An exercise from a seed: numbers that one can calculate by hand, another sheet for each seed.

# %%
import numpy as np

import keras_backprop

exercise = keras_backprop.exercise(2, 2, 1, seed=7)
exercise.to_markdown(blank=["values", "error", "gradients"])

# %% [markdown]
# ## Your own backward pass
# In NumPy, with a mistake in it:

# %%
W1, b1, W2, b2 = exercise.model.get_weights()
x, T = exercise.x, exercise.y


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


a1 = sigmoid(x @ W1 + b1)
a2 = sigmoid(a1 @ W2 + b2)
delta2 = (a2 - T) * a2 * (1 - a2)
delta1 = delta2 @ W2.T * sigmoid(a1) * (1 - sigmoid(a1))
dW2, dW1 = a1.T @ delta2, x.T @ delta1

print(exercise.compare(dW2=dW2, dW1=dW1))

# %% [markdown]
# σ′(z) is a(1 − a); the sigmoid was applied once more. Mended:

# %%
delta1 = delta2 @ W2.T * a1 * (1 - a1)
print(exercise.compare(dW2=dW2, dW1=x.T @ delta1))

# %% [markdown]
# ## By hand, with few digits

# %%
explanation = exercise.explanation
print(explanation.compare({"a1_1": 0.505, "∂E/∂w5": round(float(dW2[0, 0]) * 2, 4), "w5_new": 1.23}))
