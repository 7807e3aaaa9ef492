# %% [markdown]
# # A recurrent unit in three steps
# h_t = tanh(w·x_t + u·h_{t−1}), and behind the last step a = v·h₃. The same u acts in every step: its gradient is a sum
# over paths through time.

# %%
import keras
import numpy as np

import keras_backprop

keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
keras.utils.set_random_seed(0)

model = keras.Sequential(
    [
        keras.Input((3, 1)),
        keras.layers.SimpleRNN(1, use_bias=False, name="memory"),
        keras.layers.Dense(1, use_bias=False, name="output"),
    ],
    name="recurrent",
)
model.set_weights([np.array([[0.5]]), np.array([[0.8]]), np.array([[1.2]])])
model.compile(keras.optimizers.SGD(0.5), keras_backprop.losses.HalfSquaredError())
x, T = np.array([[[1.0], [0.5], [-1.0]]]), np.array([[0.4]])

explanation = keras_backprop.explain(model, x, T)
print(explanation)

# %%
print(explanation.chain("u"))

# %%
explanation.plot("recurrent.png")

# %% [markdown]
# Whoever follows the last step only, finds another number:

# %%
last = explanation.chain("u").paths[-1].value
print(explanation.compare("du", last))

# %% [markdown]
# ## LSTM
# The gates of every step, and the errors at them:

# %%
lstm = keras.Sequential(
    [keras.Input((2, 1)), keras.layers.LSTM(1, name="memory"), keras.layers.Dense(1, name="output")], name="lstm"
)
lstm.compile("sgd", "mse")
print(keras_backprop.explain(lstm, x[:, :2], T).to_text().split("Backward")[0])
