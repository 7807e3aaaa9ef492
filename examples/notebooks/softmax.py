# %% [markdown]
# # Softmax and cross-entropy
# E = −Σ T log a. Keras differentiates the softmax and the cross-entropy together, from the logits z: ∂E/∂z = a − T.

# %%
import keras
import numpy as np

import keras_backprop

keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")

model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "softmax", name="classes")], name="softmax")
model.set_weights([np.array([[0.1, 0.2, -0.1], [0.3, 0.4, 0.2]]), np.zeros(3)])
model.compile(keras.optimizers.SGD(0.5), "categorical_crossentropy")
x, T = np.array([[1.0, 2.0]]), np.array([[1.0, 0.0, 0.0]])

explanation = keras_backprop.explain(model, x, T)
print(explanation)

# %% [markdown]
# ## By way of the softmax
# With another error the softmax is a link of its own: every output depends on every z, and a weight reaches the error on three
# paths.

# %%
model.compile(keras.optimizers.SGD(0.5), "mse")
print(keras_backprop.explain(model, x, T).chain("w₁₁"))

# %% [markdown]
# ## The usual mistake
# To multiply a(1 − a) although a − T contains it already:

# %%
a = explanation.link("classes/softmax").a[0, 0]
print(explanation.compare("dW1[0,0]", (a - 1) * a * (1 - a)))
